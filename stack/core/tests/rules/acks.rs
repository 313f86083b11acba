//! DATA_ACKs that go back, or too far.

use std::time::Duration;

use anabranch_core::wire::Segment;
use anabranch_core::{FallbackReason, SocketOptions};

use crate::peer::{Peer, Say, bytes_at};

/// A connection with two subflows on which the stack has sent `len` bytes, and the segments that carry them.
fn sent(len: usize) -> (Peer, Vec<(usize, Segment)>) {
    let mut peer = Peer::connected(7, &SocketOptions::default());
    peer.join(1);
    let open = peer.acks(0);
    peer.say(0, &Say { options: vec![open.clone()], ..Say::default() });
    peer.say(1, &Say { options: vec![open], ..Say::default() });
    peer.write(&bytes_at(0, len));
    let mut segments = Vec::new();
    for flow in 0..2 {
        segments.extend(peer.heard(flow).into_iter().filter(|s| !s.payload.is_empty()).map(|s| (flow, s)));
    }
    assert_eq!(segments.iter().map(|(_, segment)| segment.payload.len()).sum::<usize>(), len, "all fits the windows");
    (peer, segments)
}

/// Acknowledges on each subflow all that came there, and `off` at data level.
fn acknowledge(peer: &mut Peer, segments: &[(usize, Segment)], off: u64) {
    for flow in 0..2 {
        let ends = segments.iter().filter(|(at, _)| *at == flow).map(|(_, segment)| peer.end(flow, segment));
        let ack = ends.max().unwrap_or(1);
        let option = peer.acks(off);
        peer.say(flow, &Say { ack, options: vec![option], ..Say::default() });
    }
}

#[test]
fn a_data_ack_goes_back() {
    let (mut peer, segments) = sent(10_000);
    acknowledge(&mut peer, &segments, 10_000);
    assert_eq!(peer.info().bytes_acked, 10_000);
    // An older one comes late on either subflow: it takes nothing back, and nothing goes again.
    for off in [9_999, 5_000, 0] {
        acknowledge(&mut peer, &segments, off);
    }
    assert_eq!((peer.info().bytes_acked, peer.info().send_queued), (10_000, 0));
    peer.pass(Duration::from_secs(30));
    assert!(peer.heard(0).iter().chain(&peer.heard(1)).all(|segment| segment.payload.is_empty()));
    assert_eq!(peer.info().retransmits, 0);
}

#[test]
fn a_data_ack_is_for_what_was_never_sent() {
    let (mut peer, segments) = sent(10_000);
    // Beyond the end, and from before the start.
    for off in [10_001, 1 << 33, (-1i64) as u64] {
        acknowledge(&mut peer, &segments, off);
        assert_eq!(peer.info().bytes_acked, 0, "{off:x}");
    }
    acknowledge(&mut peer, &segments, 10_000);
    assert_eq!(peer.info().bytes_acked, 10_000);
}

/// RFC 8684 §3.3.1: bytes are kept until DATA_ACK, whatever a subflow acknowledged (a proxy may have).
#[test]
fn what_only_a_subflow_acknowledged_is_sent_again() {
    let (mut peer, segments) = sent(10_000);
    acknowledge(&mut peer, &segments, 4_000);
    assert_eq!((peer.info().bytes_acked, peer.info().send_queued), (4_000, 6_000));
    peer.pass(Duration::from_secs(3));
    let again = [peer.heard(0), peer.heard(1)].concat();
    let offsets: Vec<_> = again.iter().filter(|s| !s.payload.is_empty()).filter_map(|s| peer.mapped(s)).collect();
    assert_eq!(offsets.iter().min(), Some(&4_000), "from the first byte that is missing on: {offsets:?}");
    assert!(peer.info().retransmits > 0);
}

/// A connection whose only subflow took 10 000 bytes of the stack's; nothing is acknowledged at data level.
fn taken() -> Peer {
    let mut peer = Peer::connected(7, &SocketOptions::default());
    peer.write(&bytes_at(0, 1000));
    peer.heard(0);
    say_ack(&mut peer, 1001, Some(1000));
    peer.write(&bytes_at(1000, 9000));
    peer.heard(0);
    say_ack(&mut peer, 10_001, Some(1000));
    peer
}

