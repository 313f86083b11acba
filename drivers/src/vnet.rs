//! The virtio-net header before each packet (virtio 1.2 §5.1.6, linux/virtio_net.h), in its legacy form: ten bytes
//! in the machine's byte order.

use anabranch_frame::{RxChecksum, Transmit};

/// Length of the header, in bytes.
pub(crate) const LEN: usize = 10;

/// The checksum field is unfinished: it holds the pseudo-header's sum.
const FLAG_NEEDS_CSUM: u8 = 1;
/// The checksum was verified.
const FLAG_DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// Datagrams with a header each, not fragments.
const GSO_UDP_L4: u8 = 5;
/// The first segment carries CWR, the others must not.
const GSO_ECN: u8 = 0x80;

/// No chain of headers is longer, in bytes.
const HEADERS_MAX: u16 = 128;

/// CWR in the flags byte of a TCP header.
const TCP_CWR: u8 = 0x80;
/// Where that byte is.
const TCP_FLAGS: usize = 13;

/// What the header of a received packet says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Received {
    pub(crate) checksum: RxChecksum,
    pub(crate) segment_size: Option<u16>,
}

/// Reads the header of a packet that starts with the byte `first`; `None` when they make no sense together.
/// `hdr_len` is ignored: the kernel calls it a hint.
pub(crate) fn parse(header: &[u8; LEN], first: u8) -> Option<Received> {
    let [flags, gso, ..] = *header;
    let checksum = match flags & (FLAG_NEEDS_CSUM | FLAG_DATA_VALID) {
        0 => RxChecksum::Unverified,
        _ => RxChecksum::Trusted,
    };
    let segment_size = u16::from_ne_bytes([header[4], header[5]]);
    let segment_size = match (gso & !GSO_ECN, first >> 4) {
        (GSO_NONE, 4 | 6) => None,
        (GSO_TCPV4, 4) | (GSO_TCPV6, 6) if segment_size > 0 => Some(segment_size),
        _ => return None,
    };
    Some(Received { checksum, segment_size })
}

/// Payload bytes of each segment of a super-segment of TCP or UDP.
pub(crate) fn segment_size(header: &[u8; LEN]) -> Option<u16> {
    let size = u16::from_ne_bytes([header[4], header[5]]);
    (matches!(header[1] & !GSO_ECN, GSO_TCPV4 | GSO_TCPV6 | GSO_UDP_L4) && size > 0).then_some(size)
}

/// Where the unfinished checksum counts from, in bytes from the start of the frame, and where it goes from there.
pub(crate) fn partial_checksum(header: &[u8; LEN]) -> Option<(u16, u16)> {
    let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    (header[0] & FLAG_NEEDS_CSUM != 0).then(|| (word(6), word(8)))
}

/// The header for sending on what was received with `header`, behind `extra` more bytes of link header.
pub(crate) fn forward(header: &[u8; LEN], extra: u16) -> [u8; LEN] {
    let mut out = *header;
    // That a checksum was good is no news for who comes next.
    out[0] &= FLAG_NEEDS_CSUM;
    let mut change = |at: usize, f: &dyn Fn(u16) -> u16| {
        let word = f(u16::from_ne_bytes([out[at], out[at + 1]]));
        out[at..at + 2].copy_from_slice(&word.to_ne_bytes());
    };
    // The kernel makes that much of the frame contiguous: it may be all of it here, and need not be.
    change(2, &|len| len.min(HEADERS_MAX) + extra);
    if header[0] & FLAG_NEEDS_CSUM != 0 {
        change(6, &|start| start.saturating_add(extra));
    }
    out
}

