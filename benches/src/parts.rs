//! What the benchmarks of the parts do, once for those in time and those in instructions.
//!
//! Each part is a place where work was prepared, and a step that does it.

use std::hint::black_box;
use std::time::Duration;

use anabranch_core::sched::{self, Ask, Choice, SchedView, Scheduler, SubflowView};
use anabranch_core::wire::{
    DataAck, Dss, IpOut, Mapping, MptcpOption, OptionWriter, Segment, SegmentOut, SeqNum, TcpOptions, Timestamps, Tuple,
};
use anabranch_core::{ConnId, SockOpt};
use anabranch_frame::{Instant, PathId, Payload, RxChecksum, RxPacket};

use crate::{Pair, PairConfig};

/// Bytes of a segment on Ethernet.
const MSS: u64 = 1460;
/// Bytes of a piece beside a hole: 8192 of them fit the window of a new connection.
const PIECE: usize = 16;

/// Options of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Options {
    /// Timestamps, as on every segment.
    Timestamps,
    /// And three blocks of SACK.
    Sack,
    /// And a DSS with DATA_ACK and mapping, both of 64 bits.
    Dss,
}

impl Options {
    /// All of them, with names.
    pub const ALL: [(&str, Self); 3] =
        [("timestamps", Self::Timestamps), ("three SACK blocks", Self::Sack), ("DSS", Self::Dss)];

    /// Writes them.
    #[must_use]
    pub fn emit(self) -> OptionWriter {
        let mut writer = OptionWriter::new();
        writer.timestamps(Timestamps { value: black_box(0x0102_0304), echo: 0x0506_0708 });
        match self {
            Self::Timestamps => {}
            Self::Sack => {
                let blocks = [1000, 3000, 5000].map(|start| (SeqNum(start), SeqNum(start + 1460)));
                writer.sack(&black_box(blocks), 0);
            }
            Self::Dss => {
                let mapping = Mapping { dsn: 1 << 40, dsn_long: true, ssn: 77, len: 1460, checksum: None };
                let dss = Dss { ack: Some(DataAck::Long(1 << 41)), mapping: Some(mapping), data_fin: false };
                writer.mptcp(&black_box(MptcpOption::Dss(dss)));
            }
        }
        writer
    }
}

/// Reads options.
#[must_use]
pub fn parse_options(bytes: &[u8]) -> TcpOptions {
    TcpOptions::parse(black_box(bytes))
}

/// Two stacks with one connection over which bytes have gone.
///
/// # Panics
/// If they cannot talk.
#[must_use]
pub fn connected(paths: u16, offload: bool) -> Pair {
    let mut pair = Pair::new(&PairConfig { paths, offload, ..PairConfig::default() });
    pair.connect(1).expect("connecting in memory");
    for _ in 0..100 {
        pair.turn();
    }
    assert!(pair.received() > 0, "nothing arrived");
    pair
}

/// A connection whose receiver misses every other piece of what was sent, and the pieces that it misses.
///
/// # Panics
/// If there is a bug.
#[must_use]
pub fn holes(holes: usize) -> (Pair, Vec<RxPacket>) {
    let mut pair = connected(1, false);
    let lost = pair.burst().remove(0);
    let received = pair.received();
    let template = Segment::parse(lost).expect("a segment");
    let piece = |number: usize| piece(&template, SeqNum(template.seq.0.wrapping_add((number * PIECE) as u32)));
    let present = (0..holes).map(|hole| piece(2 * hole + 1)).collect();
    // The first one, because a receiver with 4096 islands takes nothing else; then from the last one.
    let missing = std::iter::once(0).chain((1..holes).rev()).map(|hole| piece(2 * hole)).collect();
    pair.take(present);
    assert_eq!(pair.received(), received, "a hole is closed");
    (pair, missing)
}

/// A packet from elsewhere in the stream of a segment that arrived, in no larger a buffer than it needs.
fn piece(template: &Segment, seq: SeqNum) -> RxPacket {
    let mut options = OptionWriter::new();
    if let Some(timestamps) = template.options.timestamps {
        options.timestamps(timestamps);
    }
    let out = SegmentOut {
        tuple: Tuple { local: template.tuple.remote, remote: template.tuple.local },
        seq,
        ack: template.ack,
        flags: template.flags,
        window: template.window,
        ip: IpOut::default(),
        options: &options,
        payload_len: PIECE as u32,
    };
    let bytes = [&*out.emit().0, &[b'x'; PIECE]].concat();
    let data = Payload::copy_with_capacity(&bytes, bytes.len());
    RxPacket { checksum: RxChecksum::Trusted, ..RxPacket::new(PathId(0), data) }
}

