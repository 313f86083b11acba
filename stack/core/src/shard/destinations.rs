//! What earlier connections learnt of a destination, for those that follow (RFC 9040 §6; the kernel's `tcp_metrics`).

use alloc::collections::BTreeMap;
use core::net::IpAddr;
use core::time::Duration;

use anabranch_frame::Instant;

use crate::tcp::Learnt;

/// Destinations that are remembered at most.
const DESTINATIONS_MAX: usize = 1024;
/// They are for so long (Linux: `TCP_METRICS_TIMEOUT`).
const LIFETIME: Duration = Duration::from_secs(3600);

/// Bounded: beyond that, what was heard of the longest ago goes.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    entries: BTreeMap<IpAddr, (Instant, Learnt)>,
}

impl Destinations {
    /// What is known of a destination.
    pub(crate) fn get(&self, now: Instant, destination: IpAddr) -> Option<Learnt> {
        let (at, learnt) = self.entries.get(&destination)?;
        (now.saturating_since(*at) < LIFETIME).then_some(*learnt)
    }

    /// A connection to it ended.
    pub(crate) fn learn(&mut self, now: Instant, destination: IpAddr, learnt: Learnt) {
        if self.entries.len() >= DESTINATIONS_MAX && !self.entries.contains_key(&destination) {
            let oldest = self.entries.iter().min_by_key(|(_, (at, _))| *at).map(|(addr, _)| *addr);
            oldest.and_then(|addr| self.entries.remove(&addr));
        }
        self.entries.insert(destination, (now, learnt));
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_destination_is_forgotten_in_time_or_for_another() {
        let addr = |n: u32| IpAddr::from(Ipv4Addr::from_bits(n));
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let learnt = |cwnd| Learnt { cwnd, ssthresh: u64::MAX, srtt: Duration::from_millis(20) };
        let mut known = Destinations::default();
        for n in 0..DESTINATIONS_MAX as u32 {
            known.learn(at(u64::from(n)), addr(n), learnt(1000));
        }
        assert!(known.get(at(3599), addr(0)).is_some() && known.get(at(3600), addr(0)).is_none());

        known.learn(at(2000), addr(0), learnt(2000));
        assert_eq!(known.get(at(2000), addr(0)), Some(learnt(2000)), "one that is known takes no room");
        assert!(known.get(at(2000), addr(1)).is_some());
        known.learn(at(2000), addr(1 << 20), learnt(1000));
        assert!(known.get(at(2000), addr(1)).is_none() && known.get(at(2000), addr(2)).is_some());
        assert_eq!(known.entries.len(), DESTINATIONS_MAX);
    }
}
