//! The connection's window, told in the headers of all subflows and counted from the DATA_ACK (RFC 8684 §3.3.4).

use std::time::Duration;

use anabranch_core::SocketOptions;
use anabranch_core::wire::Segment;

use crate::peer::{Peer, Say, bytes_at};

/// A connection with two subflows that have told windows and acknowledged nothing.
fn with_windows(windows: [u16; 2]) -> Peer {
    let mut peer = Peer::narrow(7, &SocketOptions::default(), *windows.iter().min().unwrap());
    peer.join(1);
    for (flow, window) in windows.into_iter().enumerate() {
        let option = peer.acks(0);
        peer.say(flow, &Say { window, options: vec![option], ..Say::default() });
    }
    peer
}

fn payloads(peer: &mut Peer) -> Vec<(usize, Segment)> {
    let mut all = Vec::new();
    for flow in 0..2 {
        all.extend(peer.heard(flow).into_iter().filter(|s| !s.payload.is_empty()).map(|s| (flow, s)));
    }
    all
}

fn bytes_in(segments: &[(usize, Segment)]) -> usize {
    segments.iter().map(|(_, segment)| segment.payload.len()).sum()
}

/// Acknowledges what came, on its subflow and up to `off` at data level, with a window.
fn acknowledge(peer: &mut Peer, segments: &[(usize, Segment)], off: u64, window: u16) {
    for flow in 0..2 {
        let ends = segments.iter().filter(|(at, _)| *at == flow).map(|(_, segment)| peer.end(flow, segment));
        if let Some(ack) = ends.max() {
            let option = peer.acks(off);
            peer.say(flow, &Say { ack, window, options: vec![option], ..Say::default() });
        }
    }
}

#[test]
fn the_largest_right_edge_of_all_subflows_holds() {
    // Given a subflow that told of 20000 bytes and one that told of 5000, at the same DATA_ACK,
    let mut peer = with_windows([20_000, 5_000]);
    // when more than that is written and all is acknowledged on the subflows but nothing at data level,
    peer.write(&bytes_at(0, 60_000));
    let mut sent = payloads(&mut peer);
    for _ in 0..5 {
        for (flow, window) in [20_000, 5_000].into_iter().enumerate() {
            let ends = sent.iter().filter(|(at, _)| *at == flow).map(|(_, segment)| peer.end(flow, segment));
            let (ack, option) = (ends.max().unwrap_or(1), peer.acks(0));
            peer.say(flow, &Say { ack, window, options: vec![option], ..Say::default() });
        }
        sent.extend(payloads(&mut peer));
    }
    // then it sends up to the edge of the first and not a byte more.
    let last = sent.iter().filter_map(|(_, s)| Some(peer.mapped(s)? + s.payload.len() as u64)).max();
    assert_eq!(last, Some(20_000));
    assert_eq!(peer.info().send_window, 0);
}

#[test]
fn a_window_that_is_taken_back_on_one_subflow_holds_on_the_other() {
    let mut peer = with_windows([20_000, 20_000]);
    let option = peer.acks(0);
    peer.say(1, &Say { window: 0, options: vec![option], ..Say::default() });
    peer.write(&bytes_at(0, 10_000));
    assert_eq!(bytes_in(&payloads(&mut peer)), 10_000, "the edge at data level never moves left");
}

#[test]
fn a_window_closed_at_data_level_is_probed() {
    let mut peer = with_windows([3_000, 3_000]);
    peer.write(&bytes_at(0, 10_000));
    let sent = payloads(&mut peer);
    assert_eq!(bytes_in(&sent), 3_000);
    // Given all of it acknowledged and no more room,
    acknowledge(&mut peer, &sent, 3_000, 0);
    assert_eq!(peer.info().send_window, 0);
    // then the peer is asked again and again, ever more seldom, for as long as it answers,
    let mut probes = 0;
    for _ in 0..20 {
        peer.pass(Duration::from_secs(10));
        for flow in 0..2 {
            for probe in peer.heard(flow) {
                probes += 1;
                assert!(probe.payload.len() <= 1);
                let ends = sent.iter().filter(|(at, _)| *at == flow).map(|(_, segment)| peer.end(flow, segment));
                let (ack, option) = (ends.max().unwrap_or(1), peer.acks(3_000));
                peer.say(flow, &Say { ack, window: 0, options: vec![option], ..Say::default() });
            }
        }
    }
    assert!((5..30).contains(&probes), "{probes} probes in 200 s");
    let counters = peer.shard.counters();
    assert!(counters.tcp_winprobe > 0 && counters.mp_win_probe == counters.tcp_winprobe);
    // and goes on as soon as there is room.
    acknowledge(&mut peer, &sent, 3_000, 20_000);
    assert_eq!(bytes_in(&payloads(&mut peer)), 7_000);
}

/// The shared receive buffer is full of what a slow path's bytes have to come before.
#[test]
fn the_buffer_is_full_of_the_future() {
    let options = SocketOptions { recv_buffer_max: 64 << 10, ..SocketOptions::default() };
    let mut peer = Peer::connected(7, &options);
    peer.join(1);
    let stream = bytes_at(0, 300_000);
    // Given a hole of 1000 bytes that the first subflow owes, and all that follows on the second one,
    let mut placed = 1000;
    for (at, piece) in stream[1000..].chunks(1000).enumerate() {
        let off = 1000 + 1000 * at as u64;
        let mapping = peer.maps(1 + 1000 * at as u32, off, 1000);
        peer.say(1, &Say { pos: 1 + 1000 * at as u32, options: vec![mapping], payload: piece, ..Say::default() });
        placed = placed.max(off + 1000);
    }
    // then no more is kept than the buffer, and one more for a peer that adds windows of two subflows,
    let info = peer.info();
    assert!(info.recv_out_of_order <= 2 * (64 << 10), "{} bytes", info.recv_out_of_order);
    assert!(peer.shard.counters().no_dss_in_window > 0);
    assert_eq!(peer.read(), b"");
    // what it did not keep it did not acknowledge on the subflow,
    let acked = peer.heard(1).iter().map(|segment| segment.ack.0.wrapping_sub(0xffff_f000)).max().unwrap();
    assert_eq!(u64::from(acked) - 1, info.recv_out_of_order);
    // and when the hole is filled all that was kept is read.
    let first = peer.maps(1, 0, 1000);
    peer.say(0, &Say { options: vec![first], payload: &stream[..1000], ..Say::default() });
    let read = peer.read();
    assert_eq!(read.len() as u64, 1000 + info.recv_out_of_order);
    assert_eq!(read, stream[..read.len()]);
    // The rest comes again, now that the window has moved.
    for (at, piece) in stream[read.len()..].chunks(1000).enumerate() {
        let off = read.len() as u64 + 1000 * at as u64;
        let mapping = peer.maps(off as u32 - 999, off, piece.len() as u16);
        peer.say(1, &Say { pos: off as u32 - 999, options: vec![mapping], payload: piece, ..Say::default() });
        let more = peer.read();
        assert_eq!(more, piece);
    }
}
