//! Segments that fit the path (RFC 1191, RFC 8201).

use anabranch_frame::Instant;

use super::Subflow;
use crate::config::PmtuConfig;
use crate::shard::Pmtu;
use crate::wire::Tuple;

/// IPv6 links take at least this (RFC 8200 §5).
const MTU_MIN_V6: u32 = 1280;

impl Pmtu {
    /// What a router's word makes of a path that was `known` to take so much, and to fragment or not; `None` if it is no
    /// news.
    pub(crate) fn told(now: Instant, mtu: u32, tuple: &Tuple, known: (u16, bool), config: &PmtuConfig) -> Option<Self> {
        let (before, fragments) = known;
        let (mtu, fragment) = match mtu {
            // RFC 1191 §3: a router that says less than any link has, or nothing. The path may fragment then.
            _ if tuple.local.is_ipv4() && mtu < u32::from(config.min_pmtu) => (config.min_pmtu.min(before), true),
            // RFC 8201 §4: such a link does not exist.
            _ if tuple.local.is_ipv6() && mtu < MTU_MIN_V6 => return None,
            _ => (u16::try_from(mtu).unwrap_or(u16::MAX), false),
        };
        // RFC 1191 §3, RFC 8201 §4: never grows for this.
        let news = mtu < before || (fragment && !fragments);
        news.then(|| Self { mtu, fragment, until: now + config.mtu_expires })
    }
}

impl Subflow {
    /// Largest packet that the path takes, in bytes, as far as we were told (`tcpi_pmtu`).
    pub(crate) fn path_mtu(&self) -> u16 {
        self.pmtu.as_ref().map_or(self.link.mtu, |pmtu| pmtu.mtu.min(self.link.mtu))
    }

    /// Whether routers may fragment our packets.
    pub(super) fn may_fragment(&self) -> bool {
        self.pmtu.as_ref().is_some_and(|pmtu| pmtu.fragment)
    }

    /// The MTU of its device is another one now.
    pub(crate) fn set_mtu(&mut self, mtu: u16) {
        self.link.mtu = mtu;
        let mtu = self.path_mtu();
        if let Some(search) = &mut self.search {
            search.limit(mtu);
        }
        self.resize();
    }

    /// A router says that a packet was too big for a link that takes `mtu` bytes. What is known of the path then, if
    /// that is news; all that is under way in larger segments goes again at once, and nobody is to blame.
    pub(crate) fn on_too_big(&mut self, now: Instant, mtu: u32, config: &PmtuConfig) -> Option<Pmtu> {
        let known = (self.path_mtu(), self.may_fragment());
        let pmtu = Pmtu::told(now, mtu, &self.tuple, known, config)?;
        self.limit_mtu(Some(pmtu));
        self.snd.resend_oversized(now);
        Some(pmtu)
    }

    /// What is known of the path from before.
    pub(crate) fn limit_mtu(&mut self, pmtu: Option<Pmtu>) {
        self.pmtu = pmtu.map(alloc::boxed::Box::new);
        let mtu = self.path_mtu();
        if let Some(search) = &mut self.search {
            search.limit(mtu);
        }
        self.resize();
    }

    /// Forgets what was told too long ago: the path may take more by now (RFC 1191 §6.3).
    pub(crate) fn expire_mtu(&mut self, now: Instant) {
        if self.pmtu.as_ref().is_some_and(|pmtu| pmtu.until <= now) {
            self.limit_mtu(None);
        }
    }
}
