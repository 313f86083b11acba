use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use anabranch_frame::checksum::{self, Sum};
use anabranch_frame::{Header, PathId, Payload, RxChecksum, RxPacket, Slices, Transmit};

use super::bytes::{be16, be32};
use super::ip::{self, Ip, IpOut};
use super::{OptionWriter, SeqNum, TcpOptions};

/// Where the checksum stands in the TCP header.
const CHECKSUM_AT: u8 = 16;
/// Length of the TCP header without options, in bytes.
const TCP_HEADER: usize = 20;

/// A connection's addresses, seen from here.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Ours.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} - {}", self.local, self.remote)
    }
}

/// TCP control bits, as they stand in byte 13 of the header.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// FIN.
    pub const FIN: Self = Self(0x01);
    /// SYN.
    pub const SYN: Self = Self(0x02);
    /// RST.
    pub const RST: Self = Self(0x04);
    /// PSH.
    pub const PSH: Self = Self(0x08);
    /// ACK.
    pub const ACK: Self = Self(0x10);
    /// URG.
    pub const URG: Self = Self(0x20);
    /// ECE.
    pub const ECE: Self = Self(0x40);
    /// CWR.
    pub const CWR: Self = Self(0x80);

    /// Whether all of `other`'s bits are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [
            (Self::SYN, 'S'),
            (Self::FIN, 'F'),
            (Self::RST, 'R'),
            (Self::PSH, 'P'),
            (Self::URG, 'U'),
            (Self::ECE, 'E'),
            (Self::CWR, 'W'),
            (Self::ACK, '.'),
        ] {
            if self.has(bit) {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// A received TCP segment, or super-segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The path it came in on.
    pub path: PathId,
    /// Local is its destination, remote its source.
    pub tuple: Tuple,
    /// Sequence number of its first byte (or SYN).
    pub seq: SeqNum,
    /// Acknowledgement number; meaningless without ACK.
    pub ack: SeqNum,
    /// Control bits.
    pub flags: Flags,
    /// Window field, unscaled.
    pub window: u16,
    /// ECN field of the IP header (0 to 3).
    pub ecn: u8,
    /// Options.
    pub options: TcpOptions,
    /// Payload.
    pub payload: Payload,
    /// For a super-segment, payload bytes of each segment it stands for.
    pub segment_size: Option<u16>,
}

/// Why a packet did not become a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dropped {
    /// Malformed IP header, wrong version, bad header checksum, lengths that do not fit.
    IpHeader,
    /// A fragment.
    Fragment,
    /// Not TCP.
    NotTcp,
    /// Malformed TCP header.
    TcpHeader,
    /// Bad TCP checksum.
    Checksum,
    /// Malformed ICMP message.
    Icmp,
    /// Bad ICMP checksum.
    IcmpChecksum,
}

impl Segment {
    /// How many segments it stands for: more than one if the device put several together.
    #[must_use]
    pub fn segment_count(&self) -> u64 {
        let unit = self.segment_size.map_or(self.payload.len(), usize::from);
        self.payload.len().div_ceil(unit.max(1)).max(1) as u64
    }

    /// Sequence space it takes: payload, SYN and FIN.
    #[must_use]
    pub fn seq_len(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.flags.has(Flags::SYN)) + u32::from(self.flags.has(Flags::FIN))
    }
}

/// Everything of an outgoing segment but its payload.
#[derive(Clone, Copy, Debug)]
pub struct SegmentOut<'a> {
    /// Local is the source, remote the destination.
    pub tuple: Tuple,
    /// Sequence number of the first byte.
    pub seq: SeqNum,
    /// Acknowledgement number; 0 without ACK.
    pub ack: SeqNum,
    /// Control bits.
    pub flags: Flags,
    /// Window field.
    pub window: u16,
    /// The rest of the IP header.
    pub ip: IpOut,
    /// Options.
    pub options: &'a OptionWriter,
    /// Bytes of payload that follow.
    pub payload_len: u32,
}

