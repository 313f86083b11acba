use core::net::{Ipv4Addr, Ipv6Addr};
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire as oracle;

use super::*;
use crate::wire::Timestamps;

const V4: Tuple = Tuple {
    local: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2)), 5001),
    remote: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1)), 40_000),
};
const V6: Tuple = Tuple {
    local: SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2)), 5001),
    remote: SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1)), 40_000),
};

fn swapped(tuple: Tuple) -> Tuple {
    Tuple { local: tuple.remote, remote: tuple.local }
}

/// Completes the transport checksum, as a device does.
fn complete(header: &Header, tcp: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [header, payload].concat();
    let tcp = usize::from(tcp);
    let checksum = Sum::new().add(&bytes[tcp..]).finish();
    bytes[tcp + 16..tcp + 18].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// A datagram to `tuple.local`.
fn datagram(tuple: Tuple, options: &OptionWriter, payload: &[u8]) -> Vec<u8> {
    let (header, tcp) = SegmentOut {
        tuple: swapped(tuple),
        seq: SeqNum(0xffff_fffe),
        ack: SeqNum(77),
        flags: Flags::ACK.with(Flags::PSH),
        window: 502,
        ip: IpOut { id: 0x1234, ..IpOut::default() },
        options,
        payload_len: payload.len() as u32,
    }
    .emit();
    complete(&header, tcp, payload)
}

fn parse(bytes: &[u8]) -> Result<Segment, Dropped> {
    Segment::parse(RxPacket::new(PathId(3), Payload::from(bytes)))
}

/// Puts `extensions` between the IPv6 header and TCP; `first` is the kind of the first one.
fn with_extensions(mut bytes: Vec<u8>, first: u8, extensions: &[u8]) -> Vec<u8> {
    bytes[6] = first;
    let len = be16(&bytes, 4) + extensions.len() as u16;
    bytes[4..6].copy_from_slice(&len.to_be_bytes());
    bytes.splice(40..40, extensions.iter().copied());
    bytes
}

/// Makes the IPv4 header checksum right again.
fn fix_v4(bytes: &mut [u8]) {
    bytes[10..12].fill(0);
    let header_len = usize::from(bytes[0] & 0x0f) * 4;
    let checksum = Sum::new().add(&bytes[..header_len]).finish();
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[test]
fn a_segment_as_bytes() {
    let mut options = OptionWriter::new();
    options.timestamps(Timestamps { value: 1, echo: 2 });
    let bytes = datagram(V4, &options, b"abc");
    #[rustfmt::skip]
    let expected = [
        0x45, 0, 0, 55,  0x12, 0x34, 0x40, 0,  64, 6, 0x14, 0x79,  10, 9, 0, 1,  10, 9, 0, 2,
        0x9c, 0x40, 0x13, 0x89,  0xff, 0xff, 0xff, 0xfe,  0, 0, 0, 77,  0x80, 0x18, 0x01, 0xf6,
    ];
    assert_eq!(bytes[..expected.len()], expected);
    assert_eq!(bytes[38..52], [0, 0, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    assert_eq!(&bytes[52..], b"abc");
}

#[test]
fn both_families_read_as_they_were_written() {
    for tuple in [V4, V6] {
        let mut options = OptionWriter::new();
        options.timestamps(Timestamps { value: 1, echo: 2 });
        let bytes = datagram(tuple, &options, b"abc");
        let segment = parse(&bytes).unwrap();
        assert_eq!(segment.path, PathId(3));
        assert_eq!(segment.tuple, tuple);
        assert_eq!(segment.seq, SeqNum(0xffff_fffe));
        assert_eq!(segment.ack, SeqNum(77));
        assert_eq!(segment.flags, Flags(0x18));
        assert_eq!((segment.window, segment.ecn), (502, 0));
        assert_eq!(segment.options.timestamps, Some(Timestamps { value: 1, echo: 2 }));
        assert_eq!(&segment.payload[..], b"abc");
        assert_eq!(segment.seq_len(), 3);
        assert_eq!(peek_tuple(&bytes), Some(tuple));
    }
}

#[test]
fn bytes_behind_the_datagram_are_cut_off() {
    for tuple in [V4, V6] {
        let mut bytes = datagram(tuple, &OptionWriter::new(), b"abc");
        bytes.extend([0xee; 20]);
        assert_eq!(&parse(&bytes).unwrap().payload[..], b"abc");
    }
}

#[test]
fn a_datagram_shorter_than_it_says_is_refused() {
    for tuple in [V4, V6] {
        let bytes = datagram(tuple, &OptionWriter::new(), b"abc");
        for len in 0..bytes.len() {
            assert_eq!(parse(&bytes[..len]).unwrap_err(), Dropped::IpHeader, "{len} bytes of {tuple:?}");
            assert_eq!(peek_tuple(&bytes[..len]), None);
        }
    }
}

#[test]
fn an_empty_payload_keeps_no_buffer() {
    let segment = parse(&datagram(V4, &OptionWriter::new(), b"")).unwrap();
    assert_eq!((segment.payload.len(), segment.payload.storage_len()), (0, 0));
}

#[test]
fn a_flipped_bit_is_caught_unless_the_device_vouches() {
    for tuple in [V4, V6] {
        let good = datagram(tuple, &OptionWriter::new(), b"abc");
        let tcp = if tuple == V4 { 20 } else { 40 };
        for bit in tcp * 8..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(parse(&bytes), Err(Dropped::Checksum | Dropped::TcpHeader)), "bit {bit}");
        }
        let mut bytes = good.clone();
        *bytes.last_mut().unwrap() ^= 1;
        let mut packet = RxPacket::new(PathId(0), Payload::from(bytes));
        packet.checksum = RxChecksum::Trusted;
        assert_eq!(&Segment::parse(packet).unwrap().payload[..], b"abb");
    }
}

#[test]
fn an_offloaded_checksum_field_need_not_be_complete() {
    // Given a segment from a local peer whose device was to complete the checksum,
    let (header, _) = SegmentOut {
        tuple: swapped(V4),
        seq: SeqNum(1),
        ack: SeqNum(1),
        flags: Flags::ACK,
        window: 1,
        ip: IpOut::default(),
        options: &OptionWriter::new(),
        payload_len: 0,
    }
    .emit();
    // when the device vouches for it, then it is taken; otherwise it is not.
    let mut packet = RxPacket::new(PathId(0), Payload::from(&header[..]));
    assert_eq!(Segment::parse(packet.clone()).unwrap_err(), Dropped::Checksum);
    packet.checksum = RxChecksum::Trusted;
    packet.segment_size = Some(1400);
    assert_eq!(Segment::parse(packet).unwrap().segment_size, Some(1400));
}

#[test]
fn v4_headers_that_do_not_fit_are_refused() {
    let good = datagram(V4, &OptionWriter::new(), b"abc");
    let change = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        fix_v4(&mut bytes);
        parse(&bytes).unwrap_err()
    };
    assert_eq!(change(0, 0x55), Dropped::IpHeader, "version");
    assert_eq!(change(0, 0x44), Dropped::IpHeader, "header length");
    assert_eq!(change(3, 19), Dropped::IpHeader, "total length below the header");
    assert_eq!(change(3, 0), Dropped::IpHeader, "total length 0, big GRO");
    assert_eq!(change(3, 44), Dropped::IpHeader, "total length beyond the buffer");
    assert_eq!(change(3, 39), Dropped::TcpHeader, "no room for TCP");
    assert_eq!(change(6, 0x20), Dropped::Fragment, "more fragments");
    assert_eq!(change(7, 1), Dropped::Fragment, "fragment offset");
    assert_eq!(change(9, 17), Dropped::NotTcp);
    let mut bytes = good.clone();
    bytes[10] ^= 1;
    assert_eq!(parse(&bytes).unwrap_err(), Dropped::IpHeader, "header checksum");
}

#[test]
fn v4_options_are_skipped() {
    let mut bytes = datagram(V4, &OptionWriter::new(), b"abc");
    bytes[0] = 0x46;
    bytes[3] += 4;
    bytes.splice(20..20, [0x94, 4, 0, 0]);
    fix_v4(&mut bytes);
    assert_eq!(&parse(&bytes).unwrap().payload[..], b"abc");
    assert_eq!(peek_tuple(&bytes), Some(V4));
}

#[test]
fn ecn_is_read_from_both_headers() {
    let mut bytes = datagram(V4, &OptionWriter::new(), b"");
    bytes[1] = 0x03;
    fix_v4(&mut bytes);
    assert_eq!(parse(&bytes).unwrap().ecn, 3);
    let mut bytes = datagram(V6, &OptionWriter::new(), b"");
    bytes[1] = 0x20;
    assert_eq!(parse(&bytes).unwrap().ecn, 2);
}

#[test]
fn sources_that_are_no_single_host_are_refused() {
    let sources: [IpAddr; 7] = [
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv4Addr::BROADCAST.into(),
        Ipv4Addr::new(224, 0, 0, 1).into(),
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
        Ipv4Addr::new(10, 9, 0, 1).to_ipv6_mapped().into(),
        Ipv4Addr::new(127, 0, 0, 1).to_ipv6_mapped().into(),
    ];
    for source in sources {
        let mut tuple = if source.is_ipv4() { V4 } else { V6 };
        tuple.remote.set_ip(source);
        let bytes = datagram(tuple, &OptionWriter::new(), b"abc");
        assert_eq!(parse(&bytes).unwrap_err(), Dropped::IpHeader, "{source}");
    }
}

#[test]
fn tcp_headers_that_do_not_fit_are_refused() {
    for tuple in [V4, V6] {
        let tcp = if tuple == V4 { 20 } else { 40 };
        for offset in [0, 4, 6, 15] {
            let mut bytes = datagram(tuple, &OptionWriter::new(), b"abc");
            bytes[tcp + 12] = offset << 4;
            assert_eq!(parse(&bytes).unwrap_err(), Dropped::TcpHeader, "data offset {offset}");
        }
    }
}

#[test]
fn v6_extension_headers_are_skipped() {
    let bytes = datagram(V6, &OptionWriter::new(), b"abc");
    let (hop, routing, destination, tcp) = (0, 43, 60, 6);
    let padding = [1, 4, 0, 0, 0, 0];
    let router_alert = [5, 2, 0, 0, 0, 0];
    let mut chain = vec![];
    chain.extend([routing, 0]);
    chain.extend(router_alert);
    // Sixteen bytes, no segments left.
    chain.extend([destination, 1, 4, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9]);
    chain.extend([tcp, 0]);
    chain.extend(padding);
    let bytes = with_extensions(bytes, hop, &chain);
    assert_eq!(&parse(&bytes).unwrap().payload[..], b"abc");
    assert_eq!(peek_tuple(&bytes), Some(V6));

    // RFC 6946: a fragment that is all of its packet.
    let bytes = with_extensions(datagram(V6, &OptionWriter::new(), b"abc"), 44, &[6, 77, 0, 0, 1, 2, 3, 4]);
    assert_eq!(&parse(&bytes).unwrap().payload[..], b"abc");
}

#[test]
fn v6_extension_headers_that_may_not_be_skipped_are_refused() {
    let refused = |first: u8, extensions: &[u8]| {
        let bytes = with_extensions(datagram(V6, &OptionWriter::new(), b"abc"), first, extensions);
        assert_eq!(peek_tuple(&bytes), None);
        parse(&bytes).unwrap_err()
    };
    assert_eq!(refused(44, &[6, 0, 0, 1, 0, 0, 0, 1]), Dropped::Fragment, "the first one");
    assert_eq!(refused(44, &[6, 0, 0, 8, 0, 0, 0, 1]), Dropped::Fragment, "the last one");
    assert_eq!(refused(43, &[6, 0, 4, 1, 0, 0, 0, 0]), Dropped::IpHeader, "a segment is left");
    assert_eq!(refused(0, &[6, 0, 0xc2, 4, 0, 1, 0, 0]), Dropped::IpHeader, "jumbo payload");
    assert_eq!(refused(60, &[6, 0, 0x80, 4, 0, 0, 0, 0]), Dropped::IpHeader, "an option to be discarded");
    assert_eq!(refused(60, &[6, 0, 1, 5, 0, 0, 0, 0]), Dropped::IpHeader, "an option beyond its header");
    assert_eq!(refused(60, &[6, 0, 0, 0, 0, 0, 0, 1]), Dropped::IpHeader, "an option without length");
    assert_eq!(refused(60, &[6, 255, 1, 4, 0, 0, 0, 0]), Dropped::IpHeader, "a header beyond the datagram");
    assert_eq!(refused(60, &[0, 0, 1, 4, 0, 0, 0, 0]), Dropped::IpHeader, "hop-by-hop not first");
    assert_eq!(refused(50, &[6, 0, 1, 4, 0, 0, 0, 0]), Dropped::NotTcp, "ESP");
    assert_eq!(refused(59, &[6, 0, 1, 4, 0, 0, 0, 0]), Dropped::NotTcp, "no next header");
    let endless = [60, 0, 1, 4, 0, 0, 0, 0].repeat(50);
    assert_eq!(refused(60, &endless), Dropped::IpHeader, "too many");
    let mut jumbo = datagram(V6, &OptionWriter::new(), b"abc");
    jumbo[4..6].fill(0);
    assert_eq!(parse(&jumbo).unwrap_err(), Dropped::IpHeader, "payload length 0");
}

#[test]
fn a_super_segment_counts_whole() {
    for (tuple, header) in [(V4, 40), (V6, 20)] {
        let payload = vec![0x5a; 65_535 - header];
        let bytes = datagram(tuple, &OptionWriter::new(), &payload);
        let len_at = if tuple == V4 { 2 } else { 4 };
        assert_eq!(be16(&bytes, len_at), 65_535);
        assert_eq!(&parse(&bytes).unwrap().payload[..], payload);
    }
}

fn any_addr() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    // First octets that are neither unspecified, multicast nor v4-mapped.
    let v4 = any::<[u8; 4]>().prop_map(|[_, b, c, d]| IpAddr::from([10, b, c, d]));
    let v6 = any::<[u8; 16]>().prop_map(|mut octets| {
        octets[0] = 0xfd;
        IpAddr::from(octets)
    });
    let v4 = proptest::collection::vec(v4, 2);
    let v6 = proptest::collection::vec(v6, 2);
    prop_oneof![v4, v6].prop_map(|pair| (pair[0], pair[1]))
}

