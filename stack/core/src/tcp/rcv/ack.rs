//! When data is acknowledged: at once, with the next data that goes the other way, or after a while.
//!
//! RFC 9293 §3.8.6.3 and RFC 5681 §4.2 leave room: no later than half a second, at least every second full segment, at
//! once out of order. Within that a receiver guesses what the sender needs, and this one guesses as Linux does:
//!
//! * A connection that begins, or comes out of idleness, has a sender in slow start: everything is acknowledged at once
//!   (*quick*), up to sixteen times, and so is every segment that finds the window larger than all that came before it
//!   has earned, two segments of it each.
//! * One on which we answer soon after something came is *interactive* (Linux: pingpong mode): acknowledgements wait for
//!   the answer to carry them.
//! * Otherwise an acknowledgement waits about as long as the next segment takes to come, 40 ms to 200 ms.
//! * Behind a hole each segment deserves a SACK, but a burst of them can do with one: after three they are *compressed*,
//!   for a twentieth of a round trip and at most a millisecond (Linux: `tcp_comp_sack_delay_ns`, `tcp_comp_sack_nr`).

use core::time::Duration;

use anabranch_frame::Instant;

/// Segments that are acknowledged at once when a connection begins or comes out of idle (Linux: `TCP_MAX_QUICKACKS`).
const QUICK_MAX: u64 = 16;
/// Least time that an acknowledgement is expected to wait for the next segment (Linux: `TCP_ATO_MIN`), in milliseconds.
const DELAY_MIN: u32 = 40;
/// A window that nobody has to earn (Linux: `rcv_ssthresh` begins with it), and the shortest segment that earns some.
const WINDOW_BEGIN: u32 = 65_535;
const EARNING_LEAST: u64 = 128;
/// A peer's MSS as long as nothing is known (RFC 9293 §3.7.1), and the least that it is taken for.
const SEGMENT_MIN: u64 = 536;
const SEGMENT_LEAST: u64 = 88;
/// No acknowledgement waits longer (Linux: `TCP_DELACK_MAX`).
const DELAY_MAX: Duration = Duration::from_millis(200);
/// Duplicate acknowledgements that go at once: the sender counts three (Linux: `TCP_FASTRETRANS_THRESH`).
const DUPLICATES: u8 = 3;
/// Most SACKs that are put together (`tcp_comp_sack_nr`), and for how long at most (`tcp_comp_sack_delay_ns`).
const COMPRESSED_MAX: u16 = 44;
const COMPRESSED_DELAY: Duration = Duration::from_millis(1);

/// When the next acknowledgement is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum AckDue {
    /// Nothing to acknowledge.
    #[default]
    Idle,
    /// At this time, unless something carries it before.
    Delayed(Instant),
    /// At this time, because SACKs are put together.
    Compressed(Instant),
    /// Now.
    Now,
}

/// What came, as far as it matters for when to acknowledge it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// Payload bytes, and those of one segment of it.
    pub(crate) len: u64,
    pub(crate) segment: u64,
    /// It ended with PSH.
    pub(crate) push: bool,
    /// The peer understands SACK.
    pub(crate) sack: bool,
    /// Round-trip time, as far as it is known, and the retransmission timeout.
    pub(crate) rtt: Duration,
    pub(crate) rto: Duration,
}

/// Where the receiving half stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) nxt: u64,
    /// Bytes in order since the last acknowledgement.
    pub(super) unacked: u64,
    /// Something is missing.
    pub(super) holes: bool,
    /// Something was missing before.
    pub(super) had_holes: bool,
}

/// What decides when acknowledgements go.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckPolicy {
    due: AckDue,
    quick: u8,
    interactive: bool,
    /// How much of a window the segments that came have earned.
    earned: u32,
    /// Segments since the last acknowledgement, at most two, behind which the sender had no more: short ones, or with PSH.
    pushed: u8,
    /// How long an acknowledgement waits, in milliseconds; zero before there was data (Linux: `ato`).
    delay: u32,
    /// When data came last, or the connection began.
    last_data: Instant,
    /// An estimate of the peer's MSS, and the length of the last segment that was shorter.
    segment: u64,
    shorter: u64,
    compressed: u16,
    duplicates: u8,
    /// The duplicates are for this position.
    duplicates_of: u64,
}

