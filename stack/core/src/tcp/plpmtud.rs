//! Finding out by sending what size gets through (RFC 4821), where routers do not say or are not heard.

use alloc::boxed::Box;

use anabranch_frame::Instant;

use super::Subflow;
use super::snd::Probed;
use crate::Counters;
use crate::config::PmtuConfig;

/// Segments behind a probe: enough for its loss to be noticed without a timeout.
const FOLLOWERS: u64 = 4;

/// The search for the largest packet that gets through; sizes are IP packets in bytes.
#[derive(Debug)]
pub(crate) struct Search {
    /// Gets through: what is sent.
    low: u16,
    /// May get through.
    high: u16,
    /// Is on its way, or about to be.
    probe: Option<u16>,
    /// When the search began.
    since: Instant,
}

impl Search {
    /// What is known to get through.
    pub(super) fn low(&self) -> u16 {
        self.low
    }

    /// The path takes no more than this.
    pub(super) fn limit(&mut self, mtu: u16) {
        self.high = self.high.min(mtu);
        self.low = self.low.min(mtu);
    }
}

impl Subflow {
    /// Headers of a full segment, in bytes.
    fn headers(&self) -> u16 {
        if self.tuple.local.is_ipv4() { 40 } else { 60 }
    }

    /// The largest packet that path and peer may take.
    fn most(&self) -> u16 {
        self.path_mtu().min(self.peer_mss().saturating_add(self.headers()))
    }

    /// The packet of a segment with so much payload, in bytes.
    fn packet(&self, payload: u16) -> u16 {
        payload.saturating_add(self.headers() + self.options_len()).min(self.most())
    }

    /// Begins with packets that get through nearly everywhere, and looks for larger ones (§7.2).
    pub(crate) fn start_search(&mut self, now: Instant, config: &PmtuConfig) {
        let low = self.packet(config.base_mss);
        self.search = Some(Box::new(Search { low, high: self.most(), probe: None, since: now }));
        self.resize();
    }

    /// Nothing gets through any more: perhaps only what is large does not (§7.7, Linux: `tcp_mtu_probing`).
    pub(crate) fn on_black_hole(&mut self, now: Instant, config: &PmtuConfig) {
        let overhead = self.headers() + self.options_len();
        let Some(search) = &mut self.search else { return self.start_search(now, config) };
        let payload = (search.low.saturating_sub(overhead) / 2).min(config.base_mss).max(config.probe_floor);
        search.low = search.low.min(payload.saturating_add(overhead));
        search.probe = None;
        self.resize();
    }

    /// Payload of the probe to send now, if it is time for one and `available` bytes can follow each other.
    pub(crate) fn plan_probe(&mut self, now: Instant, available: u64, config: &PmtuConfig) -> Option<u64> {
        let most = self.most();
        let overhead = self.headers() + self.options_len();
        let search = self.search.as_mut()?;
        if search.probe.is_some() || !self.snd.may_probe_mtu() {
            return None;
        }
        if search.high.saturating_sub(search.low) < config.probe_threshold {
            if now.saturating_since(search.since) >= config.probe_interval {
                // Paths change (§7.3).
                search.high = most;
                search.since = now;
            }
            return None;
        }
        let size = search.low.midpoint(search.high);
        let payload = u64::from(size.saturating_sub(overhead));
        let needed = payload + FOLLOWERS * u64::from(self.snd.mss());
        if available.min(self.snd.peer_room()) < needed || self.snd.room(now) < payload {
            return None;
        }
        search.probe = Some(size);
        Some(payload)
    }

    /// The probe that was planned went out, or less of it than was planned.
    pub(crate) fn launch_probe(&mut self, pos: u64, counters: &mut Counters) {
        if Some(self.snd.nxt() - pos) == self.planned_probe() {
            self.snd.begin_mtu_probe(pos);
            counters.tcp_mtu_probes += 1;
        } else if let Some(search) = &mut self.search {
            search.probe = None;
        }
    }

    /// Payload of a probe that is planned and did not go out yet.
    pub(crate) fn planned_probe(&self) -> Option<u64> {
        let size = self.search.as_ref()?.probe.filter(|_| !self.snd.mtu_probe_out())?;
        Some(u64::from(size.saturating_sub(self.headers() + self.options_len())))
    }

    /// What became of the probe (§7.6).
    pub(crate) fn judge_mtu_probe(&mut self, counters: &mut Counters) {
        let Some(search) = &mut self.search else { return };
        let Some(probed) = self.snd.judge_mtu_probe() else { return };
        let Some(size) = search.probe.take() else { return };
        match probed {
            Probed::Passed => {
                counters.tcp_mtup_success += 1;
                search.low = size;
                search.high = search.high.max(size);
                self.resize();
            }
            Probed::Lost => {
                counters.tcp_mtup_fail += 1;
                search.high = size - 1;
            }
            // It was lost with everything else: that says nothing of its size.
            Probed::Unclear => {}
        }
    }
}
