//! What happens when data waits and nothing is under way whose acknowledgement could set it going: the peer's window is
//! closed, or so narrow that it is better to wait, or the application holds back a partial segment.
//!
//! A timer sees to it (RFC 9293 §3.8.6.1, RFC 1122 §4.2.2.17), which starts at the retransmission timeout and doubles up to
//! its bound. A peer that answers is asked for as long as it takes; one that does not is given up as after
//! retransmissions. The probe is what Linux sends: one position below what was acknowledged last, without data, which has
//! to be answered. When the window admits anything by then, that goes instead (the override of RFC 9293 §3.8.6.2.1). A
//! corked segment goes that way, too, after the 200 ms that `tcp(7)` promises, or a timeout if that is longer.

use core::time::Duration;

use crate::tcp::Subflow;

use super::conn::{Conn, Cx, Stage};

impl Conn {
    /// Starts the timer if nothing else would ever set the waiting data going.
    pub(super) fn arm_persist(&mut self, cx: &Cx<'_>) {
        if self.stage != Stage::Open || self.tx.unassigned() == 0 {
            return;
        }
        let comes = |subflow: &Subflow| subflow.snd.in_flight() > 0 || subflow.snd.paced_out(cx.now);
        if self.subflows.iter().any(|subflow| subflow.persist.is_some() || comes(subflow)) {
            return;
        }
        // A doubtful one only if there is no other: nothing is under way that could end the doubt.
        let candidates = self.subflows.iter_mut().filter(|subflow| subflow.usable());
        if let Some(subflow) = candidates.min_by_key(|subflow| subflow.is_doubtful()) {
            subflow.persist = Some(cx.now + persist_interval(subflow, cx.config.recovery.rto_max));
        }
    }

    /// The window opened, or nothing waits any more.
    pub(super) fn clear_persist(&mut self) {
        for subflow in &mut self.subflows {
            subflow.persist = None;
            subflow.persist_backoff = 0;
        }
    }

    /// Time passed. False if the subflow was given up.
    pub(super) fn on_persist_timer(&mut self, cx: &mut Cx<'_>, at: usize) -> bool {
        if self.subflows[at].persist.is_none_or(|due| due > cx.now) {
            return true;
        }
        let under_way = self.subflows.iter().any(|subflow| subflow.snd.in_flight() > 0);
        if self.tx.unassigned() == 0 || under_way {
            self.clear_persist();
            return true;
        }
        if self.subflows[at].window_probes >= cx.config.recovery.retries(self.released) {
            let id = self.subflows[at].id;
            self.on_subflow_timeout(cx, id);
            return false;
        }
        // The connection's window may have been opened by another subflow that is gone: what counts here is told here.
        if self.peer_edge > self.tx.nxt() && self.subflows[at].snd.room(cx.now) > 0 {
            self.nagle.force();
            self.clear_persist();
            return true;
        }
        cx.counters.tcp_winprobe += 1;
        cx.counters.mp_win_probe += u64::from(self.mp().is_some());
        let subflow = &mut self.subflows[at];
        if subflow.persist_backoff == 0 {
            subflow.silent_since = cx.now;
        }
        subflow.ping = true;
        subflow.window_probes += 1;
        subflow.persist_backoff = (subflow.persist_backoff + 1).min(16);
        subflow.persist = Some(cx.now + persist_interval(subflow, cx.config.recovery.rto_max));
        true
    }
}

fn persist_interval(subflow: &Subflow, longest: Duration) -> Duration {
    (subflow.snd.rto() * 2u32.saturating_pow(subflow.persist_backoff)).min(longest)
}
