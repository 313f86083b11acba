use anabranch_frame::{BufferPool, Header, PathId, Payload, Transmit, gso};
use proptest::prelude::*;

use super::*;

const SIZE: usize = 1_000;

/// What a device hands up of `packets` that come one after the other: bytes, and the segments' length.
fn merged(packets: &[Vec<u8>]) -> Vec<(Vec<u8>, RxChecksum, Option<u16>)> {
    let pool = BufferPool::new(65_576, 4);
    let begin = |packet: &[u8]| {
        let mut buffer = pool.take();
        buffer.as_mut_slice()[..packet.len()].copy_from_slice(packet);
        Train::new(buffer, packet.len())
    };
    let mut trains: Vec<Train> = Vec::new();
    for packet in packets {
        let mut scratch = [0; 100];
        let continued = trains.last_mut().is_some_and(|train| {
            let Some((headers, payload)) = train.room(&mut scratch) else { return false };
            let cut = packet.len().min(headers.len());
            headers[..cut].copy_from_slice(&packet[..cut]);
            let rest = (packet.len() - cut).min(payload.len());
            payload[..rest].copy_from_slice(&packet[cut..cut + rest]);
            train.take(&scratch, packet.len())
        });
        if !continued {
            trains.push(begin(packet));
        }
    }
    let hand_up = |train: Train| {
        let (mut buffer, len, checksum, segment_size) = train.finish();
        (buffer.as_mut_slice()[..len].to_vec(), checksum, segment_size)
    };
    trains.into_iter().map(hand_up).collect()
}

/// A super-segment with an option of four bytes that ends with PSH.
fn super_segment(v6: bool, seq: u32, payload: &[u8]) -> Transmit {
    let ip_len = if v6 { V6_HEADER } else { V4_HEADER };
    let mut header = Header::zeroed(ip_len + 24);
    let tcp_len = 24 + payload.len();
    let pseudo = if v6 {
        header[0] = 0x60;
        header[4..6].copy_from_slice(&(tcp_len as u16).to_be_bytes());
        header[6..8].copy_from_slice(&[TCP, 64]);
        header[8..40].copy_from_slice(&[0xfd; 32]);
        pseudo_header(&header[8..24], &header[24..40], TCP, tcp_len as u32)
    } else {
        header[0] = 0x45;
        header[2..4].copy_from_slice(&((V4_HEADER + tcp_len) as u16).to_be_bytes());
        header[6] = 0x40;
        header[8..10].copy_from_slice(&[64, TCP]);
        header[12..20].copy_from_slice(&[10, 9, 0, 2, 10, 9, 0, 1]);
        let sum = Sum::new().add(&header[..V4_HEADER]).finish();
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        pseudo_header(&header[12..16], &header[16..20], TCP, tcp_len as u32)
    };
    let tcp = &mut header[ip_len..];
    tcp[..4].copy_from_slice(&[0x13, 0x88, 0x13, 0x89]);
    tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    tcp[12..14].copy_from_slice(&[0x60, ACK | 0x08]);
    tcp[16..18].copy_from_slice(&pseudo.fold().to_be_bytes());
    tcp[20..24].copy_from_slice(&[1, 1, 1, 0]);
    Transmit {
        path: PathId(0),
        header,
        transport_offset: ip_len as u8,
        checksum_offset: 16,
        payload: [Payload::from(payload)].into_iter().collect(),
        segment_size: Some(SIZE as u16),
    }
}

/// What it is on the wire.
fn wire(transmit: &Transmit) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    gso::for_each_segment(transmit, &mut Vec::new(), |packet| packets.push(packet.to_vec()));
    packets
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

#[test]
fn what_was_cut_is_whole_again() {
    for v6 in [false, true] {
        for len in [SIZE + 1, 3 * SIZE, 60 * SIZE + 5] {
            let sent = super_segment(v6, u32::MAX - 1_500, &payload(len));

            let up = merged(&wire(&sent));

            let mut expected = sent.header.to_vec();
            let at = usize::from(sent.transport_offset) + TCP_CHECKSUM;
            expected.extend_from_slice(&payload(len));
            let [(bytes, RxChecksum::Trusted, Some(size))] = &up[..] else { panic!("{} packets", up.len()) };
            assert_eq!(usize::from(*size), SIZE);
            assert!(bytes[..at] == expected[..at] && bytes[at + 2..] == expected[at + 2..], "{len} bytes differ");
        }
    }
}

