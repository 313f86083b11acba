//! Traces of one sender in virtual time: segments are numbered from 0, the first data byte is position 1.

mod basics;
mod frto;
mod loss;
mod newreno;
mod pace;
mod probe;
mod random;
mod timeout;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;
use std::sync::Mutex;

use anabranch_frame::{Instant, Payload, Slices};

use super::{AckIn, AckOut, Fired, Pacing, Retransmit, Snd, SndConfig, TxMapping};
use crate::Counters;
use crate::cc::{AckSample, CongestionControl, Group, Loss};
use crate::config::{PacingConfig, Recovery};

const MSS: u64 = 1000;

/// What loss recovery told congestion control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Congestion,
    Rto { first: bool },
    Spurious,
    Idle,
    AppLimited(u64),
}

/// A window that nothing but losses changes: halved by congestion, one segment after a timeout (growing back by what is
/// delivered), restored by an undo.
#[derive(Debug)]
struct Fixed {
    cwnd: u64,
    ssthresh: u64,
    before: u64,
    told: Arc<Mutex<Vec<Told>>>,
    samples: Arc<Mutex<Vec<AckSample>>>,
    losses: Arc<Mutex<Vec<Loss>>>,
}

impl CongestionControl for Fixed {
    fn name(&self) -> &'static str {
        "fixed"
    }
    fn set_mss(&mut self, _: u64) {}
    fn on_ack(&mut self, sample: &AckSample, _: Group<'_>) {
        self.samples.lock().unwrap().push(*sample);
        if !sample.in_recovery && !sample.disordered && self.cwnd < self.ssthresh && self.ssthresh < u64::MAX {
            self.cwnd = (self.cwnd + sample.delivered).min(self.ssthresh);
        }
    }
    fn on_lost(&mut self, loss: &Loss) {
        self.losses.lock().unwrap().push(*loss);
    }
    fn on_congestion(&mut self, _: Instant, _: u64, _: Group<'_>) {
        self.told.lock().unwrap().push(Told::Congestion);
        self.before = self.cwnd;
        self.cwnd = (self.cwnd / 2).max(2 * MSS);
        self.ssthresh = self.cwnd;
    }
    fn on_rto(&mut self, _: Instant, _: u64, first: bool) {
        self.told.lock().unwrap().push(Told::Rto { first });
        if first {
            self.before = self.cwnd;
            self.ssthresh = (self.cwnd / 2).max(2 * MSS);
        }
        self.cwnd = MSS;
    }
    fn on_spurious(&mut self, _: Instant) {
        self.told.lock().unwrap().push(Told::Spurious);
        self.cwnd = self.before;
        self.ssthresh = u64::MAX;
    }
    fn on_idle(&mut self, _: Instant, _: Duration, _: Duration) {
        self.told.lock().unwrap().push(Told::Idle);
    }
    fn on_app_limited(&mut self, used: u64) {
        if used.max(10 * MSS) < self.cwnd {
            self.told.lock().unwrap().push(Told::AppLimited(used));
        }
    }
    fn cwnd(&self) -> u64 {
        self.cwnd
    }
    fn ssthresh(&self) -> u64 {
        self.ssthresh
    }
}

/// Position of the first byte of segment `n`.
fn seg(n: u64) -> u64 {
    1 + n * MSS
}