/// A scheduler and so many subflows for it to choose from.
#[derive(Debug)]
pub struct Choosing {
    scheduler: Box<dyn Scheduler>,
    subflows: Vec<SubflowView>,
}

impl Choosing {
    /// Names of all schedulers.
    pub fn names() -> impl Iterator<Item = &'static str> {
        sched::NAMES.split(", ")
    }

    /// # Panics
    /// If there is no scheduler of that name.
    #[must_use]
    pub fn new(name: &str, subflows: u8) -> Self {
        let scheduler = sched::by_name(name).expect("a known name");
        Self { scheduler, subflows: (0..subflows).map(subflow).collect() }
    }

    /// Where to send next.
    pub fn choose(&mut self) -> Choice {
        self.scheduler.select(&SchedView {
            now: Instant::from_millis(10_000),
            ask: Ask::NewData,
            subflows: black_box(&self.subflows),
            data_una: 400 * MSS,
            data_nxt: 500 * MSS,
            unassigned: 1000 * MSS,
            window: 4000 * MSS,
            window_left: 3900 * MSS,
            send_buffer_full: false,
        })
    }
}

/// Every third one has no room.
fn subflow(id: u8) -> SubflowView {
    let srtt = Duration::from_millis(10 + 7 * u64::from(id));
    let full = id.is_multiple_of(3);
    SubflowView {
        id,
        local_id: id,
        remote_id: 0,
        backup: false,
        stale: false,
        in_rto: false,
        in_recovery: false,
        in_slow_start: false,
        srtt,
        rttvar: srtt / 8,
        min_rtt: srtt,
        max_rtt: srtt,
        cwnd: 10 * MSS,
        ssthresh: u64::MAX,
        in_flight: if full { 10 * MSS } else { 0 },
        queued: 0,
        room: if full { 0 } else { 10 * MSS },
        pacing_rate: 1_000_000,
        delivery_rate: 1_000_000,
        mss: MSS,
        lost: 0,
        delivered: 0,
        last_activity: Instant::ZERO,
        cost: 0,
        carried_una: false,
        walked: 0,
    }
}

/// A stack with many connections, each of which has a timer.
#[derive(Debug)]
pub struct Timers {
    pair: Pair,
    connections: Vec<ConnId>,
    moves: usize,
}

impl Timers {
    /// # Panics
    /// If they cannot connect.
    #[must_use]
    pub fn new(connections: usize) -> Self {
        let mut pair = Pair::new(&PairConfig { connections, ..PairConfig::default() });
        let connections = pair.connect_idle(connections).expect("connecting in memory");
        let now = pair.now();
        for &id in &connections {
            pair.client.shard.set_option(now, id, SockOpt::Keepalive(true)).expect("a connection");
        }
        let mut timers = Self { pair, connections, moves: 0 };
        (0..timers.connections.len()).for_each(|_| timers.move_one());
        timers
    }

    /// Sets the timer of the next one anew, to another time than it had.
    ///
    /// # Panics
    /// If there is a bug.
    pub fn move_one(&mut self) {
        let id = self.connections[self.moves % self.connections.len()];
        self.moves += 1;
        let idle = Duration::from_secs(7200 + (self.moves % 61) as u64);
        let now = self.pair.now();
        let shard = &mut self.pair.client.shard;
        shard.set_option(now, id, SockOpt::Keepidle(idle)).expect("a connection");
        black_box((shard.poll_transmit(now), shard.poll_timeout()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hole_is_filled() {
        for count in [1, 64, 4096] {
            let (mut pair, missing) = holes(count);
            let before = pair.received();
            pair.take(missing);
            assert_eq!(pair.received() - before, (2 * count * PIECE) as u64);
        }
    }

    #[test]
    fn segments_are_answered() {
        for (paths, offload) in [(1, false), (1, true), (2, false), (2, true)] {
            let mut pair = connected(paths, offload);
            let joined = pair.client.shard.counters().mp_join_synack_rx;
            assert_eq!(joined, u64::from(paths - 1), "subflows with {paths} paths");
            let burst = pair.burst();
            let answers = pair.take(burst);
            assert!(!answers.is_empty());
        }
    }

    #[test]
    fn connections_come_and_go() {
        let mut pair = Pair::new(&PairConfig { paths: 2, ..PairConfig::default() });
        for _ in 0..100 {
            pair.open_and_reset();
        }
        assert!(pair.server.shard.connections() < 10);
    }
}