/// The peer acknowledges position `ack`, and `off` at data level if it speaks MPTCP.
fn say_ack(peer: &mut Peer, ack: u32, off: Option<u64>) {
    let options = off.map(|off| peer.acks(off)).into_iter().collect();
    peer.say(0, &Say { ack, options, ..Say::default() });
}

/// Time passes until the stack asks for a DATA_ACK, with an old position and without data.
fn is_asked(peer: &mut Peer) {
    peer.pass(Duration::from_millis(300));
    let heard = peer.heard(0);
    let [probe] = &heard[..] else { panic!("{heard:?}") };
    assert!(probe.payload.is_empty() && peer.end(0, probe) == 10_000, "{probe:?}");
}

#[test]
fn a_data_ack_may_be_late() {
    // Given a peer that is too busy for its streams, but not for TCP,
    let mut peer = taken();
    is_asked(&mut peer);
    say_ack(&mut peer, 10_001, Some(1000));
    peer.pass(Duration::from_millis(200));
    // then what it has is not sent to it again.
    say_ack(&mut peer, 10_001, Some(10_000));
    peer.pass(Duration::from_secs(3));
    assert!(peer.heard(0).iter().all(|segment| segment.payload.is_empty()));
    let info = peer.info();
    assert_eq!((info.bytes_acked, info.retransmits, info.mptcp), (10_000, 0, true));
}

#[test]
fn what_the_only_subflow_acknowledged_is_asked_for_and_sent_again() {
    let mut peer = taken();
    is_asked(&mut peer);
    say_ack(&mut peer, 10_001, Some(1000));
    peer.pass(Duration::from_secs(1));
    let heard = peer.heard(0);
    assert_eq!(heard.first().and_then(|segment| peer.mapped(segment)), Some(1000));
    assert!(peer.info().retransmits > 0);
}

#[test]
fn what_tcp_sends_again_is_not_sent_twice() {
    // Given a subflow that has lost what was sent last, until its timer has run out twice,
    let mut peer = Peer::connected(7, &SocketOptions::default());
    peer.write(&bytes_at(0, 1000));
    peer.pass(Duration::from_secs(4));
    assert!(peer.heard(0).len() > 2);
    // then it has gone at last, and the peer is not yet done with it: that it has come is enough for now.
    say_ack(&mut peer, 1001, Some(0));
    assert!(peer.heard(0).is_empty());
    say_ack(&mut peer, 1001, Some(1000));
    assert_eq!((peer.info().bytes_acked, peer.info().retransmits), (1000, 0));
}

#[test]
fn a_box_begins_to_strip_before_the_data_ack() {
    // Given that the bytes have come, and all that follows has lost its options,
    let mut peer = taken();
    is_asked(&mut peer);
    say_ack(&mut peer, 10_001, None);
    assert!(peer.info().mptcp, "one answer may be a proxy's");
    // then it is TCP from then on: nothing was sent twice that the peer could read twice.
    peer.pass(Duration::from_secs(1));
    let info = peer.info();
    assert_eq!((info.mptcp, info.fallback), (false, Some(FallbackReason::NoDss)));
    assert_eq!((info.bytes_acked, info.send_queued, info.retransmits), (10_000, 0, 0));
    assert!(peer.heard(0).is_empty());
    peer.write(b"more");
    let heard = peer.heard(0);
    assert!(heard.iter().all(|one| one.payload.as_slice() == b"more" && one.options.mptcp.is_empty()), "{heard:?}");
    peer.say(0, &Say { ack: 10_005, payload: b"answer", ..Say::default() });
    assert_eq!((peer.read(), peer.info().bytes_acked), (b"answer".to_vec(), 10_004));
}

#[test]
fn a_bare_answer_amid_others_says_nothing() {
    // Given a proxy that says something by itself, before the stack asks and after,
    let mut peer = taken();
    say_ack(&mut peer, 10_001, None);
    is_asked(&mut peer);
    say_ack(&mut peer, 10_001, None);
    // and a peer that is heard, too,
    say_ack(&mut peer, 10_001, Some(1000));
    // then it is MPTCP still.
    peer.pass(Duration::from_secs(1));
    assert_eq!(peer.heard(0).first().and_then(|segment| peer.mapped(segment)), Some(1000));
    assert!(peer.info().mptcp);
}
