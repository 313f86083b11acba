//! One segment on each subflow in turn: a baseline, rarely a good choice.

use super::{Choice, SchedView, Scheduler, SubflowId, pick};

/// Subflows in turn, a segment each; those without room are passed over (the out-of-tree kernel's
/// `num_segments=1 cwnd_limited=1`).
#[derive(Debug, Default)]
pub struct RoundRobin {
    last: Option<SubflowId>,
}

impl Scheduler for RoundRobin {
    fn name(&self) -> &'static str {
        "roundrobin"
    }

    fn select(&mut self, view: &SchedView<'_>) -> Choice {
        let with_room = pick::candidates(view).filter(|subflow| pick::new_data(view, subflow) > 0);
        // Identifiers after the last one come first, from the lowest.
        let turn = |id: SubflowId| (self.last.is_some_and(|last| id <= last), id);
        let Some(subflow) = with_room.min_by_key(|subflow| turn(subflow.id)) else { return Choice::WAIT };
        self.last = Some(subflow.id);
        pick::send(subflow, pick::new_data(view, subflow).min(subflow.mss))
    }
}