fn segs(range: Range<u64>) -> Range<u64> {
    seg(range.start)..seg(range.end)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The byte at a position, so that every retransmission can be checked.
fn byte_at(position: u64) -> u8 {
    (position.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn bytes(range: Range<u64>) -> Payload {
    Payload::from(range.map(byte_at).collect::<Vec<u8>>())
}

/// The `consecutive`th timeout.
fn rto(consecutive: u32) -> Option<Fired> {
    Some(Fired::Rto { consecutive })
}

struct Trace {
    snd: Snd,
    counters: Counters,
    now: Instant,
    told: Arc<Mutex<Vec<Told>>>,
    samples: Arc<Mutex<Vec<AckSample>>>,
    losses: Arc<Mutex<Vec<Loss>>>,
    ts_rtt: Option<Duration>,
}

impl Trace {
    /// A sender with a window of `cwnd` segments, the peer's window wide open and a round-trip time of 100 ms.
    fn new(cwnd: u64) -> Self {
        Self::with(cwnd, true)
    }

    fn with(cwnd: u64, sack: bool) -> Self {
        Self::configured(cwnd, sack, true, Recovery::default())
    }

    /// Without timestamps.
    fn plain(cwnd: u64) -> Self {
        Self::configured(cwnd, true, false, Recovery::default())
    }

    fn configured(cwnd: u64, sack: bool, timestamps: bool, recovery: Recovery) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let samples = Arc::new(Mutex::new(Vec::new()));
        let losses = Arc::new(Mutex::new(Vec::new()));
        let cwnd = cwnd * MSS;
        let cc = Box::new(Fixed {
            cwnd,
            ssthresh: u64::MAX,
            before: cwnd,
            told: told.clone(),
            samples: samples.clone(),
            losses: losses.clone(),
        });
        let now = Instant::from_millis(1_000);
        let mut snd = Snd::new(
            now,
            SndConfig {
                mss: MSS as u16,
                sack,
                timestamps,
                cc,
                pacing: Pacing::default(),
                recovery,
                sizes: PacingConfig::default(),
            },
        );
        snd.seed_rtt(ms(100));
        snd.set_right_edge(1 + (1 << 30));
        snd.set_drained(false);
        Self { snd, counters: Counters::default(), now, told, samples, losses, ts_rtt: None }
    }

    fn after(&mut self, millis: u64) -> &mut Self {
        self.now += ms(millis);
        self
    }

    /// Sends one record of `bytes` bytes.
    fn send_bytes(&mut self, len: u64, fin: bool) -> u64 {
        let start = self.snd.nxt();
        let mut payload = Slices::new();
        // Uneven slices, as from a send queue.
        let mut at = start;
        while at < start + len {
            let end = (at + 700).min(start + len);
            payload.push(bytes(at..end));
            at = end;
        }
        self.snd.on_send_new(self.now, payload, None, fin)
    }

    /// Sends `n` segments, each a record of its own.
    fn send(&mut self, n: u64) -> &mut Self {
        for _ in 0..n {
            self.send_bytes(MSS, false);
        }
        self
    }

    /// Sends `n` segments as one super-segment.
    fn burst(&mut self, n: u64) -> &mut Self {
        self.send_bytes(n * MSS, false);
        self
    }

    /// A pure ACK up to segment `n`, with SACK blocks in segments.
    fn ack(&mut self, n: u64, sack: &[(u64, u64)]) -> AckOut {
        let sack: Vec<(u64, u64)> = sack.iter().map(|&(start, end)| (seg(start), seg(end))).collect();
        self.ack_positions(seg(n), &sack)
    }

    fn ack_positions(&mut self, ack: u64, sack: &[(u64, u64)]) -> AckOut {
        let sack: Vec<Range<u64>> = sack.iter().map(|&(start, end)| start..end).collect();
        let ack = AckIn {
            ack,
            window: 1 << 30,
            seq: 1,
            sack: &sack,
            ts_rtt: self.ts_rtt,
            ece: false,
            pure: true,
            signal: false,
        };
        self.hear(&ack)
    }

    fn hear(&mut self, ack: &AckIn<'_>) -> AckOut {
        let me = [self.snd.sibling()];
        let out = self.snd.on_ack(self.now, ack, Group { siblings: &me, me: 0 }, &mut self.counters);
        random::check(&self.snd);
        out
    }

    /// Retransmits all that is admitted, without new data; returns the ranges in positions.
    fn resend_positions(&mut self) -> Vec<(u64, u64)> {
        self.snd.new_data_went_first();
        let mut ranges = Vec::new();
        while let Some(sent) = self.snd.next_retransmit(self.now, 65_536, &mut self.counters) {
            verify(&sent);
            random::check(&self.snd);
            ranges.push((sent.range.start, sent.range.end));
        }
        ranges
    }

    /// Retransmits all that is admitted; returns the segments.
    fn resend(&mut self) -> Vec<u64> {
        let ranges = self.resend_positions();
        ranges.into_iter().flat_map(|(start, end)| (start - 1) / MSS..(end - 1).div_ceil(MSS)).collect()
    }

    /// Sleeps until the next deadline.
    fn fire(&mut self) -> Option<Fired> {
        self.now = self.snd.deadline().expect("a timer is armed");
        self.on_timer()
    }

    fn on_timer(&mut self) -> Option<Fired> {
        let me = [self.snd.sibling()];
        let fired = self.snd.on_timer(self.now, false, Group { siblings: &me, me: 0 }, &mut self.counters);
        random::check(&self.snd);
        fired
    }

    fn told(&self) -> Vec<Told> {
        core::mem::take(&mut *self.told.lock().unwrap())
    }

    fn room(&self) -> u64 {
        self.snd.room(self.now) / MSS
    }

    fn in_flight(&self) -> u64 {
        self.snd.in_flight() / MSS
    }
}

/// What is sent again is what was sent.
fn verify(sent: &Retransmit) {
    let payload: Vec<u8> = sent.payload.iter().flat_map(|slice| slice.iter().copied()).collect();
    let end = sent.range.end - u64::from(sent.fin);
    assert_eq!(payload, (sent.range.start..end).map(byte_at).collect::<Vec<u8>>());
}