impl Segment {
    /// Parses and checks one datagram; the TCP checksum is verified unless the device vouches for it.
    ///
    /// Bytes behind the length that the IP header gives are cut off.
    ///
    /// # Errors
    /// Why it is none of ours.
    pub fn parse(packet: RxPacket) -> Result<Self, Dropped> {
        let RxPacket { path, mut data, checksum, segment_size } = packet;
        let ip = Ip::parse(&data)?;
        if ip.protocol != ip::TCP {
            return Err(Dropped::NotTcp);
        }
        let tcp = &data[ip.body.clone()];
        if tcp.len() < TCP_HEADER {
            return Err(Dropped::TcpHeader);
        }
        let header_len = usize::from(tcp[12] >> 4) * 4;
        if header_len < TCP_HEADER || header_len > tcp.len() {
            return Err(Dropped::TcpHeader);
        }
        if checksum == RxChecksum::Unverified
            && pseudo_header(ip.source, ip.destination, tcp.len()).add(tcp).fold() != 0xffff
        {
            return Err(Dropped::Checksum);
        }
        let segment = Self {
            path,
            tuple: Tuple {
                local: SocketAddr::new(ip.destination, be16(tcp, 2)),
                remote: SocketAddr::new(ip.source, be16(tcp, 0)),
            },
            seq: SeqNum(be32(tcp, 4)),
            ack: SeqNum(be32(tcp, 8)),
            flags: Flags(tcp[13]),
            window: be16(tcp, 14),
            ecn: ip.ecn,
            options: TcpOptions::parse(&tcp[TCP_HEADER..header_len]),
            payload: Payload::EMPTY,
            segment_size,
        };
        let payload = ip.body.start + header_len..ip.body.end;
        // An empty payload does not keep the packet's buffer.
        if payload.is_empty() {
            return Ok(segment);
        }
        data.truncate(payload.end);
        data.advance(payload.start);
        Ok(Self { payload: data, ..segment })
    }
}

impl SegmentOut<'_> {
    /// The packet that leaves by `path`. `payload` has `payload_len` bytes; with `segment_size` it is a super-segment.
    #[must_use]
    pub fn transmit(&self, path: PathId, payload: Slices, segment_size: Option<u16>) -> Transmit {
        let (header, transport_offset) = self.emit();
        Transmit { path, header, transport_offset, checksum_offset: CHECKSUM_AT, payload, segment_size }
    }

    /// The packet of a segment without payload.
    #[must_use]
    pub fn bare(&self, path: PathId) -> Transmit {
        self.transmit(path, Slices::new(), None)
    }

    /// IP and TCP header with the folded pseudo-header sum in the checksum field (see
    /// [`anabranch_frame::Transmit`]), and the offset of the TCP header.
    ///
    /// The IP length covers the whole super-segment: over IPv4 all headers and payload, over IPv6 TCP
    /// header and payload are 65535 bytes at most.
    #[must_use]
    pub fn emit(&self) -> (Header, u8) {
        let options = self.options.as_slice();
        let tcp_len = TCP_HEADER + options.len() + self.payload_len as usize;
        let (source, destination) = (self.tuple.local, self.tuple.remote);
        let offset = match (source.ip(), destination.ip()) {
            (IpAddr::V4(_), IpAddr::V4(_)) => ip::V4_HEADER,
            _ => ip::V6_HEADER,
        };
        debug_assert!(tcp_len + if offset == ip::V4_HEADER { offset } else { 0 } <= usize::from(u16::MAX));
        let mut header = Header::zeroed(offset + TCP_HEADER + options.len());
        match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ip::emit_v4(&mut header, source, destination, &self.ip, tcp_len);
            }
            (source, destination) => {
                ip::emit_v6(&mut header, to_v6(source), to_v6(destination), &self.ip, tcp_len);
            }
        }
        let tcp = &mut header[offset..];
        tcp[0..2].copy_from_slice(&source.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&destination.port().to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.0.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.ack.0.to_be_bytes());
        tcp[12] = ((TCP_HEADER + options.len()) as u8 / 4) << 4;
        tcp[13] = self.flags.0;
        tcp[14..16].copy_from_slice(&self.window.to_be_bytes());
        tcp[16..18].copy_from_slice(&pseudo_header(source.ip(), destination.ip(), tcp_len).fold().to_be_bytes());
        tcp[TCP_HEADER..].copy_from_slice(options);
        (header, offset as u8)
    }
}

fn pseudo_header(source: IpAddr, destination: IpAddr, tcp_len: usize) -> Sum {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            checksum::pseudo_header(&source.octets(), &destination.octets(), ip::TCP, tcp_len as u32)
        }
        (source, destination) => {
            checksum::pseudo_header(&to_v6(source).octets(), &to_v6(destination).octets(), ip::TCP, tcp_len as u32)
        }
    }
}

/// A pair of addresses with one of each family belongs to nobody; as IPv6 it is at least well formed.
fn to_v6(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    }
}

/// Addresses of a packet without parsing the rest, to find the worker that owns it. `None` if it is no TCP packet.
#[must_use]
pub fn peek_tuple(datagram: &[u8]) -> Option<Tuple> {
    let ip = Ip::locate(datagram).ok().filter(|ip| ip.protocol == ip::TCP)?;
    let tcp = &datagram[ip.body];
    if tcp.len() < TCP_HEADER {
        return None;
    }
    Some(Tuple {
        local: SocketAddr::new(ip.destination, be16(tcp, 2)),
        remote: SocketAddr::new(ip.source, be16(tcp, 0)),
    })
}

#[cfg(test)]
mod tests;
