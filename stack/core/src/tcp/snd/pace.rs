//! Pacing: how much goes at once, and when the next may go.
//!
//! Super-segments of a millisecond's worth, so that a timer has something to do no more than a thousand times a second,
//! and departure times one behind the other (draft-ietf-ccwg-bbr §5.6.2 and §5.6.3; Linux: `tcp_tso_autosize`,
//! `tcp_update_pacing_rate`). A sender that is not paced never sets a departure time, so it costs a comparison.

use core::time::Duration;

use anabranch_frame::Instant;

use super::{Snd, rate};
use crate::cc::CongestionControl;

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
    /// Bytes per second; `None` if nothing is held back, or not yet.
    rate: Option<u64>,
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
        let Some(rate) = self.rate else { return };
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

    /// Most bytes that go at once.
    fn quantum(&self, mss: u64) -> u64 {
        let Some(rate) = self.rate else { return u64::MAX };
        let segments = if rate < SLOW { 1 } else { 2 };
        (rate / 1000).max(segments * mss)
    }
}

impl Snd {
    /// What the socket wants of pacing, from now on.
    pub(crate) fn set_pacing(&mut self, socket: Pacing) {
        let on = socket.always || socket.max_rate.is_some() || self.cc.pacing_rate().is_some();
        if on {
            self.pace.socket = socket;
            self.pace.on = true;
            self.repace();
        } else {
            self.pace = Pace::default();
        }
    }

    /// Whether pacing holds back what there is to send.
    pub(crate) fn paced_out(&self, now: Instant) -> bool {
        self.pace.holds(now)
    }

    /// Most bytes that go at once.
    pub(crate) fn pace_quantum(&self) -> u64 {
        self.pace.quantum(self.mss)
    }

    /// Window or model changed: the pace follows.
    pub(super) fn repace(&mut self) {
        if !self.pace.on {
            return;
        }
        let wanted = self.cc.pacing_rate().or_else(|| self.rate_of_window());
        let most = self.pace.socket.max_rate;
        self.pace.rate = match (wanted, most) {
            (Some(wanted), Some(most)) => Some(wanted.min(most)),
            (wanted, most) => wanted.or(most),
        };
    }

    fn rate_of_window(&self) -> Option<u64> {
        Some(rate_of_window(self.cc.as_ref(), self.in_flight(), self.rtt.srtt()?))
    }

    /// The rate it is paced at, or would be, in bytes per second; 0 while the round-trip time is unknown.
    pub(crate) fn pacing_rate_estimate(&self) -> u64 {
        self.pace.rate.or_else(|| self.rate_of_window()).unwrap_or(0)
    }
}

/// The window in a round-trip time, and room to grow: twice as much in slow start, until it comes near the threshold, and
/// a fifth more afterwards (Linux: `tcp_pacing_ss_ratio`, `tcp_pacing_ca_ratio`).
pub(super) fn rate_of_window(cc: &dyn CongestionControl, in_flight: u64, srtt: Duration) -> u64 {
    let cwnd = cc.cwnd();
    let rate = rate::per_second(cwnd.max(in_flight), srtt);
    let doubles = cwnd < cc.ssthresh() / 2;
    if doubles { rate.saturating_mul(2) } else { rate.saturating_add(rate / 5) }
}
