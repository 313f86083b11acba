//! What ICMP taught of paths, by destination (RFC 1191 §6.1, RFC 8201 §5.2).

use core::net::IpAddr;

use anabranch_frame::Instant;

use crate::tcp::Link;
use crate::wire::Tuple;

use super::known::{Aging, Known};

/// The largest packet that gets to a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pmtu {
    /// In bytes.
    pub(crate) mtu: u16,
    /// The path takes less, and may fragment.
    pub(crate) fragment: bool,
    pub(crate) until: Instant,
}

impl Aging for Pmtu {
    type Since = Instant;

    fn since(&self) -> Instant {
        self.until
    }
}

/// Bounded: beyond that, what would be forgotten first goes early.
#[derive(Debug, Default)]
pub(crate) struct Pmtus {
    entries: Known<IpAddr, Pmtu>,
}

impl Pmtus {
    /// What is known of a destination.
    pub(crate) fn get(&self, now: Instant, destination: IpAddr) -> Option<Pmtu> {
        self.entries.get(&destination).copied().filter(|entry| entry.until > now)
    }

    /// What we ask a peer to send at most: what gets to it probably gets back (the kernel, too, looks at what it knows
    /// of the path).
    pub(crate) fn local_mss(&self, now: Instant, link: Link, tuple: &Tuple) -> u16 {
        let mtu = self.get(now, tuple.remote.ip()).map_or(link.mtu, |pmtu| pmtu.mtu.min(link.mtu));
        Link { mtu, ..link }.mss(tuple)
    }

    pub(crate) fn learn(&mut self, destination: IpAddr, pmtu: Pmtu) {
        self.entries.insert(destination, pmtu);
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;
    use core::time::Duration;

    use super::super::known::KNOWN_MAX;
    use super::*;

    #[test]
    fn a_destination_is_forgotten_in_time_or_for_another() {
        let addr = |n: u32| IpAddr::from(Ipv4Addr::from_bits(n));
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let mut pmtus = Pmtus::default();
        let pmtu = |until| Pmtu { mtu: 1400, fragment: false, until: at(until) };
        pmtus.learn(addr(0), pmtu(600));
        assert!(pmtus.get(at(599), addr(0)).is_some() && pmtus.get(at(600), addr(0)).is_none());
        // What would be forgotten first goes for one too many.
        for n in 1..=KNOWN_MAX as u32 {
            pmtus.learn(addr(n), pmtu(600 + u64::from(n)));
        }
        assert!(pmtus.get(at(0), addr(0)).is_none() && pmtus.get(at(0), addr(1)).is_some());
    }
}