/// What is remembered while nothing is to be acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct RestingAckPolicy {
    pub(super) last_data: Instant,
    delay: u32,
    pub(super) segment: u16,
    shorter: u16,
    quick: u8,
    pub(super) interactive: bool,
    earned: u32,
}

impl RestingAckPolicy {
    pub(super) fn resume(self) -> AckPolicy {
        let Self { last_data, delay, segment, shorter, quick, interactive, earned } = self;
        let (segment, shorter) = (u64::from(segment), u64::from(shorter));
        AckPolicy { last_data, segment, shorter, delay, quick, interactive, earned, ..AckPolicy::new(last_data) }
    }

    pub(super) fn delay(self) -> Duration {
        Duration::from_millis(self.delay.into())
    }
}

impl AckPolicy {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            due: AckDue::Idle,
            quick: 0,
            interactive: false,
            earned: WINDOW_BEGIN,
            pushed: 0,
            delay: 0,
            last_data: now,
            segment: SEGMENT_MIN,
            shorter: 0,
            compressed: 0,
            duplicates: 0,
            duplicates_of: 0,
        }
    }

    pub(super) fn rest(&self) -> RestingAckPolicy {
        RestingAckPolicy {
            last_data: self.last_data,
            segment: self.segment as u16,
            shorter: self.shorter as u16,
            delay: self.delay,
            quick: self.quick,
            interactive: self.interactive,
            earned: self.earned,
        }
    }

    pub(super) fn due(&self) -> AckDue {
        self.due
    }

    pub(super) fn ack_now(&mut self) {
        self.due = AckDue::Now;
    }

    pub(super) fn segment(&self) -> u64 {
        self.segment
    }

    pub(super) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay.into())
    }

    pub(super) fn last_data(&self) -> Instant {
        self.last_data
    }

    pub(super) fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// The application's word (`TCP_QUICKACK`), until the connection shows otherwise.
    pub(super) fn set_quickack(&mut self, quickack: bool, window: u64) {
        self.interactive = !quickack;
        if quickack {
            self.begin_quick(window);
            if self.due != AckDue::Idle {
                self.due = AckDue::Now;
            }
        }
    }

    /// The sender needs to hear soon: the next `count` segments are acknowledged at once.
    pub(super) fn hurry(&mut self, count: u8) {
        self.quick = self.quick.max(count);
        self.interactive = false;
        self.delay = DELAY_MIN;
    }

    /// Data will go at once that can carry the acknowledgement, which is what an answer is, too (Linux: `sk_write_pending`).
    pub(super) fn wait_for_data(&mut self, now: Instant) {
        self.hurry(QUICK_MAX as u8);
        self.due = AckDue::Delayed(now + DELAY_MAX);
    }

    /// As many as half the window has segments (Linux: `tcp_incr_quickack`).
    fn begin_quick(&mut self, window: u64) {
        let quick = (window / (2 * self.segment.max(1))).clamp(2, QUICK_MAX) as u8;
        self.quick = self.quick.max(quick);
    }

    /// Data came; decides when to acknowledge it. Returns whether a SACK is put together with others.
    pub(super) fn on_data(&mut self, now: Instant, arrival: &Arrival, standing: Standing, window: u64) -> bool {
        self.measure(arrival);
        self.expect(now, arrival, window);
        self.earn(arrival, window);
        let Standing { nxt, unacked, holes, had_holes } = standing;
        let quick = self.quick > 0 && !self.interactive;
        if self.due == AckDue::Now || unacked > self.segment || quick || (had_holes && !holes) {
            // More than a full segment, or a hole that was filled (RFC 5681 §4.2).
            self.due = AckDue::Now;
        } else if holes {
            return self.compress(now, nxt, arrival);
        } else if self.due == AckDue::Idle {
            self.due = AckDue::Delayed(now + self.wait(arrival.rtt));
        }
        false
    }

    /// The largest segment is likely a full one, and so is one of two in a row of the same length (Linux:
    /// `tcp_measure_rcv_mss`).
    fn measure(&mut self, arrival: &Arrival) {
        let segment = arrival.segment.min(arrival.len).min(u64::from(u16::MAX));
        if segment >= self.segment {
            self.segment = segment;
            self.pushed = self.pushed.max(arrival.push.into());
            return;
        }
        let likely = segment >= SEGMENT_MIN || !arrival.push;
        if likely && core::mem::replace(&mut self.shorter, segment) == segment {
            self.segment = segment.max(SEGMENT_LEAST);
            return;
        }
        self.pushed = (self.pushed + 1).min(2);
    }

    /// How long to wait for the next segment follows from how long this one took to come (Linux: `tcp_event_data_recv`).
    fn expect(&mut self, now: Instant, arrival: &Arrival, window: u64) {
        let gap = now.saturating_since(core::mem::replace(&mut self.last_data, now)).as_millis();
        let gap = u32::try_from(gap).unwrap_or(u32::MAX);
        let rto = arrival.rto.as_millis() as u32;
        if self.delay == 0 {
            // The first data.
            self.begin_quick(window);
            self.delay = DELAY_MIN;
        } else if gap <= DELAY_MIN / 2 {
            self.delay = self.delay / 2 + DELAY_MIN / 2;
        } else if gap < self.delay {
            self.delay = (self.delay / 2 + gap).min(rto);
        } else if gap > rto {
            // So long a gap means that the sender starts anew.
            self.begin_quick(window);
        }
    }

    /// A window that grows has a sender whose window does: it hears of every segment (Linux: `tcp_grow_window`). Its
    /// HyStart needs acknowledgements without a pause to see that the pipe is full.
    fn earn(&mut self, arrival: &Arrival, window: u64) {
        if arrival.len >= EARNING_LEAST && u64::from(self.earned) < window {
            let more = 2 * arrival.len.max(self.segment);
            self.earned = (u64::from(self.earned) + more).min(window) as u32;
            self.quick = self.quick.max(1);
        }
    }

    fn wait(&self, rtt: Duration) -> Duration {
        let longest = if rtt.is_zero() { DELAY_MAX } else { rtt.max(Duration::from_millis(DELAY_MIN.into())) };
        self.delay().min(longest).min(DELAY_MAX)
    }

    /// One more segment behind a hole.
    fn compress(&mut self, now: Instant, nxt: u64, arrival: &Arrival) -> bool {
        if self.duplicates_of != nxt {
            (self.duplicates_of, self.duplicates) = (nxt, 0);
        }
        if !arrival.sack || self.duplicates < DUPLICATES || self.compressed >= COMPRESSED_MAX {
            self.duplicates = self.duplicates.saturating_add(1);
            self.due = AckDue::Now;
            return false;
        }
        self.compressed += 1;
        let waits = matches!(self.due, AckDue::Compressed(_));
        if !waits {
            self.due = AckDue::Compressed(now + COMPRESSED_DELAY.min(arrival.rtt / 20));
        }
        waits
    }

    /// The application has read everything. What came with PSH, on a connection that is not interactive, is acknowledged
    /// then: nothing will carry it (Linux: `tcp_cleanup_rbuf`).
    pub(super) fn on_read_all(&mut self) {
        let hurry = self.pushed > 1 || (self.pushed > 0 && !self.interactive);
        if matches!(self.due, AckDue::Delayed(_)) && hurry {
            self.due = AckDue::Now;
        }
    }

    /// Time passed. Returns whether a delayed acknowledgement is due now.
    pub(super) fn on_timer(&mut self, now: Instant, rto: Duration) -> bool {
        match self.due {
            AckDue::Delayed(at) if at <= now => {
                if core::mem::take(&mut self.interactive) {
                    // The answer that was waited for did not come.
                    self.delay = DELAY_MIN;
                } else {
                    self.delay = (self.delay * 2).min(rto.as_millis() as u32);
                }
                self.due = AckDue::Now;
                true
            }
            AckDue::Compressed(at) if at <= now => {
                self.due = AckDue::Now;
                false
            }
            _ => false,
        }
    }

    /// We sent data: an answer, if something came a short while ago.
    pub(super) fn on_data_sent(&mut self, now: Instant) {
        self.interactive |= now.saturating_since(self.last_data) < self.delay();
    }

    /// A segment with an acknowledgement went out.
    pub(super) fn on_ack_sent(&mut self) {
        if self.due != AckDue::Idle {
            self.quick = self.quick.saturating_sub(1);
        }
        self.due = AckDue::Idle;
        self.pushed = 0;
        self.compressed = 0;
    }
}
