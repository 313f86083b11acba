//! How many wire segments a received super-segment stands for.

use anabranch_frame::RxPacket;

/// Segments that `packet` stands for: what a counter of the wire would have counted.
pub(crate) fn count(packet: &RxPacket) -> u64 {
    let Some(size) = packet.segment_size.filter(|&size| size > 0) else { return 1 };
    let payload = packet.data.len().saturating_sub(headers_len(&packet.data));
    payload.div_ceil(usize::from(size)).max(1) as u64
}

/// Length of the IP and TCP headers of a super-segment; the kernel makes none with IPv6 extension headers.
fn headers_len(packet: &[u8]) -> usize {
    let ip = match packet.first() {
        Some(first) if first >> 4 == 4 => usize::from(first & 15) * 4,
        _ => 40,
    };
    let tcp = packet.get(ip + 12).map_or(0, |offset| usize::from(offset >> 4) * 4);
    ip + tcp
}

#[cfg(test)]
mod tests {
    use super::*;
    use anabranch_frame::{PathId, Payload};

    #[test]
    fn headers_do_not_count() {
        let mut bytes = vec![0; 20 + 32 + 3 * 1448];
        bytes[0] = 0x45;
        bytes[20 + 12] = 0x80;
        let mut packet = RxPacket::new(PathId(0), Payload::from(bytes));

        let plain = count(&packet);
        packet.segment_size = Some(1448);

        assert_eq!((plain, count(&packet)), (1, 3));
    }
}
