use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use anabranch_frame::checksum::sum_be;

use super::Dropped;
use super::bytes::be16;

/// IP protocol number of TCP.
pub(super) const TCP: u8 = 6;
/// IP protocol numbers of ICMP and ICMPv6.
pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;

/// Length of the IPv4 header that we emit, in bytes.
pub(super) const V4_HEADER: usize = 20;
/// Length of the IPv6 header that we emit, in bytes.
pub(super) const V6_HEADER: usize = 40;

const V4_FLAG_DF: u16 = 0x4000;
const V4_FLAG_MF: u16 = 0x2000;
const V4_OFFSET: u16 = 0x1fff;

const V6_HOP_BY_HOP: u8 = 0;
const V6_ROUTING: u8 = 43;
const V6_FRAGMENT: u8 = 44;
const V6_DESTINATION: u8 = 60;
/// Offset and M flag in a fragment header.
const V6_FRAGMENT_PART: u16 = 0xfff9;
/// RFC 8200 §4.1 recommends five extension headers at most, one of them twice.
const V6_EXTENSIONS_MAX: usize = 6;

/// TTL and hop limit of what we send, if nobody says otherwise (RFC 1700).
pub(crate) const HOP_LIMIT: u8 = 64;

/// The two lowest bits of a traffic class (RFC 3168 §5).
pub(crate) mod ecn {
    /// Not ECN-capable.
    pub(crate) const NOT_ECT: u8 = 0b00;
    /// ECN-capable, the codepoint that TCP uses.
    pub(crate) const ECT_0: u8 = 0b10;
    /// Congestion experienced.
    pub(crate) const CE: u8 = 0b11;
}

/// What stands in the IP header of a packet that we send, besides addresses and lengths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpOut {
    /// Type of service or traffic class: six bits of DSCP (RFC 2474), two of ECN (RFC 3168).
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Routers must not fragment it (IPv4's DF).
    pub dont_fragment: bool,
    /// IPv4 identification. Each wire segment of a super-segment has the next one.
    pub id: u16,
    /// IPv6 flow label, 20 bits (RFC 6437).
    pub flow_label: u32,
}

impl Default for IpOut {
    fn default() -> Self {
        Self { traffic_class: 0, hop_limit: HOP_LIMIT, dont_fragment: true, id: 0, flow_label: 0 }
    }
}

/// What the IP header says of a datagram.
pub(super) struct Ip {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// ECN field, 0 to 3.
    pub(super) ecn: u8,
    /// What is in it.
    pub(super) protocol: u8,
    /// Where that is; within the datagram.
    pub(super) body: Range<usize>,
}

impl Ip {
    /// Finds what is in a datagram without judging addresses or the header checksum.
    pub(super) fn locate(datagram: &[u8]) -> Result<Self, Dropped> {
        match datagram.first().map(|byte| byte >> 4) {
            Some(4) => Self::locate_v4(datagram),
            Some(6) => Self::locate_v6(datagram),
            _ => Err(Dropped::IpHeader),
        }
    }

    /// Finds what is in a datagram and refuses what RFC 1122 §3.2.1 and RFC 4291 §2.7 refuse: a bad header
    /// checksum, a source that can be no single host's address.
    pub(super) fn parse(datagram: &[u8]) -> Result<Self, Dropped> {
        let ip = Self::locate(datagram)?;
        let valid = match ip.source {
            IpAddr::V4(source) => {
                let header = &datagram[..usize::from(datagram[0] & 0x0f) * 4];
                sum_be(header) == 0xffff && !(source.is_unspecified() || source.is_multicast() || source.is_broadcast())
            }
            IpAddr::V6(source) => {
                !(source.is_unspecified() || source.is_multicast() || source.to_ipv4_mapped().is_some())
            }
        };
        if valid { Ok(ip) } else { Err(Dropped::IpHeader) }
    }

    fn locate_v4(datagram: &[u8]) -> Result<Self, Dropped> {
        if datagram.len() < V4_HEADER {
            return Err(Dropped::IpHeader);
        }
        let header_len = usize::from(datagram[0] & 0x0f) * 4;
        let total_len = usize::from(be16(datagram, 2));
        if header_len < V4_HEADER || total_len < header_len || total_len > datagram.len() {
            return Err(Dropped::IpHeader);
        }
        if be16(datagram, 6) & (V4_FLAG_MF | V4_OFFSET) != 0 {
            return Err(Dropped::Fragment);
        }
        Ok(Self {
            source: v4(datagram, 12),
            destination: v4(datagram, 16),
            ecn: datagram[1] & 0x03,
            protocol: datagram[9],
            body: header_len..total_len,
        })
    }

