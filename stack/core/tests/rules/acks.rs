//! DATA_ACKs that go back, or too far.

use std::time::Duration;

use anabranch_core::SocketOptions;
use anabranch_core::wire::Segment;

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
