//! Mappings, acknowledgements and windows at data level (RFC 8684 §3.3), and what ends them (§3.7).

use std::time::Duration;

use anabranch_core::wire::{DataAck, Dss, Flags, Mapping, MpCapable, MptcpOption, Segment};
use anabranch_core::{FallbackReason, ResetReason, SocketOptions};

use crate::peer::{Peer, Say, bytes_at, token_and_idsn};

fn connected() -> Peer {
    Peer::connected(7, &SocketOptions::default())
}

fn with_checksums() -> Peer {
    Peer::connected(7, &SocketOptions { checksum: true, ..SocketOptions::default() })
}

/// A mapping of ten bytes from the start of the peer's stream, with this checksum.
fn ten_bytes(peer: &Peer, checksum: Option<u16>) -> MptcpOption {
    mapped(Mapping { dsn: peer.dsn(0), dsn_long: true, ssn: 1, len: 10, checksum })
}

fn mapped(mapping: Mapping) -> MptcpOption {
    MptcpOption::Dss(Dss { ack: None, mapping: Some(mapping), data_fin: false })
}

/// Segments with data of the two subflows, and on which they came.
fn data(peer: &mut Peer) -> Vec<(usize, Segment)> {
    let mut all = Vec::new();
    for flow in 0..2 {
        all.extend(peer.heard(flow).into_iter().filter(|segment| !segment.payload.is_empty()).map(|one| (flow, one)));
    }
    all
}

fn is_reset(segment: &Segment, why: ResetReason) -> bool {
    let says = |option: &MptcpOption| matches!(option, MptcpOption::Reset { reason, .. } if *reason == why);
    segment.flags.has(Flags::RST) && segment.options.mptcp.iter().any(says)
}

