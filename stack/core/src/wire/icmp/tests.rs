use std::vec::Vec;

use anabranch_frame::{PathId, Payload};
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire as oracle;

use super::*;
use crate::wire::{Flags, IpOut, OptionWriter, SegmentOut};

fn tuple(v6: bool) -> Tuple {
    let addr = |n: u8| {
        if v6 { IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n]) } else { IpAddr::from([10, 0, 0, n]) }
    };
    Tuple { local: SocketAddr::new(addr(1), 5001), remote: SocketAddr::new(addr(2), 40_000) }
}

/// The first bytes of a segment of ours.
fn sent(v6: bool) -> Vec<u8> {
    let options = OptionWriter::new();
    let out = SegmentOut {
        tuple: tuple(v6),
        seq: SeqNum(7_000),
        ack: SeqNum(1),
        flags: Flags::ACK,
        window: 100,
        ip: IpOut::default(),
        options: &options,
        payload_len: 1400,
    };
    out.emit().0.to_vec()
}

/// A router's message about `packet`; another implementation writes the IP header and the checksum.
fn message(v6: bool, kind: u8, code: u8, rest: [u8; 4], packet: &[u8]) -> Vec<u8> {
    let mut body = [&[kind, code, 0, 0][..], &rest, packet].concat();
    let tuple = tuple(v6);
    if let (IpAddr::V6(router), IpAddr::V6(ours)) = (tuple.remote.ip(), tuple.local.ip()) {
        oracle::Icmpv6Packet::new_unchecked(&mut body[..]).fill_checksum(&router, &ours);
        let repr = oracle::Ipv6Repr {
            src_addr: router,
            dst_addr: ours,
            next_header: oracle::IpProtocol::Icmpv6,
            payload_len: body.len(),
            hop_limit: 60,
        };
        let mut bytes = std::vec![0; 40];
        repr.emit(&mut oracle::Ipv6Packet::new_unchecked(&mut bytes[..]));
        return [bytes, body].concat();
    }
    oracle::Icmpv4Packet::new_unchecked(&mut body[..]).fill_checksum();
    let (IpAddr::V4(router), IpAddr::V4(ours)) = (tuple.remote.ip(), tuple.local.ip()) else { unreachable!() };
    let repr = oracle::Ipv4Repr {
        src_addr: router,
        dst_addr: ours,
        next_header: oracle::IpProtocol::Icmp,
        payload_len: body.len(),
        hop_limit: 60,
    };
    let mut bytes = std::vec![0; 20];
    repr.emit(&mut oracle::Ipv4Packet::new_unchecked(&mut bytes[..]), &ChecksumCapabilities::default());
    [bytes, body].concat()
}

fn parse(bytes: &[u8]) -> Result<Option<IcmpError>, Dropped> {
    assert!(is_icmp(bytes));
    IcmpError::parse(&RxPacket::new(PathId(0), Payload::from(bytes)))
}

fn problem(cause: IcmpCause, disrupted: bool) -> Option<IcmpKind> {
    Some(IcmpKind::Problem { cause, disrupted })
}

#[test]
fn what_the_codes_mean() {
    use IcmpCause::*;
    let cases = [
        (false, 3, 0, problem(NetworkUnreachable, true)),
        (false, 3, 1, problem(HostUnreachable, true)),
        (false, 3, 2, problem(ProtocolUnreachable, false)),
        (false, 3, 3, problem(PortUnreachable, false)),
        (false, 3, 4, Some(IcmpKind::TooBig { mtu: 1300 })),
        (false, 3, 5, problem(SourceRouteFailed, false)),
        (false, 3, 7, problem(HostUnknown, false)),
        (false, 3, 8, problem(HostIsolated, false)),
        (false, 3, 13, problem(HostUnreachable, false)),
        (false, 3, 16, None),
        (false, 4, 0, None),
        (false, 5, 1, None),
        (false, 11, 0, problem(HostUnreachable, false)),
        (false, 12, 0, problem(BadHeader, false)),
        (false, 8, 0, None),
        (true, 1, 0, problem(NetworkUnreachable, true)),
        (true, 1, 1, problem(Prohibited, false)),
        (true, 1, 3, problem(HostUnreachable, false)),
        (true, 1, 4, problem(PortUnreachable, false)),
        (true, 2, 0, Some(IcmpKind::TooBig { mtu: 1300 })),
        (true, 3, 0, problem(HostUnreachable, false)),
        (true, 4, 1, problem(BadHeader, false)),
        (true, 135, 0, None),
    ];
    for (v6, kind, code, expected) in cases {
        let read = parse(&message(v6, kind, code, 1300u32.to_be_bytes(), &sent(v6))).unwrap();
        let expected = expected.map(|kind| IcmpError { kind, tuple: tuple(v6), seq: SeqNum(7_000) });
        assert_eq!(read, expected, "type {kind}, code {code}");
    }
}

#[test]
fn eight_bytes_of_tcp_are_enough_and_fewer_are_not() {
    for (v6, header) in [(false, 20), (true, 40)] {
        let sent = sent(v6);
        let kind = if v6 { 1 } else { 3 };
        assert!(parse(&message(v6, kind, 0, [0; 4], &sent[..header + 8])).unwrap().is_some());
        for len in 0..header + 8 {
            assert_eq!(parse(&message(v6, kind, 0, [0; 4], &sent[..len])), Err(Dropped::Icmp), "{len} bytes");
        }
    }
}

#[test]
fn what_is_about_something_else_is_passed_over() {
    let kind = 3;
    let mut udp = sent(false);
    udp[9] = 17;
    let mut later = sent(false);
    later[7] = 3;
    for packet in [udp, later] {
        assert_eq!(parse(&message(false, kind, 0, [0; 4], &packet)), Ok(None));
    }
    let mut six = sent(true);
    six[6] = 44;
    assert_eq!(parse(&message(true, 1, 0, [0; 4], &six)), Ok(None));
}

#[test]
fn checksums_are_checked_unless_the_device_did() {
    for v6 in [false, true] {
        let mut bytes = message(v6, if v6 { 1 } else { 3 }, 0, [0; 4], &sent(v6));
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(parse(&bytes), Err(Dropped::IcmpChecksum));
        let mut packet = RxPacket::new(PathId(0), Payload::from(&bytes[..]));
        packet.checksum = RxChecksum::Trusted;
        assert!(IcmpError::parse(&packet).unwrap().is_some());
    }
}

proptest! {
    #[test]
    fn any_bytes_at_all_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120), v6: bool) {
        let kind = if v6 { 1 } else { 3 };
        let _ = parse(&message(v6, kind, 0, [0; 4], &bytes));
        let mut packet = RxPacket::new(PathId(0), Payload::from(&bytes[..]));
        packet.checksum = RxChecksum::Trusted;
        let _ = IcmpError::parse(&packet);
    }
}
