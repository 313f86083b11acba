//! As much of TCP over IPv4 as the bare loop needs. It trusts its one peer, the kernel beside it.

use std::net::Ipv4Addr;

use super::tun;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;

const IP: usize = 20;
const TCP: usize = 20;
/// MSS of 1460 bytes, window scale of 10.
const SYN_OPTIONS: [u8; 8] = [2, 4, 0x05, 0xb4, 3, 3, 10, 0];

/// A segment that came in.
pub(super) struct Segment<'a> {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    /// The shift in the window scale option, 0 without one.
    pub(super) scale: u8,
    pub(super) payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// `None` when it is not TCP over IPv4.
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        let ip_len = usize::from(packet.first()? & 15) * 4;
        let total = usize::from(be16(packet, 2)?);
        if packet[0] >> 4 != 4 || *packet.get(9)? != 6 {
            return None;
        }
        let tcp = packet.get(ip_len..total)?;
        let header_len = usize::from(tcp.get(12)? >> 4) * 4;
        Some(Self {
            source: Ipv4Addr::from(be32(packet, 12)?),
            destination: Ipv4Addr::from(be32(packet, 16)?),
            source_port: be16(tcp, 0)?,
            destination_port: be16(tcp, 2)?,
            seq: be32(tcp, 4)?,
            ack: be32(tcp, 8)?,
            flags: *tcp.get(13)?,
            window: be16(tcp, 14)?,
            scale: scale(tcp.get(TCP..header_len)?),
            payload: tcp.get(header_len..)?,
        })
    }

    pub(super) fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }
}

/// A segment that goes out, towards where one came from.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    pub(super) source: [u8; 4],
    pub(super) destination: [u8; 4],
    /// Source and destination.
    pub(super) ports: [u16; 2],
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) payload_len: usize,
    /// Payload of each segment that the kernel makes of it; 0: it stays whole.
    pub(super) segment_size: usize,
}

impl Answer {
    pub(super) fn to(segment: &Segment<'_>) -> Self {
        Self {
            source: segment.destination.octets(),
            destination: segment.source.octets(),
            ports: [segment.destination_port, segment.source_port],
            seq: 0,
            ack: 0,
            flags: ACK,
            payload_len: 0,
            segment_size: 0,
        }
    }

    /// The headers, that of the device first, in `buffer`.
    pub(super) fn headers<'a>(&self, buffer: &'a mut [u8; tun::HEADER + IP + TCP + 8]) -> &'a [u8] {
        let options: &[u8] = if self.flags & SYN != 0 { &SYN_OPTIONS } else { &[] };
        let tcp_len = TCP + options.len();
        let end = tun::HEADER + IP + tcp_len;
        let packet = &mut buffer[..end];
        packet.fill(0);
        packet[..tun::HEADER].copy_from_slice(&tun::header(IP, tcp_len, self.segment_size));
        let (ip, tcp) = packet[tun::HEADER..].split_at_mut(IP);
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&((IP + tcp_len + self.payload_len) as u16).to_be_bytes());
        ip[8] = 64;
        ip[9] = 6;
        ip[12..16].copy_from_slice(&self.source);
        ip[16..20].copy_from_slice(&self.destination);
        let sum = !sum(ip, 0);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        tcp[0..2].copy_from_slice(&self.ports[0].to_be_bytes());
        tcp[2..4].copy_from_slice(&self.ports[1].to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.ack.to_be_bytes());
        tcp[12] = (tcp_len as u8 / 4) << 4;
        tcp[13] = self.flags;
        tcp[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        tcp[16..18].copy_from_slice(&pseudo_header(&ip[12..20], tcp_len + self.payload_len).to_be_bytes());
        tcp[TCP..].copy_from_slice(options);
        &buffer[..end]
    }
}

/// Sum of TCP's pseudo-header over both addresses, not complemented.
pub(super) fn pseudo_header(addresses: &[u8], tcp_len: usize) -> u16 {
    sum(addresses, 6 + tcp_len as u32)
}

fn sum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum = start + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn scale(mut options: &[u8]) -> u8 {
    while let [kind, rest @ ..] = options {
        options = match (kind, rest) {
            (1, rest) => rest,
            (3, [3, shift, ..]) => return (*shift).min(14),
            (2.., [len, ..]) if (2..=options.len()).contains(&usize::from(*len)) => &options[usize::from(*len)..],
            _ => return 0,
        };
    }
    0
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment of 10.9.0.1 with the SYN options that the kernel sends.
    fn syn() -> Vec<u8> {
        let answer = Answer {
            source: [10, 9, 0, 1],
            destination: [10, 9, 0, 2],
            ports: [40_000, 5001],
            seq: 7,
            ack: 0,
            flags: SYN,
            payload_len: 0,
            segment_size: 0,
        };
        answer.headers(&mut [0; 58])[tun::HEADER..].to_vec()
    }

    #[test]
    fn what_is_written_can_be_read() {
        let packet = syn();
        let segment = Segment::parse(&packet).expect("a segment");
        assert_eq!((segment.source_port, segment.destination_port, segment.seq), (40_000, 5001, 7));
        assert_eq!((segment.flags, segment.scale, segment.payload.len()), (SYN, 10, 0));
        assert_eq!(sum(&packet[..IP], 0), 0xffff, "the checksum of the IP header");
    }

    #[test]
    fn an_answer_goes_back() {
        let packet = syn();
        let answer = Answer::to(&Segment::parse(&packet).expect("a segment"));
        assert_eq!((answer.source, answer.destination, answer.ports), ([10, 9, 0, 2], [10, 9, 0, 1], [5001, 40_000]));
    }

    #[test]
    fn short_packets_and_odd_options_are_no_segments_and_no_scale() {
        let packet = syn();
        for len in 0..packet.len() {
            assert!(Segment::parse(&packet[..len]).is_none(), "{len} bytes");
        }
        assert_eq!(scale(&[2, 0, 3, 3, 10]), 0);
        assert_eq!(scale(&[8, 40, 1]), 0);
        assert_eq!(scale(&[1, 1, 3, 3, 99]), 14);
    }
}