/// The checksum of ten bytes from the start of the peer's stream (RFC 1071).
fn checksum_of_ten(peer: &Peer) -> u16 {
    let mut message = peer.dsn(0).to_be_bytes().to_vec();
    message.extend([0, 0, 0, 1, 0, 10, 0, 0]);
    message.extend(bytes_at(0, 10));
    let mut sum: u32 = message.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[test]
fn a_checksum_that_nobody_asked_for_is_ignored() {
    let mut peer = connected();
    let options = vec![ten_bytes(&peer, Some(0xdead))];
    peer.say(0, &Say { options, payload: &bytes_at(0, 10), ..Say::default() });
    assert_eq!(peer.read(), bytes_at(0, 10));
    assert!(peer.info().mptcp);
}

#[test]
fn a_checksum_that_was_agreed_on_is_asked_for() {
    // On the only subflow it is TCP from then on, as with the kernel,
    let mut peer = with_checksums();
    let options = vec![ten_bytes(&peer, None)];
    peer.say(0, &Say { options, payload: &bytes_at(0, 10), ..Say::default() });
    assert_eq!(peer.info().fallback, Some(FallbackReason::DssCorrupt));
    // and one of several is reset.
    let mut peer = with_checksums();
    peer.join(1);
    let options = vec![ten_bytes(&peer, None)];
    peer.say(1, &Say { options, payload: &bytes_at(0, 10), ..Say::default() });
    assert!(peer.heard(1).iter().any(|segment| is_reset(segment, ResetReason::MptcpError)));
    assert_eq!((peer.info().mptcp, peer.info().subflows), (true, 0));
}

#[test]
fn numbers_have_sixty_four_bits() {
    let mut peer = connected();
    let options = vec![peer.maps(1, 0, 10)];
    peer.say(0, &Say { options, payload: &bytes_at(0, 10), ..Say::default() });
    peer.heard(0);
    peer.write(&[1; 5000]);
    let heard = data(&mut peer);
    assert!(heard.len() > 2);
    for (_, segment) in &heard {
        // Each segment says all.
        let [MptcpOption::Dss(Dss { ack: Some(DataAck::Long(_)), mapping: Some(mapping), .. })] =
            segment.options.mptcp[..]
        else {
            panic!("{segment:?}")
        };
        assert!(mapping.dsn_long);
    }
    // To short numbers the answer is short.
    let short = Mapping { dsn: peer.dsn(10) & 0xffff_ffff, dsn_long: false, ssn: 11, len: 10, checksum: None };
    let options = vec![mapped(short)];
    peer.say(0, &Say { pos: 11, options, payload: &bytes_at(10, 10), ..Say::default() });
    peer.pass(Duration::from_millis(200));
    let ack = peer.heard(0).into_iter().find(|segment| segment.payload.is_empty()).expect("an acknowledgement");
    assert!(matches!(ack.options.mptcp[..], [MptcpOption::Dss(Dss { ack: Some(DataAck::Short(_)), .. })]), "{ack:?}");
    assert_eq!(peer.acked(&ack), Some(20));
}

#[test]
fn a_data_ack_alone_frees_nothing_on_the_subflow() {
    // Given bytes that arrived by a way of which the subflow knows nothing,
    let mut peer = connected();
    peer.write(&bytes_at(0, 1000));
    data(&mut peer);
    let options = vec![peer.acks(1000)];
    peer.say(0, &Say { options, ..Say::default() });
    // then the subflow still sends them until it is told.
    peer.pass(Duration::from_secs(2));
    let again = data(&mut peer);
    assert!(!again.is_empty());
    assert!(again.iter().all(|(_, one)| one.payload.as_slice() == bytes_at(0, 1000) && peer.mapped(one) == Some(0)));
}

#[test]
fn an_ack_of_the_subflow_alone_frees_nothing_of_the_stream() {
    // Given bytes that a proxy took, and the peer never got,
    let mut peer = connected();
    peer.join(1);
    peer.write(&bytes_at(0, 1000));
    let sent = data(&mut peer);
    let flow = sent[0].0;
    let options = vec![peer.acks(0)];
    peer.say(flow, &Say { ack: 1001, options, ..Say::default() });
    // then they go once more, some day, with the same place in the stream.
    peer.pass(Duration::from_secs(3));
    let again = data(&mut peer);
    assert!(!again.is_empty());
    assert!(again.iter().all(|(_, one)| one.payload.as_slice() == bytes_at(0, 1000) && peer.mapped(one) == Some(0)));
}

#[test]
fn the_largest_edge_of_all_subflows_counts() {
    // Given a peer that told a window of two segments on the first subflow and of four on the second, and much to send,
    const SEGMENT: u16 = 1460 - 28;
    let (narrow, wide) = (2 * SEGMENT, 4 * SEGMENT);
    let mut peer = Peer::narrow(7, &SocketOptions::default(), narrow);
    peer.join(1);
    for (flow, window) in [(0, narrow), (1, wide)] {
        let options = vec![peer.acks(0)];
        peer.say(flow, &Say { window, options, ..Say::default() });
    }
    peer.write(&bytes_at(0, 20_000));
    // then as much goes as the larger one admits, and on neither more than it said itself.
    let sent = data(&mut peer);
    let on = |flow: usize| sent.iter().filter(|(at, _)| *at == flow).map(|(_, one)| one.payload.len()).sum::<usize>();
    assert_eq!(on(0) + on(1), wide.into());
    assert!(on(0) <= narrow.into(), "{} and {}", on(0), on(1));
    // A smaller window, told with the same DATA_ACK, takes nothing back: what was sent is not held against it.
    let options = vec![peer.acks(0)];
    peer.say(0, &Say { window: 100, options, ..Say::default() });
    let conn = peer.conn();
    assert_eq!(peer.shard.info(conn).expect("a connection").send_window, 0);
}

#[test]
fn what_lies_beyond_the_window_is_not_acknowledged() {
    let mut peer = connected();
    let first = vec![peer.maps(1, 0, 1)];
    peer.say(0, &Say { options: first, payload: &bytes_at(0, 1), ..Say::default() });
    peer.heard(0);
    let far = Mapping { dsn: peer.dsn(1 << 30), dsn_long: true, ssn: 2, len: 10, checksum: None };
    let options = vec![mapped(far)];
    peer.say(0, &Say { pos: 2, options, payload: &[0; 10], ..Say::default() });
    let acked = peer.heard(0).iter().filter_map(|segment| peer.acked(segment)).max();
    assert_eq!(acked, Some(1));
    assert_eq!(peer.shard.counters().no_dss_in_window, 1);
}

#[test]
fn what_went_elsewhere_too_is_still_sent_again_here() {
    // Given a subflow that went silent with bytes of the stream, which went on another one, where they arrived,
    let mut peer = connected();
    peer.join(1);
    peer.write(&bytes_at(0, 1000));
    let silent = data(&mut peer)[0].0;
    let other = 1 - silent;
    peer.pass(Duration::from_secs(2));
    assert!(data(&mut peer).iter().any(|(flow, one)| *flow == other && peer.mapped(one) == Some(0)));
    let options = vec![peer.acks(1000)];
    peer.say(other, &Say { ack: 1001, options, ..Say::default() });
    data(&mut peer);
    // then the first one still sends them, since who looks at it sees a hole.
    peer.pass(Duration::from_secs(3));
    let again = data(&mut peer);
    assert!(
        again.iter().any(|(flow, one)| *flow == silent && one.payload.as_slice() == bytes_at(0, 1000)),
        "{again:?}"
    );
}

#[test]
fn an_unanswered_mp_fail_ends_the_connection() {
    // Given a stream whose checksums were right once, and then are not,
    let mut peer = with_checksums();
    let good = vec![ten_bytes(&peer, Some(checksum_of_ten(&peer)))];
    peer.say(0, &Say { options: good, payload: &bytes_at(0, 10), ..Say::default() });
    let bad = Mapping { dsn: peer.dsn(10), dsn_long: true, ssn: 11, len: 10, checksum: Some(1) };
    let options = vec![mapped(bad)];
    peer.heard(0);
    peer.say(0, &Say { pos: 11, options, payload: &bytes_at(10, 10), ..Say::default() });
    // then the peer is told where,
    let fail = MptcpOption::Fail { dsn: peer.dsn(10) };
    assert!(peer.heard(0).iter().any(|segment| segment.options.mptcp.contains(&fail)));
    // and if it does not say that it has understood that is the end.
    peer.pass(Duration::from_secs(119));
    assert!(!peer.heard(0).iter().any(|segment| segment.flags.has(Flags::RST)));
    peer.pass(Duration::from_secs(2));
    assert!(peer.heard(0).iter().any(|segment| segment.flags.has(Flags::RST)));
}

#[test]
fn after_an_infinite_mapping_it_is_tcp_for_good() {
    // Given a peer that falls back in the middle of its stream,
    let mut peer = connected();
    let options = vec![peer.maps(1, 0, 10)];
    peer.say(0, &Say { options, payload: &bytes_at(0, 10), ..Say::default() });
    peer.heard(0);
    let infinite = Mapping { dsn: peer.dsn(10), dsn_long: true, ssn: 11, len: 0, checksum: None };
    let options = vec![mapped(infinite)];
    peer.say(0, &Say { pos: 11, options, payload: &bytes_at(10, 10), ..Say::default() });
    assert_eq!(peer.info().fallback, Some(FallbackReason::InfiniteMap));
    // then nothing more is said of MPTCP, and nothing of it believed,
    peer.write(&[1; 100]);
    let keys = MptcpOption::Capable(MpCapable::offer(Some(7), Some(peer.stack_key()), None));
    for option in [peer.acks(100), keys] {
        peer.say(0, &Say { pos: 21, options: vec![option], ..Say::default() });
    }
    peer.say(0, &Say { pos: 21, payload: &bytes_at(20, 10), ..Say::default() });
    let heard = peer.heard(0);
    assert!(!heard.is_empty() && heard.iter().all(|segment| segment.options.mptcp.is_empty()), "{heard:?}");
    assert_eq!(peer.info().bytes_acked, 0);
    // but the subflow's own acknowledgements are.
    peer.say(0, &Say { pos: 31, ack: 101, ..Say::default() });
    assert_eq!((peer.info().bytes_acked, peer.read()), (100, bytes_at(0, 30)));
    assert!(!peer.info().mptcp);
}

#[test]
fn who_fell_back_alone_still_acknowledges_at_data_level() {
    // Given a peer whose options are stripped from its second data on, which it cannot know,
    let mut peer = connected();
    let options = vec![peer.maps(1, 0, 10)];
    peer.say(0, &Say { options, payload: &bytes_at(0, 10), ..Say::default() });
    peer.read();
    peer.say(0, &Say { pos: 11, payload: &bytes_at(10, 10), ..Say::default() });
    assert_eq!((peer.read(), peer.info().fallback), (bytes_at(10, 10), Some(FallbackReason::NoDss)));
    // then it is told what has come, and has no reason to send it once more,
    peer.pass(Duration::from_millis(200));
    let last = peer.heard(0).pop().expect("an acknowledgement");
    assert_eq!(peer.acked(&last), Some(20));
    // and is told that it is TCP when it asks, and with the first data.
    peer.say(0, &Say { pos: 19, ..Say::default() });
    peer.write(b"news");
    let heard = peer.heard(0);
    assert_eq!(heard.len(), 2);
    assert!(heard.iter().all(|segment| segment.options.mptcp.is_empty()), "{heard:?}");
}

#[test]
fn short_numbers_wrap_in_the_middle_of_a_conversation() {
    // Given a peer whose numbers' low half wraps after less than 20000 bytes,
    let wraps_soon = |key: &u64| token_and_idsn(*key).1 as u32 > u32::MAX - 20_000;
    let key = (1..).find(wraps_soon).expect("one key in 200000 is such");
    let mut peer = Peer::connected(key, &SocketOptions::default());
    // when it says 40000 bytes, every other time with numbers of four bytes,
    for (at, long) in (0..40).zip([true, false].into_iter().cycle()) {
        let off = at * 1000;
        let dsn = if long { peer.dsn(off) } else { peer.dsn(off) & 0xffff_ffff };
        let ssn = 1 + off as u32;
        let options = vec![mapped(Mapping { dsn, dsn_long: long, ssn, len: 1000, checksum: None })];
        peer.say(0, &Say { pos: ssn, options, payload: &bytes_at(off, 1000), ..Say::default() });
        // then each is heard where it belongs.
        assert_eq!(peer.read(), bytes_at(off, 1000), "key {key}, from {off} on");
    }
    peer.pass(Duration::from_millis(200));
    let acks = peer.heard(0);
    assert_eq!(acks.last().and_then(|ack| peer.acked(ack)), Some(40_000), "key {key}");
}
