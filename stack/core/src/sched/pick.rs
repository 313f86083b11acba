//! What the schedulers share: who may send at all, how much, and who is fastest.

use super::{Ask, Choice, Decision, SchedView, SubflowView};

/// The subflows to choose from, whether they have room or not: those of the best kind there is.
/// Stale ones serve only when all are, those in RTO recovery only when no other does, backups only
/// when no regular one is healthy.
pub(super) fn candidates<'a>(view: &SchedView<'a>) -> impl Iterator<Item = &'a SubflowView> + Clone + use<'a> {
    best_by_key(view.subflows, |subflow| (subflow.stale, subflow.in_rto, subflow.backup))
}

/// The subflows whose key is the lowest.
pub(super) fn best_by_key<K: Ord + Clone>(
    subflows: &[SubflowView],
    key: impl Fn(&SubflowView) -> K + Clone,
) -> impl Iterator<Item = &SubflowView> + Clone {
    let best = subflows.iter().map(&key).min();
    subflows.iter().filter(move |subflow| Some(key(subflow)) == best)
}

/// The lowest round-trip time, then the lowest cost.
pub(super) fn fastest<'a>(subflows: impl Iterator<Item = &'a SubflowView>) -> Option<&'a SubflowView> {
    subflows.min_by_key(|subflow| (subflow.srtt, subflow.cost, subflow.id))
}

/// How much of `want` bytes fits in `room`: all or nothing below a segment, lest slivers go out,
/// unless the subflow is idle and no acknowledgement will come to make more room.
pub(super) fn portion(subflow: &SubflowView, room: u64, want: u64) -> u64 {
    if room >= want.min(subflow.mss) || subflow.in_flight == 0 { room.min(want) } else { 0 }
}

/// Bytes of new data that a subflow may take now.
pub(super) fn new_data(view: &SchedView<'_>, subflow: &SubflowView) -> u64 {
    match view.ask {
        Ask::NewData => portion(subflow, subflow.room.min(view.window_left), view.unassigned),
        Ask::Blocked => 0,
    }
}

/// Sends new data from the head on, up to `max_bytes`.
pub(super) fn send(subflow: &SubflowView, max_bytes: u64) -> Choice {
    Decision::Send { subflow: subflow.id, skip: 0, max_bytes }.into()
}

/// New data on the fastest of `subflows` that has room.
pub(super) fn send_on_fastest<'a>(
    view: &SchedView<'_>,
    subflows: impl Iterator<Item = &'a SubflowView>,
) -> Option<Choice> {
    let subflow = fastest(subflows.filter(|subflow| new_data(view, subflow) > 0))?;
    Some(send(subflow, new_data(view, subflow)))
}
