//! Handover: the preferred paths carry everything, the others stand by.

use super::{Choice, SchedView, Scheduler, pick};

/// Subflows fall into classes: regular before backup, and among those by the cost of their path. Only
/// the best class that has a subflow which is not stale is used, the lowest round-trip time first;
/// while it is merely full, or recovers from a timeout, the data waits for it.
#[derive(Debug, Default)]
pub struct Backup {}

impl Scheduler for Backup {
    fn name(&self) -> &'static str {
        "backup"
    }

    fn select(&mut self, view: &SchedView<'_>) -> Choice {
        let class = pick::best_by_key(view.subflows, |s| (s.stale, s.backup, s.cost, s.in_rto));
        pick::send_on_fastest(view, class).unwrap_or(Choice::WAIT)
    }
}