#[test]
fn more_than_an_ip_header_can_express_is_cut() {
    for v6 in [false, true] {
        let first = super_segment(v6, 0, &payload(60_000));
        let second = super_segment(v6, 60_000, &payload(10_000));
        let mut packets = wire(&first);
        // As a sender whose application goes on writing.
        let last = packets.last_mut().unwrap();
        flip(last, usize::from(first.transport_offset) + TCP_FLAGS, 0x08);
        packets.extend(wire(&second));

        let up = merged(&packets);

        let lens: Vec<usize> = up.iter().map(|(bytes, ..)| bytes.len()).collect();
        let headers = first.header.len();
        assert_eq!(lens, [headers + 65_000, headers + 5_000]);
    }
}

/// Changes bits of a header in such a way that the TCP checksum stays right.
fn flip(packet: &mut [u8], at: usize, bits: u8) {
    packet[at] ^= bits;
    mend(packet);
}

fn mend(packet: &mut [u8]) {
    let transport = if packet[0] >> 4 == 6 { V6_HEADER } else { V4_HEADER };
    let pseudo = match transport {
        V6_HEADER => pseudo_header(&packet[8..24], &packet[24..40], TCP, (packet.len() - V6_HEADER) as u32),
        _ => {
            packet[10..12].fill(0);
            let sum = Sum::new().add(&packet[..V4_HEADER]).finish();
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            pseudo_header(&packet[12..16], &packet[16..20], TCP, (packet.len() - V4_HEADER) as u32)
        }
    };
    let at = transport + TCP_CHECKSUM;
    packet[at..at + 2].fill(0);
    let sum = pseudo.add(&packet[transport..]).finish();
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn whoever_says_something_else_is_left_alone() {
    for v6 in [false, true] {
        let packets = wire(&super_segment(v6, 9, &payload(3 * SIZE)));
        let tcp = if v6 { V6_HEADER } else { V4_HEADER };
        let ttl = if v6 { 7 } else { 8 };
        let traffic_class = 1;
        let places = [ttl, traffic_class, tcp, tcp + 3, tcp + 6, tcp + 9, tcp + TCP_FLAGS, tcp + 15, tcp + 21];
        for at in places {
            for which in [0, 1] {
                let mut odd = packets.clone();
                let bits = if at == tcp + TCP_FLAGS { 0x40 } else { 0x10 };
                flip(&mut odd[which], at, bits);

                let up = merged(&odd);

                let alone = up.iter().any(|(bytes, _, size)| *bytes == odd[which] && size.is_none());
                assert!(alone, "byte {at} of segment {which} differs, IPv6 {v6}");
            }
        }
    }
}

#[test]
fn a_damaged_segment_is_handed_up_as_it_is() {
    for v6 in [false, true] {
        let packets = wire(&super_segment(v6, 9, &payload(4 * SIZE)));
        for which in 0..3 {
            let mut damaged = packets.clone();
            damaged[which][500] ^= 1;

            let up = merged(&damaged);

            let found = up.iter().find(|(bytes, ..)| *bytes == damaged[which]);
            assert!(matches!(found, Some((_, RxChecksum::Unverified, None))), "segment {which}, IPv6 {v6}");
        }
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_whatever_comes(
        choices in proptest::collection::vec((0usize..6, 0usize..120, any::<u8>(), 0usize..6), 0..12),
        noise in proptest::collection::vec(any::<u8>(), 1..90),
        cut in 1usize..1_200,
    ) {
        let segments = [false, true].map(|v6| wire(&super_segment(v6, 9, &payload(5 * SIZE + 3)))).concat();
        let mut packets = segments.clone();
        packets.push(noise);
        for (which, at, bits, to) in choices {
            let packet = &mut packets[which];
            if at < packet.len() {
                packet[at] ^= bits;
            }
            packets.swap(which, to);
        }
        packets[0].truncate(cut);

        let up = merged(&packets);

        let whole: usize = up.iter().map(|(bytes, ..)| bytes.len()).sum();
        let dropped: usize = packets.iter().map(Vec::len).sum::<usize>() - whole;
        // Only headers go.
        prop_assert!(dropped <= (packets.len() - up.len()) * 64, "{} of {} bytes", dropped, whole);
    }
}
