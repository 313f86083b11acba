//! ARP packets and the two messages of neighbour discovery, read and written with smoltcp's codecs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Message, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet,
    Ipv6Repr, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress,
};

use super::{BROADCAST, ETHERNET_HEADER, ETHERTYPE_ARP, ETHERTYPE_IPV6, Mac, header};

const IPV6_HEADER: usize = 40;
/// Messages of neighbour discovery have not been forwarded if they still have this (RFC 4861 §7.1).
const HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What a message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Said {
    /// Somebody asks for the Ethernet address of `target`. `asker` is who, and where; without it the answer is for all.
    Question { target: IpAddr, asker: Option<(IpAddr, Mac)> },
    /// `addr` is at `mac`, or at least is still there.
    Answer { addr: IpAddr, mac: Option<Mac>, solicited: bool, overrides: bool },
}

/// What an ICMPv6 packet is to this module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Icmpv6 {
    Neighbour(Said),
    /// Neighbour discovery, but not as it should be.
    Malformed,
    /// Something else.
    Other,
}

fn is_host(mac: Mac) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

/// Reads an ARP packet.
pub(super) fn read_arp(packet: &[u8]) -> Option<Said> {
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(mac),
        source_protocol_addr: source,
        target_protocol_addr: target,
        ..
    } = ArpRepr::parse(&ArpPacket::new_checked(packet).ok()?).ok()?
    else {
        return None;
    };
    if !is_host(mac) || source.is_multicast() || source.is_broadcast() {
        return None;
    }
    match operation {
        // Who asks for itself announces itself (RFC 5227 §3).
        ArpOperation::Request if source != target => {
            let asker = (!source.is_unspecified()).then_some((source.into(), mac));
            Some(Said::Question { target: target.into(), asker })
        }
        ArpOperation::Request | ArpOperation::Reply if !source.is_unspecified() => {
            let solicited = operation == ArpOperation::Reply;
            Some(Said::Answer { addr: source.into(), mac: Some(mac), solicited, overrides: true })
        }
        _ => None,
    }
}

/// Reads an ICMPv6 packet, from its IPv6 header on.
pub(super) fn read_icmpv6(packet: &[u8]) -> Icmpv6 {
    const TYPE: usize = IPV6_HEADER;
    const FIRST: u8 = 133;
    const SOLICITATION: u8 = 135;
    const ADVERTISEMENT: u8 = 136;
    const LAST: u8 = 137;
    match packet.get(TYPE) {
        Some(&(SOLICITATION | ADVERTISEMENT)) => read_ndp(packet).map_or(Icmpv6::Malformed, Icmpv6::Neighbour),
        // Routers and their redirects: paths are given by the user here.
        Some(&(FIRST..=LAST)) => Icmpv6::Malformed,
        _ => Icmpv6::Other,
    }
}

fn read_ndp(packet: &[u8]) -> Option<Said> {
    let ip = Ipv6Packet::new_checked(packet).ok()?;
    let (source, destination) = (ip.src_addr(), ip.dst_addr());
    if ip.hop_limit() != HOP_LIMIT || source.is_multicast() {
        return None;
    }
    let icmp = Icmpv6Packet::new_checked(ip.payload()).ok()?;
    if icmp.msg_code() != 0 || !icmp.verify_checksum(&source, &destination) {
        return None;
    }
    let is_solicitation = icmp.msg_type() == Icmpv6Message::NeighborSolicit;
    match NdiscRepr::parse(&icmp).ok()? {
        NdiscRepr::NeighborSolicit { target_addr: target, lladdr } if is_solicitation && !target.is_multicast() => {
            let asker = (!source.is_unspecified()).then_some(source);
            // Detection of a duplicate has no address to answer to (RFC 4861 §7.1.1); others do, or they
            // cannot be answered without asking first.
            let asker = match (asker, lladdr.map(mac_of)) {
                (Some(source), Some(mac)) => Some((source.into(), mac?)),
                (Some(_), None) => return None,
                (None, None) => None,
                (None, Some(_)) => return None,
            };
            Some(Said::Question { target: target.into(), asker })
        }
        NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr } if !target.is_multicast() => {
            let solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
            if solicited && destination.is_multicast() {
                return None;
            }
            let overrides = flags.contains(NdiscNeighborFlags::OVERRIDE);
            let mac = match lladdr {
                Some(lladdr) => Some(mac_of(lladdr)?),
                None => None,
            };
            Some(Said::Answer { addr: target.into(), mac, solicited, overrides })
        }
        _ => None,
    }
}

