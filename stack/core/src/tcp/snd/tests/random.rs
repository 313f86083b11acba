//! Random operations, and what must hold after each.

use super::*;
use crate::tcp::snd::record::Record;
use crate::tcp::snd::recovery::Phase;
use crate::tcp::snd::scoreboard::Tally;

/// What must always hold.
pub(super) fn check(snd: &Snd) {
    let mut at = snd.una();
    let mut tally = Tally::default();
    for record in snd.board.records() {
        assert_eq!(record.start, at, "records are contiguous");
        assert!(record.start < record.end);
        let payload: u64 = record.payload.iter().map(|slice| slice.len() as u64).sum();
        assert_eq!(payload, record.payload_len());
        assert!(!(record.sacked && (record.lost || record.retrans)), "a SACKed record is neither lost nor in flight");
        tally.add(record);
        at = record.end;
    }
    assert_eq!(at, snd.nxt(), "records reach from una to nxt");
    assert_eq!(&tally, snd.board.tally());
    let sacked: Vec<_> = snd.board.records().iter().filter(|record| record.sacked).map(Record::range).collect();
    assert!(sacked.iter().all(|range| snd.board.sacked().covers(range)), "every SACKed record is known as such");
    assert_eq!(snd.board.sacked().covered(), tally.sacked, "and nothing else");
    let pipe = (snd.nxt() - snd.una() + tally.retrans).checked_sub(tally.sacked + tally.lost + snd.board.reno_sacked());
    assert_eq!(Some(snd.in_flight()), pipe, "in flight is the pipe");
    assert_eq!(snd.timers.any(), !snd.everything_acked(), "a timer is armed exactly while data is outstanding");
    assert!(snd.recovery.phase != Phase::Open || tally.lost == 0, "losses belong to an episode");
    assert!(snd.fin_sent || snd.board.records().iter().all(|record| !record.fin));
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

fn seeds() -> (u64, u64) {
    match std::env::var("ANABRANCH_SEED") {
        Ok(seed) => (seed.parse().expect("ANABRANCH_SEED is a number"), 1),
        Err(_) => (1, 150),
    }
}

/// Prints the seed if the test dies.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::eprintln!("failed with ANABRANCH_SEED={}", self.0);
        }
    }
}

fn for_each_seed(test: impl Fn(Random)) {
    let (first, count) = seeds();
    for seed in first..first + count {
        let _guard = Seed(seed);
        test(Random(seed));
    }
}

/// Any peer at all: positions near everything that is interesting.
fn somewhere(random: &mut Random, snd: &Snd) -> u64 {
    let near = [snd.una(), snd.nxt(), snd.una() + random.below(snd.nxt() - snd.una() + 1), 0, u64::MAX - 2000];
    let choices = if random.one_in(50) { near.len() } else { near.len() - 1 };
    let base = near[random.below(choices as u64) as usize];
    match random.below(4) {
        0 => base,
        1 => base.saturating_add(random.below(1500)),
        2 => base.saturating_sub(random.below(1500)),
        _ => 1 + base.saturating_sub(1) / MSS * MSS,
    }
}

fn hostile_ack(random: &mut Random, t: &mut Trace) {
    let ack = match random.below(4) {
        0 => somewhere(random, &t.snd).clamp(t.snd.una().saturating_sub(5000), t.snd.nxt()),
        1 => (t.snd.una() + random.below(3) * MSS).min(t.snd.nxt()),
        _ => t.snd.una(),
    };
    let blocks: Vec<Range<u64>> = (0..random.below(5))
        .map(|_| {
            let start = somewhere(random, &t.snd);
            let end = if random.one_in(8) {
                somewhere(random, &t.snd)
            } else {
                start.saturating_add(random.below(10) * MSS / (1 + random.below(3)))
            };
            start..end
        })
        .collect();
    let before = t.snd.una();
    let out = t.hear(&AckIn {
        ack,
        window: random.below(200_000),
        seq: random.below(3),
        sack: &blocks,
        ts_rtt: random.one_in(2).then(|| Duration::from_micros(random.below(300_000))),
        ece: false,
        pure: random.one_in(2),
        signal: random.one_in(4),
    });
    assert_eq!(t.snd.una(), before + out.acked);
    assert!(out.acked_bytes <= out.acked);
}

fn step(random: &mut Random, t: &mut Trace) {
    t.now += Duration::from_micros(random.below(20_000));
    match random.below(12) {
        0..=3 if !t.snd.fin_sent() => {
            let room = t.snd.room(t.now).min(60_000);
            let len = if random.one_in(3) { random.below(room + 1) } else { room };
            let fin = random.one_in(300);
            if len > 0 || fin {
                t.send_bytes(len, fin);
            }
        }
        4..=7 => hostile_ack(random, t),
        8..=9 => {
            let max = random.below(5_000);
            if let Some(sent) = t.snd.next_retransmit(t.now, max, &mut t.counters) {
                verify(&sent);
                assert!(sent.range.end - sent.range.start <= max + u64::from(sent.fin));
            }
        }
        10 => {
            if let Some(deadline) = t.snd.deadline().filter(|_| random.one_in(3)) {
                t.now = t.now.max(deadline);
            }
            if t.on_timer() == Some(Fired::Probe) && random.one_in(2) {
                verify(&t.snd.send_probe(t.now).expect("there is something to probe for"));
            }
            assert!(t.snd.deadline().is_none_or(|at| at > t.now) || t.on_timer().is_some());
        }
        _ if random.one_in(10) => t.snd.on_path_up(t.now),
        _ if random.one_in(100) => t.snd.set_mss(200 + random.below(1_200) as u16),
        _ => t.snd.set_drained(random.one_in(2)),
    }
    check(&t.snd);
}

