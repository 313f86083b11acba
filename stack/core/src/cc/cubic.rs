//! CUBIC (RFC 9438), with HyStart++ (RFC 9406) in the first slow start.

use alloc::boxed::Box;
use core::time::Duration;

use anabranch_frame::Instant;

use super::hystart::{HyStart, Verdict};
use super::window::Window;
use super::{AckSample, CongestionControl, Group, Metrics};

/// RFC 9438 §5.1: how fast the window grows, in segments per cubic second.
const C: f64 = 0.4;
/// RFC 9438 §4.6: what is left of the window after a loss.
const BETA: f64 = 0.7;
/// RFC 9438 §4.3: growth of the Reno-friendly estimate, so that it is as fast as Reno in spite of `BETA`.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// One stage of congestion avoidance. Windows are segments, times seconds.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    start: Instant,
    /// Time from `start` to the plateau.
    k: f64,
    /// Window of the plateau: `W_max`, or the window at `start` if that is larger.
    plateau: f64,
    /// What Reno would have by now.
    w_est: f64,
}

impl Epoch {
    fn new(start: Instant, cwnd: f64, w_max: f64) -> Self {
        // RFC 9438 §4.2; after a timeout or HyStart++ there is no W_max: K is 0 (§4.8, §4.10).
        let k = libm::cbrt((w_max - cwnd).max(0.0) / C);
        Self { start, k, plateau: w_max.max(cwnd), w_est: cwnd }
    }

    /// `W_cubic(t)`, RFC 9438 equation 1.
    fn w_cubic(&self, t: f64) -> f64 {
        let dt = t - self.k;
        C * dt * dt * dt + self.plateau
    }
}

/// What a spurious reduction must be able to restore (RFC 9438 §4.9).
#[derive(Clone, Copy, Debug)]
struct State {
    window: Window,
    /// Window before the last reduction, after fast convergence, in bytes; 0 if there is none.
    w_max: u64,
    /// Window before the last reduction, in bytes.
    cwnd_prior: u64,
    epoch: Option<Epoch>,
}

/// CUBIC: the window as a cubic function of the time since the last loss.
#[derive(Debug)]
pub struct Cubic {
    state: State,
    /// Most connections never lose anything: it is there from the first reduction on.
    undo: Option<Box<State>>,
    undo_due: bool,
    hystart: HyStart,
    /// Growth not yet made a whole byte.
    credit: f64,
    /// Time of the last acknowledgement, or of the return from idleness.
    last_ack: Instant,
}

impl Cubic {
    /// An initial window of segments of `mss` bytes.
    #[must_use]
    pub fn new(mss: u64) -> Self {
        Self {
            state: State { window: Window::new(mss), w_max: 0, cwnd_prior: 0, epoch: None },
            undo: None,
            undo_due: false,
            hystart: HyStart::default(),
            credit: 0.0,
            last_ack: Instant::ZERO,
        }
    }

    /// Slow start; returns the bytes that are left for congestion avoidance.
    fn slow_start(&mut self, sample: &AckSample) -> u64 {
        // HyStart++ watches the first slow start only, but all of it (RFC 9406 §4.3).
        let first = self.state.window.ssthresh == u64::MAX;
        let window = &mut self.state.window;
        let verdict = if first { self.hystart.on_ack(sample, window) } else { Verdict::Grow(sample.delivered) };
        match verdict {
            Verdict::Grow(bytes) if sample.cwnd_limited && !sample.disordered => window.slow_start(bytes),
            Verdict::Grow(_) => 0,
            Verdict::Leave => {
                window.ssthresh = window.cwnd;
                sample.delivered
            }
        }
    }

