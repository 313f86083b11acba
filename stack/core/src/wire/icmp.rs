//! ICMP errors about segments that we sent (RFC 792, RFC 1191, RFC 4443): what they say, and of which segment.
//!
//! Whether one is to be believed is decided by who knows the connection (RFC 5927 §4.1).

use core::net::{IpAddr, SocketAddr};

use anabranch_frame::checksum::{Sum, pseudo_header};
use anabranch_frame::{RxChecksum, RxPacket};

use super::bytes::{be16, be32};
use super::ip::{ICMP, ICMPV6, Ip, TCP, V4_HEADER, V6_HEADER, v4, v6};
use super::{Dropped, SeqNum, Tuple};
use crate::IcmpCause;

/// Type, code, checksum, and four bytes that depend on the type.
const HEADER: usize = 8;
/// What an error shows of the TCP header at least: ports and sequence number (RFC 792).
const TCP_SHOWN: usize = 8;

/// What an ICMP error says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IcmpKind {
    /// The packet was too big for a link (RFC 1191 §4, RFC 8201 §4).
    TooBig {
        /// The link's MTU in bytes; 0 from an IPv4 router that does not say.
        mtu: u32,
    },
    /// It did not get where it should.
    Problem {
        /// Why.
        cause: IcmpCause,
        /// A link went away, and the next retransmission may find another (RFC 6069 §3).
        disrupted: bool,
    },
}

/// An ICMP error about a segment of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError {
    /// What it says.
    pub kind: IcmpKind,
    /// The segment's connection: local is where it came from.
    pub tuple: Tuple,
    /// Its sequence number.
    pub seq: SeqNum,
}

/// Whether a datagram is ICMP, as far as the first IP header tells.
#[must_use]
pub fn is_icmp(datagram: &[u8]) -> bool {
    match datagram.first().map(|byte| byte >> 4) {
        Some(4) => datagram.get(9) == Some(&ICMP),
        Some(6) => datagram.get(6) == Some(&ICMPV6),
        _ => false,
    }
}

impl IcmpError {
    /// Reads an ICMP message; `None` if it is sound but no error about TCP, or says nothing that matters to TCP.
    ///
    /// # Errors
    /// Why it is no sound ICMP message.
    pub fn parse(packet: &RxPacket) -> Result<Option<Self>, Dropped> {
        let ip = Ip::parse(&packet.data)?;
        let message = &packet.data[ip.body.clone()];
        if message.len() < HEADER {
            return Err(Dropped::Icmp);
        }
        if packet.checksum == RxChecksum::Unverified && !checksum_is_right(&ip, message) {
            return Err(Dropped::IcmpChecksum);
        }
        let kind = match ip.protocol {
            ICMP => kind_v4(message),
            ICMPV6 => kind_v6(message),
            _ => return Err(Dropped::NotTcp),
        };
        let Some(kind) = kind else { return Ok(None) };
        let about = if ip.protocol == ICMP { about_v4(&message[HEADER..]) } else { about_v6(&message[HEADER..]) };
        match about {
            About::Tcp(tuple, seq) => Ok(Some(Self { kind, tuple, seq })),
            About::Other => Ok(None),
            About::Malformed => Err(Dropped::Icmp),
        }
    }
}

fn checksum_is_right(ip: &Ip, message: &[u8]) -> bool {
    let sum = match (ip.source, ip.destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            pseudo_header(&source.octets(), &destination.octets(), ICMPV6, message.len() as u32)
        }
        _ => Sum::new(),
    };
    sum.add(message).fold() == 0xffff
}

