//! From counters that only grow to what happened in an interval, for a connection and its subflows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anabranch::SubflowInfo;
use serde::Serialize;

use super::protocol::Direction;
use crate::format::Rate;

/// What is read of a subflow at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reading {
    pub(super) id: u8,
    pub(super) path: String,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// In the direction of the data: acknowledged if we send, received if the peer does.
    pub(super) bytes: u64,
    pub(super) srtt: Duration,
    pub(super) cwnd: u64,
    pub(super) retransmits: u64,
}

impl Reading {
    /// `sending` says which way the data goes. `paths` are the names of the stack's paths.
    pub(super) fn of(subflow: &SubflowInfo, sending: bool, paths: &[String]) -> Self {
        Self {
            id: subflow.id,
            path: paths.get(usize::from(subflow.path.0)).cloned().unwrap_or_default(),
            local: subflow.local,
            remote: subflow.remote,
            bytes: if sending { subflow.bytes_acked } else { subflow.bytes_received },
            srtt: subflow.srtt,
            cwnd: subflow.cwnd,
            retransmits: subflow.total_retrans.into(),
        }
    }
}

/// Whether the client sends.
pub(super) fn client_sends(direction: Direction) -> bool {
    direction == Direction::Upload
}

/// A subflow in an interval, or over the whole time.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct SubflowSpan {
    pub(super) id: u8,
    pub(super) path: String,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) bytes: u64,
    pub(super) bits_per_second: f64,
    /// At the end of the interval.
    pub(super) srtt_us: u64,
    /// Bytes, at the end of the interval.
    pub(super) cwnd: u64,
    pub(super) retransmits: u64,
}

/// A connection in an interval, or over the whole time.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Span {
    pub(super) stream: u16,
    pub(super) bytes: u64,
    pub(super) bits_per_second: f64,
    pub(super) subflows: Vec<SubflowSpan>,
}

/// A connection that is measured.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    stream: u16,
    bytes: u64,
    at: Duration,
    /// The latest reading of every subflow there ever was.
    subflows: BTreeMap<u8, Reading>,
}

impl Progress {
    pub(super) fn new(stream: u16) -> Self {
        Self { stream, bytes: 0, at: Duration::ZERO, subflows: BTreeMap::new() }
    }

    /// Takes note of what is read `at` after the beginning and returns what happened since the last time.
    /// Counters that went back stand still.
    pub(super) fn advance(&mut self, at: Duration, bytes: u64, readings: Vec<Reading>) -> Span {
        let time = at.saturating_sub(self.at);
        let mut subflows = Vec::new();
        for reading in readings {
            let before = self.subflows.get(&reading.id);
            let since = |value: u64, of: fn(&Reading) -> u64| value.saturating_sub(before.map_or(0, of));
            let bytes = since(reading.bytes, |reading| reading.bytes);
            let retransmits = since(reading.retransmits, |reading| reading.retransmits);
            subflows.push(span(&reading, bytes, retransmits, time));
            self.subflows.insert(reading.id, reading);
        }
        let bytes_now = bytes.saturating_sub(self.bytes);
        self.bytes = self.bytes.max(bytes);
        self.at = at;
        Span { stream: self.stream, bytes: bytes_now, bits_per_second: Rate::of(bytes_now, time).0, subflows }
    }

    /// Everything since the beginning, in `time`.
    pub(super) fn total(&self, time: Duration) -> Span {
        let subflows = self.subflows.values().map(|last| span(last, last.bytes, last.retransmits, time)).collect();
        Span { stream: self.stream, bytes: self.bytes, bits_per_second: Rate::of(self.bytes, time).0, subflows }
    }
}

fn span(reading: &Reading, bytes: u64, retransmits: u64, time: Duration) -> SubflowSpan {
    SubflowSpan {
        id: reading.id,
        path: reading.path.clone(),
        local: reading.local,
        remote: reading.remote,
        bytes,
        bits_per_second: Rate::of(bytes, time).0,
        srtt_us: u64::try_from(reading.srtt.as_micros()).unwrap_or(u64::MAX),
        cwnd: reading.cwnd,
        retransmits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn reading(id: u8, bytes: u64, retransmits: u64) -> Reading {
        Reading {
            id,
            path: format!("ab{id}"),
            local: SocketAddr::from(([10, 9, id, 2], 40_000)),
            remote: SocketAddr::from(([10, 9, id, 1], 5010)),
            bytes,
            srtt: Duration::from_micros(1500),
            cwnd: 14_480,
            retransmits,
        }
    }

    #[test]
    fn an_interval_is_the_difference_of_two_readings() {
        let mut progress = Progress::new(3);
        progress.advance(SECOND, 1000, vec![reading(0, 800, 1), reading(1, 200, 0)]);
        let span = progress.advance(SECOND * 3, 4000, vec![reading(0, 2800, 5), reading(1, 1200, 0)]);
        assert_eq!((span.stream, span.bytes, span.bits_per_second), (3, 3000, 12_000.0));
        let [first, second] = &span.subflows[..] else { panic!("{span:?}") };
        assert_eq!((first.bytes, first.bits_per_second, first.retransmits), (2000, 8000.0, 4));
        assert_eq!((second.bytes, second.retransmits, second.srtt_us, second.cwnd), (1000, 0, 1500, 14_480));
    }

    #[test]
    fn the_total_remembers_subflows_that_are_gone() {
        let mut progress = Progress::new(0);
        progress.advance(SECOND, 1000, vec![reading(0, 800, 1), reading(1, 200, 0)]);
        let span = progress.advance(SECOND * 2, 1500, vec![reading(1, 700, 2)]);
        assert_eq!(span.subflows.len(), 1);
        let total = progress.total(SECOND * 2);
        assert_eq!((total.bytes, total.bits_per_second), (1500, 6000.0));
        let bytes: Vec<_> = total.subflows.iter().map(|subflow| (subflow.id, subflow.bytes)).collect();
        assert_eq!(bytes, [(0, 800), (1, 700)]);
    }

    #[test]
    fn no_time_and_no_bytes_are_no_rate() {
        let mut progress = Progress::new(0);
        let span = progress.advance(Duration::ZERO, 0, vec![reading(0, 0, 0)]);
        assert_eq!(span.bits_per_second, 0.0);
        assert_eq!(span.subflows[0].bits_per_second, 0.0);
    }
}
