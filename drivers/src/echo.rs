//! Answers to echo requests, so that the stack's addresses can be pinged (RFC 792, RFC 4443 §4.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anabranch_frame::checksum::pseudo_header;
use anabranch_frame::{Header, Payload, RxChecksum, RxPacket, Transmit};
use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6Packet};

/// Length of an echo message before its data, in bytes: type, code, checksum, identifier, sequence number.
const ECHO_HEADER: usize = 8;
/// Where the checksum is in an ICMP message of either version.
const CHECKSUM_OFFSET: u8 = 2;
const HOP_LIMIT: u8 = 64;
const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;

/// The answer to `packet` if that is a sound echo request to an address that the stack `owns`, otherwise `None`.
///
/// It leaves by the path that the request came in on and shares its data. Fragments, requests with IPv6
/// extension headers, and requests from or to a group are not answered.
#[must_use]
pub fn answer(packet: &RxPacket, owns: impl Fn(IpAddr) -> bool) -> Option<Transmit> {
    match packet.data.first()? >> 4 {
        4 => answer_v4(packet, owns),
        6 => answer_v6(packet, owns),
        _ => None,
    }
}

fn answer_v4(packet: &RxPacket, owns: impl Fn(IpAddr) -> bool) -> Option<Transmit> {
    let ip = Ipv4Packet::new_checked(&packet.data[..]).ok()?;
    let whole = !ip.more_frags() && ip.frag_offset() == 0;
    if ip.next_header() != IpProtocol::Icmp || !whole || !ip.verify_checksum() {
        return None;
    }
    let (source, destination) = (ip.src_addr(), ip.dst_addr());
    if !owns(destination.into()) || owns(source.into()) || !is_host_v4(source) {
        return None;
    }
    let icmp = Icmpv4Packet::new_checked(ip.payload()).ok()?;
    let sound = packet.checksum == RxChecksum::Trusted || icmp.verify_checksum();
    if icmp.msg_type() != Icmpv4Message::EchoRequest || icmp.msg_code() != 0 || !sound {
        return None;
    }

    let start = usize::from(ip.header_len()) + ECHO_HEADER;
    let data = packet.data.slice(start..usize::from(ip.total_len()));
    let mut header = Header::zeroed(V4_HEADER + ECHO_HEADER);
    let mut reply = Ipv4Packet::new_unchecked(&mut header[..]);
    reply.set_version(4);
    reply.set_header_len(V4_HEADER as u8);
    reply.set_dscp(ip.dscp());
    reply.set_total_len((V4_HEADER + ECHO_HEADER + data.len()) as u16);
    reply.set_dont_frag(true);
    reply.set_hop_limit(HOP_LIMIT);
    reply.set_next_header(IpProtocol::Icmp);
    reply.set_src_addr(destination);
    reply.set_dst_addr(source);
    reply.fill_checksum();
    let mut message = Icmpv4Packet::new_unchecked(&mut header[V4_HEADER..]);
    message.set_msg_type(Icmpv4Message::EchoReply);
    message.set_echo_ident(icmp.echo_ident());
    message.set_echo_seq_no(icmp.echo_seq_no());
    // ICMPv4 has no pseudo-header: nothing is in the sum yet.
    message.set_checksum(0);
    Some(transmit(packet, header, V4_HEADER as u8, data))
}

fn answer_v6(packet: &RxPacket, owns: impl Fn(IpAddr) -> bool) -> Option<Transmit> {
    let ip = Ipv6Packet::new_checked(&packet.data[..]).ok()?;
    let (source, destination) = (ip.src_addr(), ip.dst_addr());
    if ip.next_header() != IpProtocol::Icmpv6 || !owns(destination.into()) {
        return None;
    }
    if owns(source.into()) || !is_host_v6(source) {
        return None;
    }
    let icmp = Icmpv6Packet::new_checked(ip.payload()).ok()?;
    let sound = packet.checksum == RxChecksum::Trusted || icmp.verify_checksum(&source, &destination);
    if icmp.msg_type() != Icmpv6Message::EchoRequest || icmp.msg_code() != 0 || !sound {
        return None;
    }

    let data = packet.data.slice(V6_HEADER + ECHO_HEADER..ip.total_len());
    let mut header = Header::zeroed(V6_HEADER + ECHO_HEADER);
    let mut reply = Ipv6Packet::new_unchecked(&mut header[..]);
    reply.set_version(6);
    reply.set_traffic_class(ip.traffic_class());
    reply.set_payload_len((ECHO_HEADER + data.len()) as u16);
    reply.set_next_header(IpProtocol::Icmpv6);
    reply.set_hop_limit(HOP_LIMIT);
    reply.set_src_addr(destination);
    reply.set_dst_addr(source);
    let mut message = Icmpv6Packet::new_unchecked(&mut header[V6_HEADER..]);
    message.set_msg_type(Icmpv6Message::EchoReply);
    message.set_echo_ident(icmp.echo_ident());
    message.set_echo_seq_no(icmp.echo_seq_no());
    let len = (ECHO_HEADER + data.len()) as u32;
    let sum = pseudo_header(&destination.octets(), &source.octets(), IpProtocol::Icmpv6.into(), len);
    message.set_checksum(sum.fold());
    Some(transmit(packet, header, V6_HEADER as u8, data))
}

fn transmit(request: &RxPacket, header: Header, transport_offset: u8, data: Payload) -> Transmit {
    Transmit {
        path: request.path,
        header,
        transport_offset,
        checksum_offset: CHECKSUM_OFFSET,
        payload: [data].into_iter().filter(|data| !data.is_empty()).collect(),
        segment_size: None,
    }
}