#[test]
fn no_peer_breaks_the_sender() {
    for_each_seed(|mut random| {
        let mut t = Trace::with(10 + random.below(200), !random.one_in(4));
        for _ in 0..800 {
            step(&mut random, &mut t);
        }
        // However it stands, an acknowledgement of everything ends it.
        let nxt = t.snd.nxt();
        t.ack_positions(nxt, &[]);
        assert_eq!((t.snd.in_flight(), t.snd.deadline(), t.snd.queued_lost()), (0, None, 0));
        assert_eq!(t.snd.rack.log_len(), 0);
    });
}

/// A receiver that keeps its word, behind a network that loses, delays and reorders.
struct Receiver {
    got: Vec<Range<u64>>,
}

impl Receiver {
    fn take(&mut self, range: &Range<u64>) -> Option<Range<u64>> {
        let duplicate = self.got.iter().any(|got| got.start <= range.start && range.end <= got.end);
        self.got.push(range.clone());
        self.got.sort_by_key(|got| got.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for next in self.got.drain(..) {
            match merged.last_mut() {
                Some(last) if next.start <= last.end => last.end = last.end.max(next.end),
                _ => merged.push(next),
            }
        }
        self.got = merged;
        duplicate.then(|| range.clone())
    }

    fn ack(&self) -> u64 {
        self.got[0].end
    }
}

enum Packet {
    Data { range: Range<u64> },
    Ack { ack: u64, sack: Vec<Range<u64>> },
}

/// Everything arrives in the end, and nothing is sent that the rules forbid, whatever the network does.
#[test]
fn a_lossy_reordering_network_delays_but_does_not_stop_it() {
    const TOTAL: u64 = 400_000;
    for_each_seed(|mut random| {
        let sack = !random.one_in(4);
        let mut t = Trace::with(4 + random.below(100), sack);
        let mut receiver = Receiver { got: core::iter::once(0..1).collect() };
        let mut wire: Vec<(Instant, u64, Packet)> = Vec::new();
        let loss = [1_000_000, 100, 20, 5][random.below(4) as usize];
        let jitter = [1, 1_000, 50_000][random.below(3) as usize];
        let limit = t.now + Duration::from_secs(3_600);
        let mut order = 0;
        while t.snd.una() < 1 + TOTAL {
            let mut out: Vec<Range<u64>> = Vec::new();
            while let Some(sent) = t.snd.next_retransmit(t.now, 30_000, &mut t.counters) {
                verify(&sent);
                out.push(sent.range);
            }
            loop {
                let len = t.snd.room(t.now).min(30_000).min(1 + TOTAL - t.snd.nxt());
                if len == 0 {
                    break;
                }
                let start = t.send_bytes(len, false);
                out.push(start..start + len);
            }
            check(&t.snd);
            for range in out {
                let mut at = range.start;
                while at < range.end {
                    let end = (at + MSS).min(range.end);
                    order += 1;
                    if !random.one_in(loss) {
                        let delay = Duration::from_micros(10_000 + random.below(jitter));
                        wire.push((t.now + delay, order, Packet::Data { range: at..end }));
                    }
                    at = end;
                }
            }
            wire.sort_by_key(|(at, order, _)| core::cmp::Reverse((*at, *order)));
            let deadline = t.snd.deadline().expect("unacknowledged data has a timer");
            if wire.last().is_none_or(|(at, ..)| *at > deadline) {
                t.now = t.now.max(deadline);
                if t.on_timer() == Some(Fired::Probe) && (t.snd.nxt() > TOTAL || t.snd.room(t.now) == 0) {
                    let probe = t.snd.send_probe(t.now).expect("something is outstanding");
                    order += 1;
                    wire.push((t.now + ms(10), order, Packet::Data { range: probe.range }));
                }
                check(&t.snd);
                assert!(t.now < limit, "una {} of {TOTAL}", t.snd.una());
                continue;
            }
            let (at, _, packet) = wire.pop().expect("there is one");
            t.now = at;
            match packet {
                Packet::Data { range } => {
                    let duplicate = receiver.take(&range);
                    let mut blocks: Vec<Range<u64>> = duplicate.into_iter().collect();
                    let mut others: Vec<Range<u64>> = receiver.got[1..].to_vec();
                    others.sort_by_key(|block| !(block.start <= range.start && range.end <= block.end));
                    blocks.extend(others);
                    blocks.truncate(3);
                    order += 1;
                    if !random.one_in(loss) {
                        let sack = if sack { blocks } else { Vec::new() };
                        wire.push((t.now + ms(10), order, Packet::Ack { ack: receiver.ack(), sack }));
                    }
                }
                Packet::Ack { ack, sack } => {
                    let sack: Vec<(u64, u64)> = sack.iter().map(|block| (block.start, block.end)).collect();
                    t.ack_positions(ack, &sack);
                }
            }
        }
        assert!(t.snd.everything_acked());
    });
}
