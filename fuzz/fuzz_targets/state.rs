//! A whole segment into every state: a right one, changed here and there by the input. Never a panic, and the worker's
//! books are right, then and when time has passed.
#![no_main]

#[path = "../../stack/core/tests/peer/mod.rs"]
mod peer;

use std::time::Duration;

use anabranch_core::SocketOptions;
use anabranch_core::shard::Shutdown;
use anabranch_core::wire::Flags;
use anabranch_frame::{PathId, Payload};
use anabranch_sim::middlebox::TcpPacket;
use libfuzzer_sys::fuzz_target;
use peer::{Peer, Say};

/// A connection on its way through its states, as far as `state` says; the position behind what both sides sent.
fn in_state(state: u8, options: &SocketOptions) -> (Peer, u32, u32) {
    let mut peer = Peer::listening(7, options);
    // LISTEN, as after a reset, and SYN-RECEIVED.
    peer.open(options.checksum);
    if state < 2 {
        if state == 0 {
            peer.say(0, &Say { flags: Flags::RST, ..Say::default() });
        }
        return (peer, state.into(), state.into());
    }
    let (mut pos, mut ack) = (1, 1);
    peer.finish_open(options.checksum);
    let mut end = |peer: &mut Peer| {
        let conn = peer.conn();
        let _ = peer.shard.shutdown(peer.now, conn, Shutdown::Write);
        peer.pass(Duration::ZERO);
        ack += 1;
    };
    let mut fin = |peer: &mut Peer, ack: u32| {
        peer.say(0, &Say { flags: Flags::ACK.with(Flags::FIN), pos, ack, ..Say::default() });
        pos += 1;
    };
    match state {
        // ESTABLISHED.
        2 => {}
        // FIN-WAIT-1, FIN-WAIT-2.
        3 => end(&mut peer),
        4 => {
            end(&mut peer);
            peer.say(0, &Say { ack: 2, ..Say::default() });
        }
        // CLOSE-WAIT, LAST-ACK.
        5 => fin(&mut peer, 1),
        6 => {
            fin(&mut peer, 1);
            end(&mut peer);
        }
        // CLOSING, TIME-WAIT.
        7 => {
            end(&mut peer);
            fin(&mut peer, 1);
        }
        _ => {
            end(&mut peer);
            fin(&mut peer, 2);
        }
    }
    (peer, pos, ack)
}

/// Changes bytes of a packet: where, by what.
fn change(packet: &Payload, changes: &[u8], mend: bool) -> Payload {
    let mut bytes = packet.to_vec();
    for pair in changes.chunks_exact(2) {
        let at = usize::from(pair[0]) % bytes.len();
        bytes[at] ^= pair[1];
    }
    match TcpPacket::read(&bytes).filter(|_| mend) {
        Some(segment) => segment.finish(),
        None => Payload::from(bytes),
    }
}

fuzz_target!(|input: &[u8]| {
    let [state, how, flags, len, changes @ ..] = input else { return };
    let options = SocketOptions { mptcp: how & 1 != 0, checksum: how & 2 != 0, ..SocketOptions::default() };
    let (mut peer, pos, ack) = in_state(state % 9, &options);
    for changes in changes.chunks(20) {
        let payload = vec![5; usize::from(*len)];
        let say = Say { flags: Flags(*flags), pos, ack, payload: &payload, ..Say::default() };
        let packet = change(&peer.packet(0, &say), changes, how & 4 != 0);
        peer.hear(PathId(0), packet);
        if let Err(what) = peer.shard.audit() {
            panic!("{what}");
        }
    }
    peer.pass(Duration::from_secs(300));
    if let Err(what) = peer.shard.audit() {
        panic!("{what}");
    }
});
