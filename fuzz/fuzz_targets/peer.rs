//! A peer that lies: MPTCP connections whose peer sends valid headers with any options. Never a panic, and the worker's
//! books are right after each segment.
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

/// The next byte of the program; zeros follow when it is over.
fn byte(program: &mut &[u8]) -> u8 {
    let Some((&first, rest)) = program.split_first() else { return 0 };
    *program = rest;
    first
}

fn word(program: &mut &[u8]) -> u16 {
    u16::from_be_bytes([byte(program), byte(program)])
}

/// A segment with options as the program has them.
fn lie(peer: &mut Peer, program: &mut &[u8]) {
    let flow = usize::from(byte(program)) % peer.flows.len();
    let flags = match byte(program) {
        odd @ 0xe0.. => Flags(odd),
        0xc0.. => Flags::ACK.with(Flags::FIN),
        _ => Flags::ACK,
    };
    let payload = vec![7; usize::from(word(program) % 3000)];
    let say = Say {
        flags,
        pos: u32::from(word(program)),
        ack: u32::from(word(program)),
        window: word(program),
        payload: &payload,
        ..Say::default()
    };
    let len = usize::from(byte(program) % 41).min(program.len());
    let (options, rest) = program.split_at(len);
    *program = rest;
    let mut padded = options.to_vec();
    padded.resize(len.next_multiple_of(4), 1);
    let mut segment = TcpPacket::read(&peer.packet(flow, &say)).expect("a segment");
    segment.set_options(&padded);
    peer.hear(PathId(flow as u16), segment.finish());
}

fuzz_target!(|program: &[u8]| {
    let mut program = program;
    let setup = byte(&mut program);
    let options = SocketOptions {
        checksum: setup & 1 != 0,
        recv_buffer_max: if setup & 2 != 0 { 64 << 10 } else { 1 << 20 },
        ..SocketOptions::default()
    };
    let mut peer = Peer::connected(7, &options);
    if setup & 4 != 0 {
        peer.join(1);
    }
    let (conn, limit) = (peer.conn(), 2 * u64::from(options.recv_buffer_max) + 1500);
    while !program.is_empty() {
        match byte(&mut program) % 16 {
            0 => drop(peer.read()),
            1 => {
                let bytes = vec![3; usize::from(word(&mut program))];
                let _ = peer.shard.write(peer.now, conn, Payload::from(bytes));
                peer.pass(Duration::ZERO);
            }
            2 => peer.pass(Duration::from_millis(1 << (byte(&mut program) % 17))),
            3 if byte(&mut program) > 200 => {
                let _ = peer.shard.shutdown(peer.now, conn, Shutdown::Write);
                peer.pass(Duration::ZERO);
            }
            _ => lie(&mut peer, &mut program),
        }
        if let Err(what) = peer.shard.audit() {
            panic!("{what}");
        }
        if let Some(info) = peer.shard.info(conn) {
            assert!(info.recv_queued + info.recv_out_of_order <= limit, "{info:?}");
        }
        for flow in 0..peer.flows.len() {
            drop(peer.heard(flow));
        }
    }
});