prop_compose! {
    fn any_tuple()(addrs in any_addr(), ports in (1u16.., 1u16..)) -> Tuple {
        Tuple { local: SocketAddr::new(addrs.0, ports.0), remote: SocketAddr::new(addrs.1, ports.1) }
    }
}

/// Addresses as another implementation reads them, where TCP starts, and what else the header says.
fn oracle_ip(bytes: &[u8]) -> (oracle::IpAddress, oracle::IpAddress, usize, IpOut) {
    if bytes[0] >> 4 == 4 {
        let packet = oracle::Ipv4Packet::new_checked(bytes).unwrap();
        let repr = oracle::Ipv4Repr::parse(&packet, &ChecksumCapabilities::default()).unwrap();
        assert_eq!(repr.next_header, oracle::IpProtocol::Tcp);
        let ip = IpOut {
            traffic_class: packet.dscp() << 2 | packet.ecn(),
            hop_limit: repr.hop_limit,
            dont_fragment: packet.dont_frag(),
            id: packet.ident(),
            flow_label: 0,
        };
        (repr.src_addr.into(), repr.dst_addr.into(), usize::from(packet.header_len()), ip)
    } else {
        let packet = oracle::Ipv6Packet::new_checked(bytes).unwrap();
        let repr = oracle::Ipv6Repr::parse(&packet).unwrap();
        assert_eq!(repr.next_header, oracle::IpProtocol::Tcp);
        assert_eq!(repr.payload_len, bytes.len() - 40);
        let ip = IpOut {
            traffic_class: packet.traffic_class(),
            hop_limit: repr.hop_limit,
            dont_fragment: true,
            id: 0,
            flow_label: packet.flow_label(),
        };
        (repr.src_addr.into(), repr.dst_addr.into(), 40, ip)
    }
}

