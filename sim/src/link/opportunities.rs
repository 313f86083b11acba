use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use anabranch_frame::Instant;

/// Bytes that may leave at one opportunity.
const BYTES: usize = 1500;

/// Longest trace, in opportunities: ten minutes at 1.2 Gbit/s.
const MOST: usize = 60_000_000;

/// When packets may leave a link: a trace in the format of mahimahi's `mm-link`.
///
/// Each line is a whole number of milliseconds since the start, none smaller than the one before, and
/// stands for an opportunity to send 1500 bytes; a line that is there twice stands for two. What a
/// packet does not need of an opportunity is left to the next one in the queue, and is lost when there
/// is none. After the last line it begins again; that line is its length.
#[derive(Clone, PartialEq, Eq)]
pub struct Opportunities {
    millis: Vec<u32>,
}

/// What is wrong with a trace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadTrace {
    /// Which line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl fmt::Display for BadTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for BadTrace {}

impl fmt::Debug for Opportunities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opportunities({} in {} ms)", self.millis.len(), self.period_ms())
    }
}

impl Opportunities {
    /// Reads a trace.
    ///
    /// # Errors
    /// The first line that is no number, or smaller than the one before it; or the last one, if there
    /// is none above zero or there are more than 60 million.
    pub fn parse(text: &str) -> Result<Self, BadTrace> {
        let mut millis: Vec<u32> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let bad = |reason| BadTrace { line: number + 1, reason };
            let at = line.trim().parse().map_err(|_| bad("a whole number of milliseconds should be here"))?;
            if millis.last().is_some_and(|&last| at < last) {
                return Err(bad("the time is earlier than that of the line before"));
            }
            if millis.len() == MOST {
                return Err(bad("a trace ends here at the latest"));
            }
            millis.push(at);
        }
        match millis.last() {
            Some(1..) => Ok(Self { millis }),
            _ => Err(BadTrace { line: millis.len().max(1), reason: "a trace ends with a time above zero" }),
        }
    }

    /// Bits per second that can leave on average.
    #[must_use]
    pub fn mean_rate(&self) -> u64 {
        (self.millis.len() as u64 * BYTES as u64 * 8 * 1000 / self.period_ms()).max(1)
    }

    /// How long it is.
    #[must_use]
    pub fn period(&self) -> Duration {
        Duration::from_millis(self.period_ms())
    }

    fn period_ms(&self) -> u64 {
        self.millis.last().copied().map_or(1, u64::from)
    }

    /// When opportunity `index` is, in time since the start; the trace repeats.
    fn at(&self, index: u64) -> Duration {
        let len = self.millis.len() as u64;
        let (round, line) = (index / len, (index % len) as usize);
        Duration::from_millis(round * self.period_ms() + u64::from(self.millis[line]))
    }

    /// The first opportunity at or after `time`.
    fn first_from(&self, time: Duration) -> u64 {
        let len = self.millis.len() as u64;
        let period = self.period().as_nanos();
        let (round, rest) = ((time.as_nanos() / period) as u64, time.as_nanos() % period);
        let line = self.millis.partition_point(|&millis| u128::from(millis) * 1_000_000 < rest) as u64;
        // What is due at the very end of a round is due at the end of the round before this one too.
        let end_of_last = if rest == 0 && round > 0 { self.at_end_of_round() } else { 0 };
        (round * len + line).saturating_sub(end_of_last)
    }

    /// Opportunities that share the last time of a round.
    fn at_end_of_round(&self) -> u64 {
        let last = self.millis.last();
        self.millis.iter().rev().take_while(|&millis| Some(millis) == last).count() as u64
    }
}

/// How far a link is in its trace.
#[derive(Debug)]
pub(super) struct Cursor {
    trace: Arc<Opportunities>,
    start: Instant,
    index: u64,
    /// Bytes that are left of the opportunity at `index`.
    left: usize,
}

impl Cursor {
    pub(super) fn new(trace: Arc<Opportunities>, start: Instant) -> Self {
        Self { trace, start, index: 0, left: BYTES }
    }

    /// When a packet is out that is ready at `now`.
    pub(super) fn send(&mut self, now: Instant, bytes: usize) -> Instant {
        let first = self.trace.first_from(now.saturating_since(self.start));
        if first > self.index {
            (self.index, self.left) = (first, BYTES);
        }
        let mut need = bytes;
        while need > self.left {
            need -= self.left;
            (self.index, self.left) = (self.index + 1, BYTES);
        }
        self.left -= need;
        self.start + self.trace.at(self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(text: &str) -> Cursor {
        Cursor::new(Arc::new(Opportunities::parse(text).unwrap()), Instant::ZERO)
    }

    fn ms(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn packets_leave_at_the_opportunities_and_the_trace_begins_again() {
        let mut cursor = cursor("3\n3\n10\n");
        let sent: Vec<_> = (0..7).map(|_| cursor.send(ms(0), 1500)).collect();
        assert_eq!(sent, [3, 3, 10, 13, 13, 20, 23].map(ms));
    }

    #[test]
    fn small_packets_share_an_opportunity_and_large_ones_take_several() {
        let mut cursor = cursor("1\n2\n3\n4\n");
        let sent: Vec<_> = [500, 500, 600, 3000, 1400].map(|bytes| cursor.send(ms(0), bytes)).into();
        assert_eq!(sent, [1, 1, 2, 4, 4].map(ms).to_vec());
    }

    #[test]
    fn what_nobody_needs_is_lost() {
        let mut cursor = cursor("0\n5\n10\n");
        assert_eq!(cursor.send(ms(0), 100), ms(0));
        assert_eq!(cursor.send(ms(1), 100), ms(5));
        // At the end of a round there are its last opportunity and the first one of the next.
        assert_eq!(cursor.send(ms(10), 1500), ms(10));
        assert_eq!(cursor.send(ms(10), 1500), ms(10));
        assert_eq!(cursor.send(ms(10), 1500), ms(15));
        assert_eq!(cursor.send(ms(1_000_001), 1500), ms(1_000_005));
    }

    #[test]
    fn its_mean_rate_is_that_of_its_lines() {
        let trace = Opportunities::parse(&(1..=1000).map(|ms| format!("{ms}\n")).collect::<String>()).unwrap();
        assert_eq!((trace.mean_rate(), trace.period()), (12_000_000, Duration::from_secs(1)));
    }

    #[test]
    fn a_bad_trace_names_the_line() {
        for (text, line) in [("", 1), ("0\n0\n", 2), ("1\nx\n", 2), ("1\n\n", 2), ("5\n4\n", 2), ("-1", 1), ("1.5", 1)]
        {
            assert_eq!(Opportunities::parse(text).map_err(|bad| bad.line), Err(line), "{text:?}");
        }
    }
}
