//! Destinations on whose way SYNs with MP_CAPABLE get lost, while plain ones do not: they are asked for plain TCP at once
//! for a while (Linux since 6.12: `net.mptcp.blackhole_timeout`, where one such destination stops MPTCP to all).

use core::net::IpAddr;
use core::time::Duration;

use anabranch_frame::Instant;

use crate::FallbackReason;
use crate::mptcp::{Mode, Mp};
use crate::options::SocketOptions;

use super::known::{Aging, Known};
use super::{Crew, Mail, Shard, WorkerId};

/// The time is doubled so often at most, once each time that MP_CAPABLE is tried again in vain.
const DOUBLED_MAX: u32 = 6;

/// How often a destination was found to be one, and when it last was.
#[derive(Clone, Copy, Debug)]
struct Found {
    times: u32,
    last: Instant,
}

impl Found {
    fn lasts(&self, now: Instant, timeout: Duration) -> bool {
        now.saturating_since(self.last) < timeout * (1 << (self.times - 1).min(DOUBLED_MAX))
    }
}

impl Aging for Found {
    type Since = Instant;

    fn since(&self) -> Instant {
        self.last
    }
}

/// What the workers know together: each tells the others what it finds. Bounded: beyond that, what was found the longest
/// ago goes.
#[derive(Debug)]
pub(crate) struct Blackholes {
    timeout: Duration,
    entries: Known<IpAddr, Found>,
}

/// What happened to MP_CAPABLE on the way to a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Capability {
    /// It was lost again and again, the SYN without it was answered.
    Lost,
    /// It was answered.
    Answered,
}

impl Blackholes {
    /// With a `timeout` of zero nothing is remembered.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, entries: Known::default() }
    }

    /// Whether plain TCP is all that a connection to `destination` should try.
    pub(crate) fn avoids(&self, now: Instant, destination: IpAddr) -> bool {
        self.entries.get(&destination).is_some_and(|found| found.lasts(now, self.timeout))
    }

    /// Notes what happened. Whether that is news.
    pub(crate) fn note(&mut self, now: Instant, destination: IpAddr, what: Capability) -> bool {
        match what {
            Capability::Answered => self.entries.remove(&destination).is_some(),
            // Connections that were opened at the same time find the same: it counts once.
            Capability::Lost if self.timeout.is_zero() || self.avoids(now, destination) => false,
            Capability::Lost => {
                let times = self.entries.get(&destination).map_or(0, |found| found.times);
                self.entries.insert(destination, Found { times: times.saturating_add(1), last: now });
                true
            }
        }
    }
}

impl Shard {
    /// What a connection that the application opens begins as.
    pub(super) fn mode_to_ask_for(&mut self, now: Instant, destination: IpAddr, options: &SocketOptions) -> Mode {
        if !options.mptcp {
            return Mode::plain(FallbackReason::Disabled);
        }
        if self.blackholes.avoids(now, destination) {
            self.counters.mp_capable_syn_tx_disabled += 1;
            return Mode::plain(FallbackReason::Blackhole);
        }
        let mut mp = Mp::new(self.new_key(), None);
        mp.checksum = options.checksum;
        Mode::Mptcp(mp)
    }
}

/// What a worker tells all others of a destination.
pub(crate) fn news(crew: &Crew, destination: IpAddr, what: Capability) -> impl Iterator<Item = (WorkerId, Mail)> + '_ {
    crew.others().map(move |worker| (worker, Mail::Capability { destination, what }))
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::super::known::KNOWN_MAX;
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn addr(n: u32) -> IpAddr {
        IpAddr::from(Ipv4Addr::from_bits(n))
    }

    fn at(hours: u32) -> Instant {
        Instant::ZERO + HOUR * hours
    }

    #[test]
    fn a_blackhole_lasts_twice_as_long_each_time_that_it_is_found_again() {
        let mut known = Blackholes::new(HOUR);
        let mut hour = 1;
        for lasts in [1, 2, 4, 8, 16, 32, 64, 64, 64] {
            assert!(!known.avoids(at(hour), addr(1)));
            assert!(known.note(at(hour), addr(1), Capability::Lost));
            assert!(!known.note(at(hour), addr(1), Capability::Lost), "found by two at once it is found once");
            assert!(known.avoids(at(hour + lasts) - Duration::from_nanos(1), addr(1)), "{lasts} hours");
            assert!(!known.avoids(at(hour), addr(2)), "another destination");
            hour += lasts;
        }
        // One success and all is forgotten.
        assert!(known.note(at(hour), addr(1), Capability::Answered));
        assert!(!known.note(at(hour), addr(1), Capability::Answered));
        assert!(known.note(at(hour), addr(1), Capability::Lost));
        assert!(!known.avoids(at(hour + 1), addr(1)));
    }

    #[test]
    fn destinations_are_bounded_and_remembered_only_if_that_is_wanted() {
        let mut known = Blackholes::new(HOUR);
        for n in 0..=KNOWN_MAX as u32 {
            known.note(Instant::from_millis(u64::from(n)), addr(n), Capability::Lost);
        }
        assert!(!known.avoids(at(0), addr(0)) && known.avoids(at(0), addr(1)));

        let mut never = Blackholes::new(Duration::ZERO);
        assert!(!never.note(at(0), addr(1), Capability::Lost) && !never.avoids(at(0), addr(1)));
    }
}
