use std::vec;

use proptest::prelude::*;
use smallvec::smallvec;

use super::*;
use crate::checksum::pseudo_header;
use crate::{Header, PathId, Slices};

const OPTIONS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
const SEQ: u32 = 0xffff_fc00;
const ID: u16 = 0xfffe;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn header_len(self) -> usize {
        if self == Self::V4 { 20 } else { 40 }
    }

    fn addresses(self) -> core::ops::Range<usize> {
        if self == Self::V4 { 12..20 } else { 8..40 }
    }
}

/// A TCP super-segment with every flag that matters, and options.
fn transmit(family: Family, payload: Slices, segment_size: Option<u16>) -> Transmit {
    let ip = family.header_len();
    let tcp_len = 20 + OPTIONS.len() + payload.iter().map(Payload::len).sum::<usize>();
    let mut header = Header::zeroed(ip + 20 + OPTIONS.len());
    if family == Family::V4 {
        header[0] = 0x45;
        header[2..4].copy_from_slice(&((ip + tcp_len) as u16).to_be_bytes());
        header[4..6].copy_from_slice(&ID.to_be_bytes());
        header[6] = 0x40;
        header[8..10].copy_from_slice(&[64, 6]);
        header[12..20].copy_from_slice(&[10, 9, 0, 2, 10, 9, 0, 1]);
        let checksum = Sum::new().add(&header[..20]).finish();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        header[..4].copy_from_slice(&[0x60, 0, 0x12, 0x34]);
        header[4..6].copy_from_slice(&(tcp_len as u16).to_be_bytes());
        header[6..8].copy_from_slice(&[6, 64]);
        header[8] = 0xfd;
        header[24] = 0xfd;
        header[39] = 1;
    }
    let pseudo = pseudo(&header, family, tcp_len).fold();
    let tcp = &mut header[ip..];
    tcp[..4].copy_from_slice(&[0x13, 0x89, 0x9c, 0x40]);
    tcp[4..8].copy_from_slice(&SEQ.to_be_bytes());
    tcp[12] = 0x80;
    // CWR, ACK, PSH, FIN.
    tcp[13] = 0x99;
    tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
    tcp[20..].copy_from_slice(&OPTIONS);
    Transmit {
        path: PathId(0),
        header,
        transport_offset: ip as u8,
        checksum_offset: TCP_CHECKSUM,
        payload,
        segment_size,
    }
}

fn pseudo(packet: &[u8], family: Family, tcp_len: usize) -> Sum {
    let addresses = &packet[family.addresses()];
    let (source, destination) = addresses.split_at(addresses.len() / 2);
    pseudo_header(source, destination, 6, tcp_len as u32)
}

fn segments(transmit: &Transmit) -> Vec<Vec<u8>> {
    let mut scratch = vec![0xee; 7];
    let mut packets = vec![];
    for_each_segment(transmit, &mut scratch, |packet| packets.push(packet.to_vec()));
    packets
}

fn seq(tcp: &[u8]) -> u32 {
    u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]])
}

/// Lengths and checksums are as the receiver of a single packet wants them.
fn assert_valid(packet: &[u8], family: Family) {
    let ip = family.header_len();
    let field = if family == Family::V4 { 2 } else { 4 };
    let counted = packet.len() - if family == Family::V4 { 0 } else { ip };
    assert_eq!(u16::from_be_bytes([packet[field], packet[field + 1]]) as usize, counted);
    if family == Family::V4 {
        assert_eq!(Sum::new().add(&packet[..ip]).fold(), 0xffff, "header checksum");
    }
    let tcp = &packet[ip..];
    assert_eq!(pseudo(packet, family, tcp.len()).add(tcp).fold(), 0xffff, "TCP checksum");
}

#[test]
fn a_super_segment_becomes_what_a_card_with_tso_sends() {
    for family in [Family::V4, Family::V6] {
        // Given 2500 bytes to be sent as segments of 1000,
        let bytes: Vec<u8> = (0..2500).map(|i| (i % 251) as u8).collect();
        let transmit = transmit(family, smallvec![Payload::from(bytes.as_slice())], Some(1000));
        // when they are cut up,
        let packets = segments(&transmit);
        // then there are three, each with its own part of everything.
        let ip = family.header_len();
        let payload_at = ip + 20 + OPTIONS.len();
        assert_eq!(packets.len(), transmit.segment_count());
        let expected =
            [(0..1000, 0x90, 0xfffe, SEQ), (1000..2000, 0x10, 0xffff, SEQ + 1000), (2000..2500, 0x19, 0, 976)];
        for (packet, (range, flags, id, expected_seq)) in packets.iter().zip(expected) {
            assert_valid(packet, family);
            assert_eq!(packet[payload_at..], bytes[range]);
            assert_eq!(packet[ip + 13], flags);
            assert_eq!(packet[ip + 20..payload_at], OPTIONS);
            assert_eq!(seq(&packet[ip..]), expected_seq);
            if family == Family::V4 {
                assert_eq!(u16::from_be_bytes([packet[4], packet[5]]), id);
                assert_eq!(packet[6..10], [0x40, 0, 64, 6]);
            } else {
                assert_eq!(packet[..4], [0x60, 0, 0x12, 0x34]);
            }
        }
    }
}

