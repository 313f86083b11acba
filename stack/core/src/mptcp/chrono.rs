//! What held the sender back, and for how long (Linux: `tcp_chrono`).

use core::time::Duration;

use anabranch_frame::Instant;

use crate::info::Limit;

/// A stop watch for each [`Limit`] but idleness. Times are those up to the last [`note`](Self::note).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chrono {
    limit: Limit,
    since: Instant,
    nanos: [u64; 3],
}

impl Chrono {
    /// `limit` holds from now on.
    pub(super) fn note(&mut self, now: Instant, limit: Limit) {
        let spent = now.saturating_since(self.since).as_nanos();
        let at = match self.limit {
            Limit::Idle => None,
            Limit::Network => Some(0),
            Limit::PeerWindow => Some(1),
            Limit::SendBuffer => Some(2),
        };
        if let Some(at) = at {
            self.nanos[at] += u64::try_from(spent).unwrap_or(u64::MAX);
        }
        self.since = now;
        self.limit = limit;
    }

    /// What holds now, and since when.
    pub(super) fn limit(&self) -> Limit {
        self.limit
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Time with something to send.
    pub(super) fn busy(&self) -> Duration {
        self.nanos.iter().copied().map(Duration::from_nanos).sum()
    }

    pub(super) fn peer_window(&self) -> Duration {
        Duration::from_nanos(self.nanos[1])
    }

    pub(super) fn send_buffer(&self) -> Duration {
        Duration::from_nanos(self.nanos[2])
    }
}