    fn locate_v6(datagram: &[u8]) -> Result<Self, Dropped> {
        if datagram.len() < V6_HEADER {
            return Err(Dropped::IpHeader);
        }
        // A payload length of 0 would be a jumbogram: no.
        let end = match be16(datagram, 4) {
            0 => return Err(Dropped::IpHeader),
            len => V6_HEADER + usize::from(len),
        };
        let Some(datagram) = datagram.get(..end) else { return Err(Dropped::IpHeader) };
        let (protocol, start) = skip_extensions(datagram)?;
        Ok(Self {
            source: v6(datagram, 8),
            destination: v6(datagram, 24),
            ecn: datagram[1] >> 4 & 0x03,
            protocol,
            body: start..end,
        })
    }
}

pub(super) fn v4(datagram: &[u8], at: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(datagram[at], datagram[at + 1], datagram[at + 2], datagram[at + 3]))
}

pub(super) fn v6(datagram: &[u8], at: usize) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&datagram[at..at + 16]);
    IpAddr::V6(Ipv6Addr::from(octets))
}

/// What is behind the extension headers of an IPv6 datagram, and where it starts (RFC 8200 §4).
fn skip_extensions(datagram: &[u8]) -> Result<(u8, usize), Dropped> {
    let mut next = datagram[6];
    let mut at = V6_HEADER;
    for _ in 0..=V6_EXTENSIONS_MAX {
        match next {
            TCP | ICMPV6 => return Ok((next, at)),
            // §4.3: hop-by-hop options stand first or nowhere.
            V6_HOP_BY_HOP if at != V6_HEADER => return Err(Dropped::IpHeader),
            V6_HOP_BY_HOP | V6_ROUTING | V6_DESTINATION | V6_FRAGMENT => {}
            _ => return Err(Dropped::NotTcp),
        }
        let header = &datagram[at..];
        let units = *header.get(1).ok_or(Dropped::IpHeader)?;
        // §4.5: a fragment header has no length, the byte is reserved.
        let len = if next == V6_FRAGMENT { 8 } else { 8 + 8 * usize::from(units) };
        let header = header.get(..len).ok_or(Dropped::IpHeader)?;
        match next {
            // RFC 6946: a fragment that is all of its packet is none.
            V6_FRAGMENT if be16(header, 2) & V6_FRAGMENT_PART == 0 => {}
            V6_FRAGMENT => return Err(Dropped::Fragment),
            // §4.4: a routing header with segments left is for a router; its type does not matter then.
            V6_ROUTING if header[3] == 0 => {}
            V6_HOP_BY_HOP | V6_DESTINATION if options_may_be_skipped(&header[2..]) => {}
            _ => return Err(Dropped::IpHeader),
        }
        next = header[0];
        at += len;
    }
    Err(Dropped::IpHeader)
}

/// Whether the two highest bits of every option say that it may be skipped (RFC 8200 §4.2). The jumbo
/// payload option is one that may not.
fn options_may_be_skipped(mut options: &[u8]) -> bool {
    const PAD1: u8 = 0;
    loop {
        match *options {
            [] => return true,
            [PAD1, ..] => options = &options[1..],
            [kind, len, ..] if kind >> 6 == 0 => match options.get(2 + usize::from(len)..) {
                Some(rest) => options = rest,
                None => return false,
            },
            _ => return false,
        }
    }
}

/// Writes an IPv4 header with a complete checksum. `len` counts what follows it.
pub(super) fn emit_v4(header: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr, ip: &IpOut, len: usize) {
    let total_len = (V4_HEADER + len) as u16;
    header[0] = 0x45;
    header[1] = ip.traffic_class;
    header[2..4].copy_from_slice(&total_len.to_be_bytes());
    header[4..6].copy_from_slice(&ip.id.to_be_bytes());
    let flags = if ip.dont_fragment { V4_FLAG_DF } else { 0 };
    header[6..8].copy_from_slice(&flags.to_be_bytes());
    header[8] = ip.hop_limit;
    header[9] = TCP;
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let checksum = !sum_be(&header[..V4_HEADER]);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Writes an IPv6 header. `len` counts what follows it.
pub(super) fn emit_v6(header: &mut [u8], source: Ipv6Addr, destination: Ipv6Addr, ip: &IpOut, len: usize) {
    let first = 6 << 28 | u32::from(ip.traffic_class) << 20 | ip.flow_label & 0xf_ffff;
    header[0..4].copy_from_slice(&first.to_be_bytes());
    header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    header[6] = TCP;
    header[7] = ip.hop_limit;
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&destination.octets());
}