fn is_host_v4(addr: Ipv4Addr) -> bool {
    !(addr.is_unspecified() || addr.is_multicast() || addr.is_broadcast())
}

fn is_host_v6(addr: Ipv6Addr) -> bool {
    !(addr.is_unspecified() || addr.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anabranch_frame::{PathId, gso};
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{Icmpv4Repr, Icmpv6Repr, Ipv4Repr, Ipv6Repr};

    const V4: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 2)];
    const V6: [Ipv6Addr; 2] = [Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2)];

    fn request_v4(source: Ipv4Addr, data: &[u8]) -> Vec<u8> {
        let icmp = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 3, data };
        let payload_len = icmp.buffer_len();
        let ip =
            Ipv4Repr { src_addr: source, dst_addr: V4[1], next_header: IpProtocol::Icmp, payload_len, hop_limit: 9 };
        let mut bytes = vec![0; V4_HEADER + payload_len];
        let caps = ChecksumCapabilities::default();
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes), &caps);
        icmp.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes[V4_HEADER..]), &caps);
        bytes
    }

    fn request_v6(data: &[u8]) -> Vec<u8> {
        let icmp = Icmpv6Repr::EchoRequest { ident: 7, seq_no: 3, data };
        let payload_len = icmp.buffer_len();
        let ip =
            Ipv6Repr { src_addr: V6[0], dst_addr: V6[1], next_header: IpProtocol::Icmpv6, payload_len, hop_limit: 9 };
        let mut bytes = vec![0; V6_HEADER + payload_len];
        ip.emit(&mut Ipv6Packet::new_unchecked(&mut bytes));
        let mut message = Icmpv6Packet::new_unchecked(&mut bytes[V6_HEADER..]);
        icmp.emit(&V6[0], &V6[1], &mut message, &ChecksumCapabilities::default());
        bytes
    }

    fn ask(bytes: Vec<u8>) -> Option<Transmit> {
        let owns = |addr: IpAddr| addr == IpAddr::from(V4[1]) || addr == IpAddr::from(V6[1]);
        answer(&RxPacket::new(PathId(4), Payload::from(bytes)), owns)
    }

    fn on_the_wire(reply: &Transmit) -> Vec<u8> {
        let mut bytes = Vec::new();
        gso::complete(reply, &mut bytes);
        bytes
    }

    #[test]
    fn answers_v4() {
        for data in [&b""[..], b"odd", b"some data"] {
            let reply = ask(request_v4(V4[0], data)).expect("a sound request");

            assert_eq!(reply.path, PathId(4));
            let bytes = on_the_wire(&reply);
            let ip = Ipv4Packet::new_checked(&bytes[..]).unwrap();
            assert!(ip.verify_checksum());
            assert_eq!((ip.src_addr(), ip.dst_addr()), (V4[1], V4[0]));
            let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
            assert_eq!(
                Icmpv4Repr::parse(&icmp, &ChecksumCapabilities::default()).unwrap(),
                Icmpv4Repr::EchoReply { ident: 7, seq_no: 3, data }
            );
        }
    }

    #[test]
    fn answers_v6() {
        for data in [&b""[..], b"odd", b"some data"] {
            let bytes = on_the_wire(&ask(request_v6(data)).expect("a sound request"));

            let ip = Ipv6Packet::new_checked(&bytes[..]).unwrap();
            assert_eq!((ip.src_addr(), ip.dst_addr()), (V6[1], V6[0]));
            let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
            assert_eq!(
                Icmpv6Repr::parse(&V6[1], &V6[0], &icmp, &ChecksumCapabilities::default()).unwrap(),
                Icmpv6Repr::EchoReply { ident: 7, seq_no: 3, data }
            );
        }
    }

    #[test]
    fn stays_silent_otherwise() {
        let with = |mut bytes: Vec<u8>, at: usize, to: u8| {
            bytes[at] = to;
            bytes
        };
        let mut to_somebody_else = request_v4(V4[0], b"data");
        let mut ip = Ipv4Packet::new_unchecked(&mut to_somebody_else[..]);
        ip.set_dst_addr(Ipv4Addr::new(10, 9, 0, 3));
        ip.fill_checksum();
        let mut fragment = request_v4(V4[0], b"data");
        let mut ip = Ipv4Packet::new_unchecked(&mut fragment[..]);
        ip.set_more_frags(true);
        ip.fill_checksum();

        let cases = [
            ("to another address", to_somebody_else),
            ("a fragment", fragment),
            ("from everybody", request_v4(Ipv4Addr::BROADCAST, b"data")),
            ("from ourselves", request_v4(V4[1], b"data")),
            ("data damaged, v4", with(request_v4(V4[0], b"data"), 30, 0xff)),
            ("data damaged, v6", with(request_v6(b"data"), 50, 0xff)),
            ("an answer, v6", with(request_v6(b"data"), 40, 129)),
            ("TCP", with(request_v4(V4[0], b"data"), 9, 6)),
            ("nothing", Vec::new()),
        ];
        for (what, bytes) in cases {
            assert!(ask(bytes).is_none(), "answered {what}");
        }
        for len in 0..32 {
            assert!(ask(request_v4(V4[0], b"data")[..len].to_vec()).is_none(), "answered {len} bytes, v4");
            assert!(ask(request_v6(b"data")[..len].to_vec()).is_none(), "answered {len} bytes, v6");
        }
    }
}