#[test]
fn one_packet_is_only_completed() {
    for family in [Family::V4, Family::V6] {
        for (payload, size) in
            [(&b""[..], None), (b"", Some(1000)), (b"abc", None), (b"abc", Some(3)), (b"abc", Some(0))]
        {
            let transmit = transmit(family, smallvec![Payload::from(payload)], size);
            let packets = segments(&transmit);
            let [packet] = packets.as_slice() else { panic!("{} packets of {transmit:?}", packets.len()) };
            assert_valid(packet, family);
            let tcp = family.header_len();
            assert_eq!((packet[tcp + 13], seq(&packet[tcp..])), (0x99, SEQ));
            assert_eq!(packet[tcp + 20 + OPTIONS.len()..], *payload);
        }
    }
}

#[test]
fn completing_ignores_the_segment_size() {
    let transmit = transmit(Family::V4, smallvec![Payload::from(&[7; 2500])], Some(1000));
    let mut packet = vec![];
    complete(&transmit, &mut packet);
    assert_eq!(packet.len(), transmit.len());
    assert_valid(&packet, Family::V4);
}

#[test]
fn the_largest_super_segment_keeps_its_sums() {
    for (family, len) in [(Family::V4, 65_535 - 52), (Family::V6, 65_535 - 32)] {
        let transmit = transmit(family, smallvec![Payload::from(vec![0xff; len])], Some(1448));
        let packets = segments(&transmit);
        assert_eq!(packets.len(), len.div_ceil(1448));
        for packet in &packets {
            assert_valid(packet, family);
        }
    }
}

#[test]
fn datagrams_are_cut_with_a_header_each() {
    // Given a super-datagram of 2500 bytes behind an IPv4 and a UDP header,
    let bytes: Vec<u8> = (0..2500).map(|i| (i % 251) as u8).collect();
    let mut header = Header::zeroed(28);
    header[0] = 0x45;
    header[8..10].copy_from_slice(&[64, 17]);
    header[12..20].copy_from_slice(&[10, 9, 0, 2, 10, 9, 0, 1]);
    header[20..24].copy_from_slice(&[0x13, 0x89, 0x9c, 0x40]);
    let sum = |len| pseudo_header(&[10, 9, 0, 2], &[10, 9, 0, 1], 17, len);
    header[26..28].copy_from_slice(&sum(2508).fold().to_be_bytes());
    let payload = smallvec![Payload::from(bytes.as_slice())];
    let transmit = Transmit {
        path: PathId(0),
        header,
        transport_offset: 20,
        checksum_offset: UDP_CHECKSUM,
        payload,
        segment_size: Some(1200),
    };
    // when it is cut up, then each datagram has its own lengths and sums.
    let packets = segments(&transmit);
    assert_eq!(packets.iter().map(|packet| packet.len() - 28).collect::<Vec<_>>(), [1200, 1200, 100]);
    assert_eq!(packets.iter().flat_map(|packet| packet[28..].to_vec()).collect::<Vec<_>>(), bytes);
    for packet in &packets {
        let udp = &packet[20..];
        assert_eq!(u16::from_be_bytes([packet[2], packet[3]]) as usize, packet.len());
        assert_eq!(u16::from_be_bytes([udp[4], udp[5]]) as usize, udp.len());
        assert_eq!(sum(udp.len() as u32).add(udp).fold(), 0xffff);
    }
}

#[test]
fn a_datagram_without_a_checksum_is_never_sent() {
    // Given a datagram whose sum comes out as zero, which UDP has no use for.
    let mut header = Header::zeroed(28);
    header[0] = 0x45;
    header[26..28].copy_from_slice(&[0xff, 0xff]);
    let transmit = Transmit {
        path: PathId(0),
        header,
        transport_offset: 20,
        checksum_offset: UDP_CHECKSUM,
        payload: Slices::new(),
        segment_size: None,
    };
    assert_eq!(segments(&transmit)[0][26..28], [0xff, 0xff]);
}

proptest! {
    #[test]
    fn the_segments_together_are_the_super_segment(
        v6: bool,
        slices in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..700), 0..9),
        size in 1u16..1500,
    ) {
        let family = if v6 { Family::V6 } else { Family::V4 };
        let bytes = slices.concat();
        let transmit = transmit(family, slices.into_iter().map(Payload::from).collect(), Some(size));
        let packets = segments(&transmit);
        prop_assert_eq!(packets.len(), transmit.segment_count());

        let tcp = family.header_len();
        let payload_at = tcp + 20 + OPTIONS.len();
        let mut together = vec![];
        for (index, packet) in packets.iter().enumerate() {
            assert_valid(packet, family);
            prop_assert_eq!(seq(&packet[tcp..]), SEQ.wrapping_add(together.len() as u32));
            prop_assert!(index + 1 == packets.len() || packet.len() - payload_at == usize::from(size));
            together.extend_from_slice(&packet[payload_at..]);
        }
        prop_assert_eq!(together, bytes);
    }
}
