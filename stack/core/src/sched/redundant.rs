//! Everything on every subflow: the latency of the best path at any moment, the rate of one.

use super::{Choice, Decision, SchedView, Scheduler, SubflowView, pick};

/// Each regular subflow walks the whole stream on its own and drops what was acknowledged meanwhile;
/// whoever comes to the end first takes new data. Backups share the load when no regular one is left.
#[derive(Debug, Default)]
pub struct Redundant {}

/// The next bytes on a subflow's own walk, if it has room for them.
fn step(view: &SchedView<'_>, subflow: &SubflowView) -> Option<Choice> {
    if subflow.walked < view.data_nxt {
        let bytes = pick::portion(subflow, subflow.room, view.data_nxt - subflow.walked);
        let range = subflow.walked..subflow.walked + bytes;
        return (bytes > 0).then(|| Decision::Reinject { subflow: subflow.id, range }.into());
    }
    let bytes = pick::new_data(view, subflow);
    (bytes > 0).then(|| pick::send(subflow, bytes))
}

impl Scheduler for Redundant {
    fn name(&self) -> &'static str {
        "redundant"
    }

    fn select(&mut self, view: &SchedView<'_>) -> Choice {
        let candidates = pick::candidates(view);
        let walk = view.subflows.len() > 1 && candidates.clone().all(|subflow| !subflow.backup);
        let choice = if walk {
            let ready = candidates.filter(|subflow| step(view, subflow).is_some());
            pick::fastest(ready).and_then(|subflow| step(view, subflow))
        } else {
            pick::send_on_fastest(view, candidates)
        };
        choice.unwrap_or(Choice::WAIT)
    }
}
