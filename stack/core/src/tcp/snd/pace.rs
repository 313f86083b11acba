//! Pacing: how much goes at once, and when the next may go.
//!
//! Super-segments of a millisecond's worth, so that a timer has something to do no more than a thousand times a second,
//! and departure times one behind the other (draft-ietf-ccwg-bbr §5.6.2 and §5.6.3; Linux: `tcp_tso_autosize`,
//! `tcp_update_pacing_rate`). The size is the same for who is not paced; such a sender never sets a departure time.

use core::time::Duration;

use anabranch_frame::Instant;

use super::{Snd, rate};
use crate::cc::CongestionControl;
use crate::config::PacingConfig;

/// Below this rate, 1.2 Mbit/s, segments go one by one.
const SLOW: u64 = 150_000;
/// So much of a departure that came late is made up for: what a timer wheel and a busy machine are late by. What is more
/// was idleness.
const LATENESS: Duration = Duration::from_micros(500);

/// What a socket wants of pacing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pacing {
    /// Pace what congestion control leaves to the window, too.
    pub(crate) always: bool,
    /// Never faster than this many bytes per second (`SO_MAX_PACING_RATE`).
    pub(crate) max_rate: Option<u64>,
}

/// The pace of a sender.
#[derive(Debug, Default)]
pub(super) struct Pace {
    socket: Pacing,
    /// Bytes per second at which it is paced, or would be; `None` while no round trip is known.
    rate: Option<u64>,
    /// It is paced.
    on: bool,
    /// Nothing is sent before.
    next: Instant,
    /// When to look again.
    timer: Option<Instant>,
}

impl Pace {
    /// What the socket wants.
    pub(super) fn socket(&self) -> Pacing {
        self.socket
    }

    /// Whether it is not yet time to send.
    pub(super) fn holds(&self, now: Instant) -> bool {
        now < self.next
    }

    /// `bytes` are sent.
    pub(super) fn on_sent(&mut self, now: Instant, bytes: u64) {
        let Some(rate) = self.rate.filter(|_| self.on) else { return };
        let takes = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate.max(1));
        self.next = self.next.max(now - LATENESS) + takes;
        self.timer = Some(self.next).filter(|&next| next > now);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timer
    }

    pub(super) fn on_timer(&mut self, now: Instant) {
        self.timer = self.timer.filter(|&at| at > now);
    }

    /// Most bytes that go at once, of the `most` that a device takes: what the rate makes in about a millisecond. Near peers
    /// get more, half as much less for each 512 µs of the round trip, unless departures are timed: it would be a burst then
    /// (Linux: `tcp_tso_autosize`, `tcp_min_tso_segs`, `tcp_tso_rtt_log`).
    fn quantum(&self, mss: u64, most: u64, min_rtt: Duration, config: &PacingConfig) -> u64 {
        let Some(rate) = self.rate else { return most };
        let halvings = u32::try_from(min_rtt.as_micros() >> config.tso_rtt_log).unwrap_or(u32::MAX);
        let near = if self.on || config.tso_rtt_log == 0 { 0 } else { most.checked_shr(halvings).unwrap_or(0) };
        let segments = if self.on && rate < SLOW { 1 } else { u64::from(config.min_tso_segs.max(1)) };
        ((rate >> 10) + near).max(segments * mss)
    }
}

impl Snd {
    /// What the socket wants of pacing, from now on.
    pub(crate) fn set_pacing(&mut self, socket: Pacing) {
        let on = socket.always || socket.max_rate.is_some() || self.cc.pacing_rate().is_some();
        if on {
            self.pace.socket = socket;
            self.pace.on = true;
        } else {
            self.pace = Pace::default();
        }
        self.repace();
    }

    /// Whether pacing holds back what there is to send.
    pub(crate) fn paced_out(&self, now: Instant) -> bool {
        self.pace.holds(now)
    }

    /// Most payload bytes that go at once, of the `most` that the device takes; whole segments. Never more than half of the
    /// window: two are under way at least (Linux: `tcp_cwnd_test`).
    pub(crate) fn quantum(&self, now: Instant, most: u64) -> u64 {
        self.whole(self.pace_quantum(most).min(self.window_after_idle(now, self.cc.cwnd()) / 2))
    }

    /// The same for what goes once more, without the latter (Linux: `tcp_xmit_retransmit_queue`).
    pub(crate) fn quantum_again(&self, most: u64) -> u64 {
        self.whole(self.pace_quantum(most))
    }

    fn pace_quantum(&self, most: u64) -> u64 {
        self.pace.quantum(self.mss, most, self.rtt.min(), &self.rules.pacing).min(most)
    }

    fn whole(&self, bytes: u64) -> u64 {
        (bytes / self.mss).max(1) * self.mss
    }

    /// Window or model changed: the pace follows.
    pub(super) fn repace(&mut self) {
        let wanted = self.cc.pacing_rate().or_else(|| self.rate_of_window());
        let most = self.pace.socket.max_rate;
        self.pace.rate = match (wanted, most) {
            (Some(wanted), Some(most)) => Some(wanted.min(most)),
            (wanted, most) => wanted.or(most),
        };
    }

    fn rate_of_window(&self) -> Option<u64> {
        Some(rate_of_window(self.cc.as_ref(), self.board.outstanding(), self.rtt.srtt()?, &self.rules.pacing))
    }

    /// The rate it is paced at, or would be, in bytes per second; 0 while the round-trip time is unknown.
    pub(crate) fn pacing_rate_estimate(&self) -> u64 {
        self.pace.rate.or_else(|| self.rate_of_window()).unwrap_or(0)
    }
}

/// The window in a round-trip time, and room to grow: twice as much in slow start, until it comes near the threshold, and
/// a fifth more afterwards (Linux: `tcp_pacing_ss_ratio`, `tcp_pacing_ca_ratio`).
pub(super) fn rate_of_window(
    cc: &dyn CongestionControl,
    outstanding: u64,
    srtt: Duration,
    config: &PacingConfig,
) -> u64 {
    let cwnd = cc.cwnd();
    let rate = rate::per_second(cwnd.max(outstanding), srtt);
    let doubles = cwnd < cc.ssthresh() / 2;
    let percent = if doubles { config.pacing_ss_ratio } else { config.pacing_ca_ratio };
    rate.saturating_mul(percent.min(1000).into()) / 100
}
