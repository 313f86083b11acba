//! Ends of streams, of subflows and of connections (RFC 8684 §3.3.3, §3.5, §4).

use anabranch_core::shard::Read;
use anabranch_core::wire::{Dss, Flags, Mapping, MptcpOption, Segment};
use anabranch_core::{Error, SocketOptions};

use crate::peer::{Peer, Say, bytes_at, token_and_idsn};

fn two_subflows() -> Peer {
    let mut peer = Peer::connected(7, &SocketOptions::default());
    peer.join(1);
    peer
}

/// A mapping that ends the peer's stream at offset `end`, of which `len` bytes come with it.
fn ends(peer: &Peer, pos: u32, end: u64, len: u16) -> MptcpOption {
    let ssn = if len == 0 { 0 } else { pos };
    let dsn = peer.dsn(end - u64::from(len));
    let mapping = Mapping { dsn, dsn_long: true, ssn, len: len + 1, checksum: None };
    MptcpOption::Dss(Dss { ack: None, mapping: Some(mapping), data_fin: true })
}

fn data_fins(segments: &[Segment]) -> Vec<Dss> {
    let all = segments.iter().flat_map(|segment| &segment.options.mptcp);
    all.filter_map(|option| match option {
        MptcpOption::Dss(dss) if dss.data_fin => Some(*dss),
        _ => None,
    })
    .collect()
}

fn has(segments: &[Segment], flag: Flags) -> bool {
    segments.iter().any(|segment| segment.flags.has(flag))
}

#[test]
fn a_reset_ends_one_subflow_only() {
    let mut peer = two_subflows();
    let before = peer.info();
    peer.say(0, &Say { flags: Flags::RST, ..Say::default() });
    let after = peer.info();
    assert_eq!((after.mptcp, after.subflows_total), (true, 1));
    assert_eq!((after.local, after.remote), (before.local, before.remote));
    peer.write(b"hello");
    assert!(peer.heard(1).iter().any(|segment| segment.payload.as_slice() == b"hello"));
}

#[test]
fn a_fin_ends_one_subflow_only() {
    let mut peer = two_subflows();
    let options = vec![peer.acks(0)];
    peer.say(0, &Say { flags: Flags::ACK.with(Flags::FIN), options, ..Say::default() });
    let conn = peer.conn();
    assert_eq!(peer.shard.read(conn, 10), Read::Empty, "the stream goes on");
    peer.write(b"hello");
    assert!(peer.heard(1).iter().any(|segment| segment.payload.as_slice() == b"hello"));
    let options = vec![peer.maps(1, 0, 10)];
    peer.say(1, &Say { options, payload: &bytes_at(0, 10), ..Say::default() });
    assert_eq!(peer.read(), bytes_at(0, 10));
}

#[test]
fn the_end_is_acknowledged_when_all_before_it_came() {
    let mut peer = Peer::connected(7, &SocketOptions::default());
    let last = vec![ends(&peer, 101, 200, 100)];
    peer.say(0, &Say { pos: 101, options: last, payload: &bytes_at(100, 100), ..Say::default() });
    let acked = peer.heard(0).iter().filter_map(|segment| peer.acked(segment)).max();
    assert_eq!(acked, Some(0));
    let first = vec![peer.maps(1, 0, 100)];
    peer.say(0, &Say { options: first, payload: &bytes_at(0, 100), ..Say::default() });
    let acked = peer.heard(0).iter().filter_map(|segment| peer.acked(segment)).max();
    assert_eq!(acked, Some(201), "the end counts as one");
    assert_eq!(peer.read(), bytes_at(0, 200));
}

#[test]
fn the_end_by_itself_has_a_mapping_of_its_own() {
    let mut peer = Peer::connected(7, &SocketOptions::default());
    peer.write(&[1; 100]);
    peer.heard(0);
    peer.shutdown();
    let dsn = token_and_idsn(peer.stack_key()).1.wrapping_add(101);
    let mapping = Mapping { dsn, dsn_long: true, ssn: 0, len: 1, checksum: None };
    let heard = data_fins(&peer.heard(0));
    assert!(matches!(heard[..], [Dss { mapping: Some(told), .. }] if told == mapping), "{heard:?}");
}

#[test]
fn subflows_are_closed_when_both_ends_are_acknowledged() {
    // Given two subflows and streams that both sides have ended,
    let mut peer = two_subflows();
    peer.write(&[1; 100]);
    peer.shutdown();
    let end = vec![ends(&peer, 1, 0, 0)];
    peer.say(0, &Say { options: end, ..Say::default() });
    // as long as the peer has not acknowledged the stack's to the end at data level no subflow is closed,
    let heard: Vec<Segment> = (0..2).flat_map(|flow| peer.heard(flow)).collect();
    assert!(!data_fins(&heard).is_empty() && !has(&heard, Flags::FIN), "{heard:?}");
    let options = vec![peer.acks(100)];
    peer.say(0, &Say { ack: 101, options, ..Say::default() });
    assert!(!has(&peer.heard(0), Flags::FIN) && !has(&peer.heard(1), Flags::FIN));
    // and then all are.
    let options = vec![peer.acks(101)];
    peer.say(0, &Say { ack: 101, options, ..Say::default() });
    for flow in 0..2 {
        let heard = peer.heard(flow);
        assert!(has(&heard, Flags::FIN), "subflow {flow}: {heard:?}");
    }
}

#[test]
fn a_fast_close_needs_our_key() {
    let mut peer = two_subflows();
    for wrong in [peer.stack_key() ^ 1, peer.stack_key() ^ 1 << 63, 7] {
        let options = vec![MptcpOption::Fastclose { receiver_key: wrong }];
        peer.say(0, &Say { options: options.clone(), ..Say::default() });
        assert_eq!(peer.info().subflows_total, 2);
    }
    let options = vec![MptcpOption::Fastclose { receiver_key: peer.stack_key() }];
    peer.heard(0);
    peer.say(0, &Say { options, ..Say::default() });
    for flow in 0..2 {
        let heard = peer.heard(flow);
        assert!(has(&heard, Flags::RST), "subflow {flow}: {heard:?}");
    }
    let conn = peer.conn();
    assert_eq!(peer.shard.read(conn, 10), Read::Failed(Error::Reset));
    assert_eq!(peer.shard.counters().mp_fastclose_rx, 1);
}
