//! Round-trip times and the retransmission timeout (RFC 6298, with the bounds that Linux uses).

use core::time::Duration;

use anabranch_frame::Instant;

use crate::config::Recovery;

/// The timeout after a handshake that measured nothing, because its SYN was sent again (RFC 6298 §5.7).
const RTO_FALLBACK: Duration = Duration::from_secs(3);
/// A smallest round-trip time is forgotten after this, as in Linux (`tcp_min_rtt_wlen`).
const MIN_WINDOW: Duration = Duration::from_secs(300);
/// A largest one sooner: queues come and go.
const MAX_WINDOW: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Rtt {
    srtt: Option<Duration>,
    /// Mean deviation, RTTVAR of RFC 6298.
    mdev: Duration,
    /// The largest `mdev` in this round trip: with many samples in each, `mdev` itself forgets too fast.
    mdev_max: Duration,
    /// What the timeout is made of: follows `mdev_max` up at once and down by a quarter each round trip.
    spread: Duration,
    /// The round trip ends when this position is acknowledged.
    round_end: u64,
    min: Option<Windowed>,
    max: Option<Windowed>,
    backoff: u32,
    /// Least allowance for variation: the timeout is never less than the smoothed round-trip time and this.
    shortest: Duration,
    /// Upper bound, back-off included, and what it goes back to.
    longest: Duration,
    most: Duration,
}

/// What is kept of the round-trip times of a subflow at rest, in nanoseconds. Runners-up of the extremes are not.
#[derive(Debug)]
pub(super) struct RestingRtt {
    /// 0 before the first sample.
    srtt: u64,
    mdev: u64,
    mdev_max: u64,
    spread: u64,
    round_end: u64,
    min: Option<(Instant, u64)>,
    max: Option<(Instant, u64)>,
    shortest_us: u32,
    longest_ms: u32,
    most_ms: u32,
}

impl RestingRtt {
    pub(super) fn srtt(&self) -> Duration {
        Duration::from_nanos(self.srtt)
    }

    pub(super) fn rttvar(&self) -> Duration {
        Duration::from_nanos(self.mdev)
    }

    pub(super) fn min(&self) -> Duration {
        Duration::from_nanos(self.min.map_or(0, |(_, min)| min))
    }

    fn shortest(&self) -> Duration {
        Duration::from_micros(u64::from(self.shortest_us))
    }

    pub(super) fn resume(&self) -> Rtt {
        let windowed = |(at, nanos)| Windowed { best: [(at, Duration::from_nanos(nanos)); 3] };
        Rtt {
            srtt: Some(self.srtt()).filter(|srtt| !srtt.is_zero()),
            mdev: self.rttvar(),
            mdev_max: Duration::from_nanos(self.mdev_max),
            spread: Duration::from_nanos(self.spread),
            round_end: self.round_end,
            min: self.min.map(windowed),
            max: self.max.map(windowed),
            backoff: 0,
            shortest: self.shortest(),
            longest: Duration::from_millis(u64::from(self.longest_ms)),
            most: Duration::from_millis(u64::from(self.most_ms)),
        }
    }
}

impl Rtt {
    /// What has to be kept while nothing is outstanding.
    pub(super) fn rest(&self) -> RestingRtt {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let best =
            |filter: &Option<Windowed>| filter.as_ref().map(|filter| (filter.best[0].0, nanos(filter.best[0].1)));
        RestingRtt {
            srtt: self.srtt.map_or(0, nanos),
            mdev: nanos(self.mdev),
            mdev_max: nanos(self.mdev_max),
            spread: nanos(self.spread),
            round_end: self.round_end,
            min: best(&self.min),
            max: best(&self.max),
            shortest_us: u32::try_from(self.shortest.as_micros()).unwrap_or(u32::MAX),
            longest_ms: millis(self.longest),
            most_ms: millis(self.most),
        }
    }

    pub(super) fn new(recovery: &Recovery) -> Self {
        Self {
            srtt: None,
            mdev: Duration::ZERO,
            mdev_max: Duration::ZERO,
            spread: Duration::ZERO,
            round_end: 0,
            min: None,
            max: None,
            backoff: 0,
            shortest: recovery.rto_min,
            longest: recovery.rto_max,
            most: recovery.rto_max,
        }
    }

