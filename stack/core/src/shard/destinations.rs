//! What earlier connections learnt of a destination, for those that follow (RFC 9040 §6; the kernel's `tcp_metrics`).

use core::net::IpAddr;
use core::time::Duration;

use anabranch_frame::Instant;

use crate::tcp::Learnt;

use super::known::{Aging, Known};

/// They are for so long (Linux: `TCP_METRICS_TIMEOUT`).
const LIFETIME: Duration = Duration::from_secs(3600);

/// When it was learnt, and what.
#[derive(Debug)]
struct Lesson(Instant, Learnt);

impl Aging for Lesson {
    type Since = Instant;

    fn since(&self) -> Instant {
        self.0
    }
}

/// Bounded: beyond that, what was heard of the longest ago goes.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    entries: Known<IpAddr, Lesson>,
}

impl Destinations {
    /// What is known of a destination.
    pub(crate) fn get(&self, now: Instant, destination: IpAddr) -> Option<Learnt> {
        let Lesson(at, learnt) = self.entries.get(&destination)?;
        (now.saturating_since(*at) < LIFETIME).then_some(*learnt)
    }

    /// A connection to it ended.
    pub(crate) fn learn(&mut self, now: Instant, destination: IpAddr, learnt: Learnt) {
        self.entries.insert(destination, Lesson(now, learnt));
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::super::known::KNOWN_MAX;
    use super::*;

    #[test]
    fn a_destination_is_forgotten_in_time_or_for_another() {
        let addr = |n: u32| IpAddr::from(Ipv4Addr::from_bits(n));
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let learnt = |cwnd| Learnt { cwnd, ssthresh: u64::MAX, srtt: Duration::from_millis(20) };
        let mut known = Destinations::default();
        known.learn(at(0), addr(0), learnt(1000));
        assert!(known.get(at(3599), addr(0)).is_some() && known.get(at(3600), addr(0)).is_none());
        known.learn(at(2000), addr(0), learnt(2000));
        assert_eq!(known.get(at(3600), addr(0)), Some(learnt(2000)));
        // Whose was learnt the longest ago goes for one too many.
        for n in 1..=KNOWN_MAX as u32 {
            known.learn(at(3000 + u64::from(n)), addr(n), learnt(1000));
        }
        assert!(known.get(at(3000), addr(0)).is_none() && known.get(at(3000), addr(1)).is_some());
    }
}