proptest! {
    /// What we write, another implementation reads the same, checksums included.
    #[test]
    fn another_stack_agrees(
        tuple in any_tuple(),
        (seq, ack, window) in any::<(u32, u32, u16)>(),
        (traffic_class, hop_limit, id, flow_label) in (any::<u8>(), 1u8.., any::<u16>(), 0u32..1 << 20),
        (mss, scale, ts) in (64u16.., 0u8..15, any::<(u32, u32)>()),
        payload in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        let mut options = OptionWriter::new();
        options.syn(mss, Some(scale), true, Some(Timestamps { value: ts.0, echo: ts.1 }));
        let v4 = tuple.local.is_ipv4();
        let ip = IpOut {
            traffic_class,
            hop_limit,
            dont_fragment: !v4 || id % 2 == 0,
            id: if v4 { id } else { 0 },
            flow_label: if v4 { 0 } else { flow_label },
        };
        let out = SegmentOut {
            tuple, seq: SeqNum(seq), ack: SeqNum(ack), flags: Flags::SYN.with(Flags::ACK), window,
            ip, options: &options, payload_len: payload.len() as u32,
        };
        let (header, tcp) = out.emit();
        let bytes = complete(&header, tcp, &payload);

        let (source, destination, at, read) = oracle_ip(&bytes);
        prop_assert_eq!(read, ip);
        prop_assert_eq!(IpAddr::from(source), tuple.local.ip());
        prop_assert_eq!(IpAddr::from(destination), tuple.remote.ip());
        prop_assert_eq!(at, usize::from(tcp));
        let packet = oracle::TcpPacket::new_checked(&bytes[at..]).unwrap();
        let repr = oracle::TcpRepr::parse(&packet, &source, &destination, &ChecksumCapabilities::default()).unwrap();
        prop_assert_eq!((repr.src_port, repr.dst_port), (tuple.local.port(), tuple.remote.port()));
        prop_assert_eq!(repr.seq_number.0 as u32, seq);
        prop_assert_eq!(repr.ack_number.map(|n| n.0 as u32), Some(ack));
        prop_assert_eq!((repr.window_len, repr.window_scale), (window, Some(scale)));
        prop_assert_eq!((repr.max_seg_size, repr.sack_permitted), (Some(mss), true));
        prop_assert_eq!(repr.timestamp.map(|t| (t.tsval, t.tsecr)), Some(ts));
        prop_assert_eq!(repr.payload, &payload[..]);

        // And we read it as the peer would.
        let segment = parse(&bytes).unwrap();
        prop_assert_eq!(segment.tuple, swapped(tuple));
        prop_assert_eq!(segment.ecn, traffic_class & 3);
        prop_assert_eq!(&segment.payload[..], &payload[..]);
        prop_assert_eq!(peek_tuple(&bytes), Some(segment.tuple));
    }

    /// Whatever comes, the answer is a segment or a reason.
    #[test]
    fn any_bytes_at_all_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 0u8..3) {
        // Half of random bytes would fail at the version.
        if let (Some(first), Some(version)) = (bytes.first_mut(), [0x45, 0x60].get(usize::from(version))) {
            *first = *version;
        }
        let mut packet = RxPacket::new(PathId(0), Payload::from(bytes.as_slice()));
        packet.checksum = RxChecksum::Trusted;
        let parsed = Segment::parse(packet);
        let peeked = peek_tuple(&bytes);
        if let Ok(segment) = parsed {
            prop_assert!(segment.payload.len() < bytes.len());
            prop_assert_eq!(peeked, Some(segment.tuple));
        }
    }

    /// A valid packet with one byte changed anywhere: no panic, and nothing read that was not sent.
    #[test]
    fn one_wrong_byte_in_a_valid_packet(
        tuple in any_tuple(), at in any::<prop::sample::Index>(), value in any::<u8>(), chain in 0usize..4,
    ) {
        let mut bytes = datagram(tuple, &OptionWriter::new(), b"abcdef");
        if tuple.local.is_ipv6() && chain > 0 {
            let mut extensions = [60, 0, 1, 4, 0, 0, 0, 0].repeat(chain);
            let last = extensions.len() - 8;
            extensions[last] = 6;
            bytes = with_extensions(bytes, 60, &extensions);
        }
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(segment) = parse(&bytes) {
            prop_assert!(segment.payload.len() <= 6);
        }
        let _ = peek_tuple(&bytes);
    }
}