/// The header to send before `packet`, whose payload has `payload_len` bytes and before which there is a link
/// header of `link_len` bytes.
pub(crate) fn build(packet: &Transmit, payload_len: usize, link_len: u16) -> [u8; LEN] {
    let mut header = [0; LEN];
    header[0] = FLAG_NEEDS_CSUM;
    header[6..8].copy_from_slice(&(link_len + u16::from(packet.transport_offset)).to_ne_bytes());
    header[8..10].copy_from_slice(&u16::from(packet.checksum_offset).to_ne_bytes());
    if let Some(segment_size) = packet.segment_size
        && payload_len > usize::from(segment_size)
    {
        let ipv4 = packet.header.first().is_some_and(|first| first >> 4 == 4);
        let flags = packet.header.get(usize::from(packet.transport_offset) + TCP_FLAGS).copied().unwrap_or(0);
        header[1] = if ipv4 { GSO_TCPV4 } else { GSO_TCPV6 } | if flags & TCP_CWR != 0 { GSO_ECN } else { 0 };
        header[2..4].copy_from_slice(&(link_len + packet.header.len() as u16).to_ne_bytes());
        header[4..6].copy_from_slice(&segment_size.to_ne_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use anabranch_frame::{Header, PathId, Payload};

    fn header(flags: u8, gso: u8, size: u16) -> [u8; LEN] {
        let [a, b] = size.to_ne_bytes();
        // hdr_len is nonsense on purpose.
        [flags, gso, 0xff, 0xff, a, b, 0, 0, 0, 0]
    }

    #[test]
    fn what_a_received_header_means() {
        use RxChecksum::{Trusted, Unverified};
        let fine = |checksum, segment_size| Some(Received { checksum, segment_size });
        let cases = [
            (header(0, GSO_NONE, 0), 0x45, fine(Unverified, None)),
            (header(FLAG_NEEDS_CSUM, GSO_NONE, 0), 0x45, fine(Trusted, None)),
            (header(FLAG_DATA_VALID, GSO_NONE, 0), 0x60, fine(Trusted, None)),
            (header(FLAG_NEEDS_CSUM, GSO_TCPV4, 1448), 0x45, fine(Trusted, Some(1448))),
            (header(FLAG_NEEDS_CSUM, GSO_TCPV6 | GSO_ECN, 1428), 0x60, fine(Trusted, Some(1428))),
            // Segments of nothing, the other family's segments, UDP's, no IP at all.
            (header(FLAG_NEEDS_CSUM, GSO_TCPV4, 0), 0x45, None),
            (header(FLAG_NEEDS_CSUM, GSO_TCPV4, 1448), 0x60, None),
            (header(FLAG_NEEDS_CSUM, GSO_TCPV6, 1448), 0x45, None),
            (header(FLAG_NEEDS_CSUM, 5, 1448), 0x45, None),
            (header(0, GSO_NONE, 0), 0x00, None),
        ];
        for (bytes, first, expected) in cases {
            assert_eq!(parse(&bytes, first), expected, "{bytes:?} before {first:#x}");
        }
    }

    fn packet(version: u8, tcp_flags: u8, payload: usize, segment_size: Option<u16>) -> Transmit {
        let mut header = Header::zeroed(60);
        header[0] = version << 4;
        header[40 + TCP_FLAGS] = tcp_flags;
        Transmit {
            path: PathId(0),
            header,
            transport_offset: 40,
            checksum_offset: 16,
            payload: [Payload::from(vec![0; payload])].into_iter().collect(),
            segment_size,
        }
    }

    fn fields(bytes: [u8; LEN]) -> [u16; 6] {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        [bytes[0].into(), bytes[1].into(), word(2), word(4), word(6), word(8)]
    }

    #[test]
    fn one_segment_asks_for_its_checksum_only() {
        for segment_size in [None, Some(1000), Some(1460)] {
            assert_eq!(fields(build(&packet(6, 0x10, 1000, segment_size), 1000, 0)), [1, 0, 0, 0, 40, 16]);
        }
    }

    #[test]
    fn a_super_segment_says_how_to_cut_it() {
        assert_eq!(fields(build(&packet(4, 0x10, 3000, Some(1460)), 3000, 0)), [1, 1, 60, 1460, 40, 16]);
        assert_eq!(fields(build(&packet(6, 0x90, 3000, Some(1440)), 3000, 14)), [1, 0x84, 74, 1440, 54, 16]);
    }
}