/// The address in an option, whose padding smoltcp leaves on.
fn mac_of(raw: RawHardwareAddress) -> Option<Mac> {
    let mac = *raw.as_bytes().first_chunk::<6>()?;
    is_host(mac).then_some(mac)
}

/// Who says something: the stack's address and where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speaker<A> {
    pub(super) addr: A,
    pub(super) mac: Mac,
}

/// A frame that asks who has `target`: everybody, or to be sure `known`, who had it.
pub(super) fn question_v4(from: Speaker<Ipv4Addr>, target: Ipv4Addr, known: Option<Mac>) -> Vec<u8> {
    arp(ArpOperation::Request, from, (target, known.unwrap_or_default()), known.unwrap_or(BROADCAST))
}

/// A frame that tells `asker` that `from` is here.
pub(super) fn answer_v4(from: Speaker<Ipv4Addr>, asker: (Ipv4Addr, Mac)) -> Vec<u8> {
    arp(ArpOperation::Reply, from, asker, asker.1)
}

/// A frame that tells everybody that `from` is here.
pub(super) fn announcement_v4(from: Speaker<Ipv4Addr>) -> Vec<u8> {
    arp(ArpOperation::Request, from, (from.addr, Mac::default()), BROADCAST)
}

fn arp(operation: ArpOperation, from: Speaker<Ipv4Addr>, target: (Ipv4Addr, Mac), to: Mac) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(from.mac),
        source_protocol_addr: from.addr,
        target_hardware_addr: EthernetAddress(target.1),
        target_protocol_addr: target.0,
    };
    let mut frame = vec![0; ETHERNET_HEADER + repr.buffer_len()];
    frame[..ETHERNET_HEADER].copy_from_slice(&header(to, from.mac, ETHERTYPE_ARP));
    repr.emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET_HEADER..]));
    frame
}

/// As [`question_v4`].
pub(super) fn question_v6(from: Speaker<Ipv6Addr>, target: Ipv6Addr, known: Option<Mac>) -> Vec<u8> {
    let group = solicited_node(target);
    let (to, to_mac) = known.map_or((group, group_mac(group)), |mac| (target, mac));
    let lladdr = Some(RawHardwareAddress::from_bytes(&from.mac));
    ndp(NdiscRepr::NeighborSolicit { target_addr: target, lladdr }, from, to, to_mac)
}

/// As [`answer_v4`].
pub(super) fn answer_v6(from: Speaker<Ipv6Addr>, asker: (Ipv6Addr, Mac)) -> Vec<u8> {
    let flags = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
    advertisement(from, flags, asker.0, asker.1)
}

/// As [`announcement_v4`].
pub(super) fn announcement_v6(from: Speaker<Ipv6Addr>) -> Vec<u8> {
    advertisement(from, NdiscNeighborFlags::OVERRIDE, ALL_NODES, group_mac(ALL_NODES))
}

fn advertisement(from: Speaker<Ipv6Addr>, flags: NdiscNeighborFlags, to: Ipv6Addr, to_mac: Mac) -> Vec<u8> {
    let lladdr = Some(RawHardwareAddress::from_bytes(&from.mac));
    ndp(NdiscRepr::NeighborAdvert { flags, target_addr: from.addr, lladdr }, from, to, to_mac)
}

fn ndp(repr: NdiscRepr<'_>, from: Speaker<Ipv6Addr>, to: Ipv6Addr, to_mac: Mac) -> Vec<u8> {
    let icmp = Icmpv6Repr::Ndisc(repr);
    let payload_len = icmp.buffer_len();
    let ip = Ipv6Repr {
        src_addr: from.addr,
        dst_addr: to,
        next_header: IpProtocol::Icmpv6,
        payload_len,
        hop_limit: HOP_LIMIT,
    };
    let mut frame = vec![0; ETHERNET_HEADER + IPV6_HEADER + payload_len];
    frame[..ETHERNET_HEADER].copy_from_slice(&header(to_mac, from.mac, ETHERTYPE_IPV6));
    let packet = &mut frame[ETHERNET_HEADER..];
    ip.emit(&mut Ipv6Packet::new_unchecked(&mut *packet));
    let mut message = Icmpv6Packet::new_unchecked(&mut packet[IPV6_HEADER..]);
    icmp.emit(&from.addr, &to, &mut message, &ChecksumCapabilities::default());
    frame
}

/// The group that an address's owner listens to (RFC 4291 §2.7.1).
pub(super) fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = addr.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// The Ethernet address of an IPv6 group (RFC 2464 §7).
pub(super) fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}