    /// Congestion avoidance, `bytes` delivered (RFC 9438 §4.2 to §4.5).
    fn avoid(&mut self, sample: &AckSample, bytes: u64) {
        let State { window, w_max, cwnd_prior, epoch } = &mut self.state;
        let mss = window.mss as f64;
        let cwnd = window.cwnd as f64 / mss;
        let acked = bytes as f64 / mss;
        let epoch = epoch.get_or_insert_with(|| Epoch::new(sample.now, cwnd, *w_max as f64 / mss));

        let alpha = if epoch.w_est >= *cwnd_prior as f64 / mss { 1.0 } else { ALPHA };
        epoch.w_est += alpha * acked / cwnd;

        let t = sample.now.saturating_since(epoch.start);
        let growth = if epoch.w_cubic(t.as_secs_f64()) < epoch.w_est {
            epoch.w_est - cwnd
        } else {
            let target = epoch.w_cubic((t + sample.srtt).as_secs_f64()).clamp(cwnd, 1.5 * cwnd);
            (target - cwnd) / cwnd * acked
        };
        // Half the bytes at most is what the bound on `target` means for one acknowledgement.
        self.credit += (growth * mss).clamp(0.0, bytes as f64 / 2.0);
        let whole = self.credit as u64;
        self.credit -= whole as f64;
        window.grow(whole);
    }

    /// Sets the threshold and `W_max` for a loss at this window (RFC 9438 §4.6, §4.7).
    fn reduce(&mut self) {
        match &mut self.undo {
            Some(undo) => **undo = self.state,
            none => *none = Some(Box::new(self.state)),
        }
        self.undo_due = true;
        let State { window, w_max, cwnd_prior, epoch } = &mut self.state;
        let cwnd = window.cwnd;
        // Fast convergence: a flow that lost before it came back to its plateau makes room.
        *w_max = if cwnd < *w_max { (cwnd as f64 * (1.0 + BETA) / 2.0) as u64 } else { cwnd };
        *cwnd_prior = cwnd;
        *epoch = None;
        window.reduce_to((cwnd as f64 * BETA) as u64);
        self.credit = 0.0;
    }

    /// Takes the time since the last acknowledgement out of the epoch: nobody used the window, so
    /// the cubic function must not go on (RFC 9438 §5.8).
    fn stop_the_clock(&mut self, now: Instant) {
        let unused = now.saturating_since(self.last_ack);
        if let Some(epoch) = &mut self.state.epoch {
            epoch.start = (epoch.start + unused).min(now);
        }
    }
}

impl CongestionControl for Cubic {
    fn name(&self) -> &'static str {
        "cubic"
    }

    fn set_mss(&mut self, mss: u64) {
        self.state.window.set_mss(mss);
        // The epoch counts in segments of the old size.
        self.state.epoch = None;
    }

    fn adopt(&mut self, before: Metrics) {
        self.state.window.adopt(before);
    }

    fn on_ack(&mut self, sample: &AckSample, _: Group<'_>) {
        if !sample.cwnd_limited {
            self.stop_the_clock(sample.now);
        }
        self.last_ack = sample.now;
        if sample.in_recovery {
            return;
        }
        let bytes = if self.in_slow_start() { self.slow_start(sample) } else { sample.delivered };
        if bytes > 0 && sample.cwnd_limited && !sample.disordered {
            self.avoid(sample, bytes);
        }
    }

    fn on_congestion(&mut self, _: Instant, _: u64, _: Group<'_>) {
        self.reduce();
    }

    fn on_rto(&mut self, _: Instant, in_flight: u64, first: bool) {
        if first {
            self.reduce();
        }
        self.state.window.collapse(in_flight);
        self.state.w_max = 0;
    }

    fn on_spurious(&mut self, _: Instant) {
        if let Some(before) = &self.undo
            && core::mem::take(&mut self.undo_due)
        {
            let Window { cwnd, ssthresh, mss } = self.state.window;
            self.state = **before;
            let window = &mut self.state.window;
            window.cwnd = window.cwnd.max(cwnd);
            // An unset threshold after a timeout that was none: slow start goes on.
            window.ssthresh = window.ssthresh.max(ssthresh);
            window.mss = mss;
        }
    }

    fn on_idle(&mut self, now: Instant, rto: Duration, idle: Duration) {
        self.stop_the_clock(now);
        self.last_ack = now;
        self.state.window.restart(rto, idle);
    }

    fn on_app_limited(&mut self, used: u64) {
        self.state.window.come_down_to(used);
    }

    fn penalise(&mut self, _: Instant) {
        self.state.window.penalise();
        self.state.epoch = None;
    }

    fn cwnd(&self) -> u64 {
        self.state.window.cwnd
    }

    fn ssthresh(&self) -> u64 {
        self.state.window.ssthresh
    }
}
