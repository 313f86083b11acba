use core::time::Duration;

use anabranch_core::wire::{Flags, IpOut, OptionWriter, Segment, SegmentOut, SeqNum, Timestamps, Tuple};
use anabranch_frame::{Instant, PathId, Payload, RxPacket, Slices, Transmit, gso};

use super::*;

/// A segment from 10.0.0.1:1000 to 10.0.0.2:80, or of IPv6, with timestamps.
fn segment(v6: bool, seq: u32, payload: &[u8]) -> Payload {
    let ends = if v6 { ["[fd00::1]:1000", "[fd00::2]:80"] } else { ["10.0.0.1:1000", "10.0.0.2:80"] };
    let [local, remote] = ends.map(|end| end.parse().unwrap());
    let mut options = OptionWriter::new();
    assert!(options.timestamps(Timestamps { value: 7, echo: 8 }));
    let (header, transport_offset) = SegmentOut {
        tuple: Tuple { local, remote },
        seq: SeqNum(seq),
        ack: SeqNum(5),
        flags: Flags::ACK,
        window: 100,
        ip: IpOut::default(),
        options: &options,
        payload_len: payload.len() as u32,
    }
    .emit();
    let payload = Slices::from_iter([Payload::from(payload)]);
    let (path, segment_size) = (PathId(0), None);
    let mut bytes = Vec::new();
    gso::complete(&Transmit { path, header, transport_offset, checksum_offset: 16, payload, segment_size }, &mut bytes);
    Payload::from(bytes)
}

/// Whether its checksums are right, and where it starts and what it carries.
fn read(packet: &Payload) -> (u32, Vec<u8>) {
    let segment = Segment::parse(RxPacket::new(PathId(0), packet.clone())).expect("a right segment");
    assert_eq!(segment.options.timestamps, Some(Timestamps { value: 7, echo: 8 }));
    (segment.seq.0, segment.payload.to_vec())
}

fn chain(boxes: impl IntoIterator<Item = Box<dyn Middlebox>>) -> Chain {
    Chain { boxes: boxes.into_iter().collect() }
}

fn pass(chain: &mut Chain, packet: Payload) -> Vec<(u32, Vec<u8>)> {
    let passed = chain.on_packet(Instant::ZERO, &mut Random::new(1, 0), packet);
    passed.onward.iter().map(read).collect()
}

#[test]
fn boxes_in_a_row_put_together_what_others_cut() {
    for v6 in [false, true] {
        let hold = Duration::from_millis(1);
        let mut chain =
            chain([Box::new(Split::pieces_of(3)) as Box<dyn Middlebox>, Box::new(Coalesce::new(hold, 7, Keep::All))]);
        assert_eq!(pass(&mut chain, segment(v6, 10, b"abcdefgh")), [(10, b"abcdef".to_vec())]);
        // The rest waits for more, but not for ever.
        let due = chain.deadline().unwrap();
        assert_eq!(due, Instant::ZERO + hold);
        let late = chain.on_timeout(due, &mut Random::new(1, 0));
        assert_eq!(late.onward.iter().map(read).collect::<Vec<_>>(), [(16, b"gh".to_vec())]);
        assert_eq!(chain.deadline(), None);
    }
}

#[test]
fn a_segment_that_does_not_follow_lets_the_one_before_go() {
    let mut chain = chain([Box::new(Coalesce::new(Duration::from_secs(1), 100, Keep::All)) as Box<dyn Middlebox>]);
    assert_eq!(pass(&mut chain, segment(false, 10, b"ab")), []);
    assert_eq!(pass(&mut chain, segment(false, 13, b"de")), [(10, b"ab".to_vec())]);
    assert_eq!(pass(&mut chain, segment(false, 15, b"")), [(13, b"de".to_vec()), (15, b"".to_vec())]);
}

#[test]
fn a_nat_gives_back_what_it_took() {
    let [out, back] = sides(Nat::new(77).resets());
    let (mut out, mut back) =
        (chain([Box::new(out) as Box<dyn Middlebox>]), chain([Box::new(back) as Box<dyn Middlebox>]));
    let mut random = Random::new(1, 0);
    let inside = TcpPacket::read(&segment(false, 1, b"x")).unwrap();
    let passed = out.on_packet(Instant::ZERO, &mut random, inside.clone().finish());
    let outside = TcpPacket::read(&passed.onward[0]).unwrap();
    assert_ne!(outside.ends().0, inside.ends().0);
    assert_eq!(outside.ends().1, inside.ends().1);
    // What answers comes to whoever is inside, what answers nobody is reset.
    let answer = outside.answer(Flags::ACK, SeqNum(2));
    let passed = back.on_packet(Instant::ZERO, &mut random, answer.finish());
    assert_eq!(TcpPacket::read(&passed.onward[0]).unwrap().ends().1, inside.ends().0);
    let stranger = inside.answer(Flags::ACK, SeqNum(2));
    let passed = back.on_packet(Instant::ZERO, &mut random, stranger.finish());
    assert!(passed.onward.is_empty() && TcpPacket::read(&passed.back[0]).unwrap().flags().has(Flags::RST));
}

#[test]
fn what_is_chosen_is_counted() {
    let packet = TcpPacket::read(&segment(false, 1, b"x")).unwrap();
    let picks = |which: Which, n: usize| -> Vec<bool> {
        let mut chosen = which::Chosen::new(which);
        (0..n).map(|_| chosen.picks(Instant::from_millis(5), &packet)).collect()
    };
    assert_eq!(picks(Which::DATA.after(2).every(2), 6), [false, false, true, false, true, false]);
    assert_eq!(picks(Which::PURE_ACK, 2), [false; 2]);
    assert_eq!(picks(Which::ALL.with_option(option::MPTCP), 2), [false; 2]);
    assert_eq!(picks(Which::ALL.with_option(option::TIMESTAMPS), 2), [true; 2]);
    assert_eq!(picks(Which::ALL.from(Duration::from_millis(6)), 2), [false; 2]);
}