/// RFC 792 and RFC 1122 §3.2.2.1, with the kernel's idea of what each code comes to. Source quench is ignored
/// (RFC 6633), redirects are for who has routes.
fn kind_v4(message: &[u8]) -> Option<IcmpKind> {
    const UNREACHABLE: u8 = 3;
    const TIME_EXCEEDED: u8 = 11;
    const PARAMETER_PROBLEM: u8 = 12;
    const TOO_BIG: u8 = 4;
    let code = message[1];
    let cause = match (message[0], code) {
        (UNREACHABLE, TOO_BIG) => return Some(IcmpKind::TooBig { mtu: u32::from(be16(message, 6)) }),
        (UNREACHABLE, 0 | 6 | 9 | 11) => IcmpCause::NetworkUnreachable,
        (UNREACHABLE, 1 | 10 | 12..=15) | (TIME_EXCEEDED, 0 | 1) => IcmpCause::HostUnreachable,
        (UNREACHABLE, 2) => IcmpCause::ProtocolUnreachable,
        (UNREACHABLE, 3) => IcmpCause::PortUnreachable,
        (UNREACHABLE, 5) => IcmpCause::SourceRouteFailed,
        (UNREACHABLE, 7) => IcmpCause::HostUnknown,
        (UNREACHABLE, 8) => IcmpCause::HostIsolated,
        (PARAMETER_PROBLEM, _) => IcmpCause::BadHeader,
        _ => return None,
    };
    Some(IcmpKind::Problem { cause, disrupted: message[0] == UNREACHABLE && code <= 1 })
}

/// RFC 4443 §3.
fn kind_v6(message: &[u8]) -> Option<IcmpKind> {
    const UNREACHABLE: u8 = 1;
    const TOO_BIG: u8 = 2;
    const TIME_EXCEEDED: u8 = 3;
    const PARAMETER_PROBLEM: u8 = 4;
    let code = message[1];
    let cause = match (message[0], code) {
        (TOO_BIG, _) => return Some(IcmpKind::TooBig { mtu: be32(message, 4) }),
        (UNREACHABLE, 0) => IcmpCause::NetworkUnreachable,
        (UNREACHABLE, 1 | 5 | 6) => IcmpCause::Prohibited,
        (UNREACHABLE, 2 | 3) | (TIME_EXCEEDED, _) => IcmpCause::HostUnreachable,
        (UNREACHABLE, 4) => IcmpCause::PortUnreachable,
        (PARAMETER_PROBLEM, _) => IcmpCause::BadHeader,
        _ => return None,
    };
    Some(IcmpKind::Problem { cause, disrupted: message[0] == UNREACHABLE && code == 0 })
}

/// What an error is about.
enum About {
    Tcp(Tuple, SeqNum),
    /// Something that is not TCP, or a fragment that does not show its ports.
    Other,
    Malformed,
}

/// The IPv4 packet in an error: its header, and eight bytes or more (RFC 792).
fn about_v4(packet: &[u8]) -> About {
    if packet.len() < V4_HEADER || packet[0] >> 4 != 4 {
        return About::Malformed;
    }
    if packet[9] != TCP || be16(packet, 6) & 0x1fff != 0 {
        return About::Other;
    }
    let header_len = usize::from(packet[0] & 0x0f) * 4;
    match packet.get(header_len.max(V4_HEADER)..) {
        Some(tcp) if header_len >= V4_HEADER => about(tcp, v4(packet, 12), v4(packet, 16)),
        _ => About::Malformed,
    }
}

/// The IPv6 packet in an error, as much of it as fits (RFC 4443 §2.4). We send no extension headers.
fn about_v6(packet: &[u8]) -> About {
    if packet.len() < V6_HEADER || packet[0] >> 4 != 6 {
        return About::Malformed;
    }
    if packet[6] != TCP {
        return About::Other;
    }
    about(&packet[V6_HEADER..], v6(packet, 8), v6(packet, 24))
}

fn about(tcp: &[u8], source: IpAddr, destination: IpAddr) -> About {
    if tcp.len() < TCP_SHOWN {
        return About::Malformed;
    }
    let local = SocketAddr::new(source, be16(tcp, 0));
    let remote = SocketAddr::new(destination, be16(tcp, 2));
    About::Tcp(Tuple { local, remote }, SeqNum(be32(tcp, 4)))
}

#[cfg(test)]
mod tests;