    /// A round-trip time, measured when `una..nxt` was outstanding.
    pub(super) fn sample(&mut self, now: Instant, rtt: Duration, una: u64, nxt: u64) {
        let rtt = rtt.max(Duration::from_nanos(1));
        self.note_extremes(now, rtt);
        let floor = self.shortest / 4;
        let Some(srtt) = self.srtt else {
            self.srtt = Some(rtt);
            self.mdev = rtt / 2;
            self.mdev_max = self.mdev.max(floor);
            self.spread = self.mdev_max;
            self.round_end = nxt;
            return;
        };
        let (error, slower) = if rtt >= srtt { (rtt - srtt, true) } else { (srtt - rtt, false) };
        self.srtt = Some(if slower { srtt + error / 8 } else { srtt - error / 8 });
        if error <= self.mdev {
            self.mdev -= (self.mdev - error) / 4;
        } else {
            // A round trip that got faster says little about how late an ACK may come.
            self.mdev += (error - self.mdev) / if slower { 4 } else { 32 };
        }
        self.mdev_max = self.mdev_max.max(self.mdev);
        self.spread = self.spread.max(self.mdev_max);
        if una > self.round_end {
            self.spread -= (self.spread - self.mdev_max) / 4;
            self.mdev_max = floor;
            self.round_end = nxt;
        }
    }

    /// A round-trip time that is good for the extremes only (of the newest segment of an acknowledgement).
    pub(super) fn note_extremes(&mut self, now: Instant, rtt: Duration) {
        let rtt = rtt.max(Duration::from_nanos(1));
        update(&mut self.min, now, rtt, MIN_WINDOW, |new, old| new <= old);
        update(&mut self.max, now, rtt, MAX_WINDOW, |new, old| new >= old);
    }

    /// `None` before the first sample.
    pub(super) fn srtt(&self) -> Option<Duration> {
        self.srtt
    }

    pub(super) fn rttvar(&self) -> Duration {
        self.mdev
    }

    /// Zero before the first sample.
    pub(super) fn min(&self) -> Duration {
        self.min.as_ref().map_or(Duration::ZERO, |min| min.best[0].1)
    }

    /// Zero before the first sample.
    pub(super) fn max(&self) -> Duration {
        self.max.as_ref().map_or(Duration::ZERO, |max| max.best[0].1)
    }

    /// The timeout with its back-off.
    pub(super) fn rto(&self) -> Duration {
        let base = self.srtt.map_or(RTO_FALLBACK, |srtt| srtt + (self.spread * 4).max(self.shortest));
        base.saturating_mul(1 << self.backoff.min(20)).min(self.longest)
    }

    /// Timeouts grow no longer than this, at most as long as configured.
    pub(super) fn set_longest(&mut self, longest: Duration) {
        self.longest = longest.min(self.most);
    }

    /// Least allowance for variation.
    pub(super) fn shortest(&self) -> Duration {
        self.shortest
    }

    pub(super) fn backoff(&self) -> u32 {
        self.backoff
    }

    /// The timer fired once more without progress (RFC 6298 §5.5).
    pub(super) fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    pub(super) fn limit_backoff(&mut self, most: u32) {
        self.backoff = self.backoff.min(most);
    }

    pub(super) fn clear_backoff(&mut self) {
        self.backoff = 0;
    }
}

/// The best sample of a sliding window in constant space: the best, the best since then, and the best since that one
/// (Kathleen Nichols' filter).
#[derive(Debug)]
struct Windowed {
    best: [(Instant, Duration); 3],
}

fn update(
    filter: &mut Option<Windowed>,
    now: Instant,
    value: Duration,
    window: Duration,
    beats: fn(Duration, Duration) -> bool,
) {
    let new = (now, value);
    let Some(Windowed { best }) = filter else {
        *filter = Some(Windowed { best: [new; 3] });
        return;
    };
    if beats(value, best[0].1) || now - best[2].0 > window {
        *best = [new; 3];
        return;
    }
    if beats(value, best[1].1) {
        best[1] = new;
        best[2] = new;
    } else if beats(value, best[2].1) {
        best[2] = new;
    }
    if now - best[0].0 > window {
        // The runner-up takes over; with another one gone stale meanwhile, once more.
        *best = [best[1], best[2], new];
        if now - best[0].0 > window {
            *best = [best[1], best[2], new];
        }
    } else if best[1].0 == best[0].0 && now - best[1].0 > window / 4 {
        // No second choice for a quarter of the window: take what there is.
        best[1] = new;
        best[2] = new;
    } else if best[2].0 == best[1].0 && now - best[2].0 > window / 2 {
        best[2] = new;
    }
}
