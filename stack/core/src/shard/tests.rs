use core::time::Duration;

use anabranch_frame::{PathId, gso};

use super::*;
use crate::config::{IpCidr, PathConfig};

/// RFC 8684 §3.1: a token names one connection.
#[test]
fn a_key_whose_token_is_taken_is_drawn_again() {
    let shard = || Shard::new(ShardConfig::single(7));
    let first = shard().new_key();
    let mut taken = shard();
    taken.tokens.insert(first.token, 0);
    let second = taken.new_key();
    assert_ne!(second.token, first.token);
    assert_eq!(taken.counters.mp_fallback_token_init, 1);
}

/// Two shards over one path, whose connection's numbers may be set to what no key is known for.
struct Two {
    now: Instant,
    /// Client and server.
    shards: [Shard; 2],
    conns: [ConnId; 2],
}

impl Two {
    fn connected() -> Self {
        let mut shards = [1, 2].map(|host| {
            let mut shard = Shard::new(ShardConfig::single(host));
            let cidr = IpCidr::new(IpAddr::from([10, 0, 0, host as u8]), 24).expect("a prefix of IPv4");
            shard.add_path(Instant::ZERO, PathConfig::new(PathId(0), alloc::vec![cidr])).expect("a new path");
            shard
        });
        let remote = SocketAddr::from(([10, 0, 0, 2], 80));
        let listener = shards[1].listen(remote, 1, SocketOptions::default()).expect("a free port");
        let client = shards[0].connect(Instant::ZERO, None, remote, &SocketOptions::default()).expect("a route");
        let mut two = Self { now: Instant::ZERO, shards, conns: [client; 2] };
        two.settle();
        two.conns[1] = two.shards[1].accept(listener).expect("a connection").0;
        two
    }

    fn mp(&mut self, side: usize) -> &mut mptcp::Mp {
        self.shards[side].conn_mut(self.conns[side]).and_then(Conn::mp_mut).expect("it speaks MPTCP")
    }

    /// Packets go to and fro until nobody has one.
    fn settle(&mut self) {
        for from in [0, 1].into_iter().cycle() {
            let mut quiet = true;
            while let Some(transmit) = self.shards[from].poll_transmit(self.now) {
                gso::for_each_segment(&transmit, &mut Vec::new(), |bytes| {
                    let packet = RxPacket::new(transmit.path, Payload::from(bytes));
                    self.shards[1 - from].handle_packet(self.now, packet);
                });
                quiet = false;
            }
            if quiet && from == 1 && self.shards[0].poll_timeout().is_none_or(|due| due > self.now) {
                return;
            }
            self.now += Duration::from_millis(1);
            self.shards.iter_mut().for_each(|shard| shard.handle_timeout(self.now));
        }
    }

    fn say(&mut self, from: usize, bytes: &[u8]) {
        let (now, conns) = (self.now, self.conns);
        self.shards[from].write(now, conns[from], Payload::from(bytes)).expect("room");
        let mut heard = Vec::new();
        for _ in 0..1000 {
            self.settle();
            while let Read::Data(data) = self.shards[1 - from].read(conns[1 - from], usize::MAX) {
                self.shards[1 - from].consumed(self.now, conns[1 - from], data.len());
                heard.extend_from_slice(&data);
            }
            self.now += Duration::from_millis(1);
            self.shards.iter_mut().for_each(|shard| shard.handle_timeout(self.now));
        }
        assert_eq!(heard, bytes);
    }
}

/// RFC 8684 §3.3.1: numbers have 64 bits and wrap. No key is known whose hash ends in as many ones.
#[test]
fn initial_data_sequence_numbers_at_the_very_end_wrap() {
    let bytes: Vec<u8> = (0..100_000u32).map(|at| (at % 251) as u8).collect();
    for idsn in [u64::MAX, u64::MAX - 1, u64::MAX - 50_000, u64::from(u32::MAX)] {
        // Given a connection both of whose streams begin right before the wrap,
        let mut two = Two::connected();
        for side in [0, 1] {
            let mp = two.mp(side);
            mp.local.idsn = idsn;
            mp.remote.as_mut().expect("the handshake is over").idsn = idsn;
        }
        // when both speak and end their streams,
        for from in [0, 1, 0] {
            two.say(from, &bytes);
        }
        for side in [0, 1] {
            let written = two.shards[side].info(two.conns[side]).expect("it is open");
            assert!(written.mptcp && written.bytes_acked == written.bytes_written, "{idsn:#x}: {written:?}");
            two.shards[side].shutdown(two.now, two.conns[side], Shutdown::Write).expect("it is open");
        }
        two.settle();
        // then each hears the other's end.
        for side in [0, 1] {
            assert!(matches!(two.shards[side].read(two.conns[side], 1), Read::Eof), "{idsn:#x}: no end for {side}");
            assert_eq!((two.shards[side].counters.tcp_out_rsts, two.shards[side].counters.mp_rst_tx), (0, 0));
        }
    }
}
