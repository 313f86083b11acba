//! Lowest round-trip time first, with opportunistic retransmission and penalisation (Raiciu et al.,
//! "How Hard Can It Be?", NSDI 2012, §4.2): the default of the out-of-tree kernel.

use anabranch_frame::Instant;

use super::{Choice, Decision, SchedView, Scheduler, SubflowView, pick};

/// Most bytes of one opportunistic retransmission: about what a slow subflow is given at once.
const REINJECT_MAX: u64 = 16 << 10;
/// A subflow this many times slower is not worth waiting for.
const SLOWER: u32 = 4;
/// A holder with no more than this many segments of window counts as slow, whatever its round-trip time.
const SMALL_WINDOW: u64 = 4;

/// New data goes to the fastest subflow that has room.
///
/// When the peer's window or the send buffer is full because of bytes that wait on a slow subflow,
/// an idle fast one sends them again, and the slow one's window is halved, at most once in a round
/// trip of the fast one.
#[derive(Debug, Default)]
pub struct MinRtt {
    penalised_at: Option<Instant>,
}

impl MinRtt {
    /// The stream waits for the byte at `data_una`: helps it along on a faster subflow.
    fn unblock(&mut self, view: &SchedView<'_>) -> Choice {
        let held = view.data_nxt - view.data_una;
        let fast = pick::candidates(view).filter(|subflow| pick::portion(subflow, subflow.room, held) > 0);
        let Some(fast) = pick::fastest(fast) else { return Choice::WAIT };
        let window_closed = view.unassigned > 0 && view.window_left < fast.mss.min(view.unassigned);
        let writer_waits = view.unassigned == 0 && view.send_buffer_full;
        if held == 0 || !(window_closed || writer_waits) {
            return Choice::WAIT;
        }
        let holders = || view.subflows.iter().filter(|subflow| subflow.id != fast.id && subflow.carried_una);
        let penalise = self.penalty(view.now, fast, holders());
        let decision = if !fast.carried_una && worth_repeating(fast, holders()) {
            let want = held.min(REINJECT_MAX.max(fast.mss));
            let end = view.data_una + pick::portion(fast, fast.room, want);
            Decision::Reinject { subflow: fast.id, range: view.data_una..end }
        } else {
            Decision::Wait { until: None }
        };
        Choice { decision, penalise: penalise.map(|subflow| subflow.id) }
    }

    fn penalty<'a>(
        &mut self,
        now: Instant,
        fast: &SubflowView,
        holders: impl Iterator<Item = &'a SubflowView>,
    ) -> Option<&'a SubflowView> {
        if self.penalised_at.is_some_and(|at| now.saturating_since(at) <= fast.srtt) {
            return None;
        }
        // A holder in recovery has reduced its window already.
        let open = holders.filter(|holder| holder.srtt > fast.srtt && !holder.in_recovery && !holder.in_rto);
        let slowest = open.max_by_key(|holder| (holder.srtt, holder.id))?;
        self.penalised_at = Some(now);
        Some(slowest)
    }
}

/// Whether every subflow that holds the byte at `data_una` is much slower than `fast`, or one hardly moves.
fn worth_repeating<'a>(fast: &SubflowView, holders: impl Iterator<Item = &'a SubflowView>) -> bool {
    let mut slower = None;
    for holder in holders {
        if holder.cwnd <= SMALL_WINDOW * holder.mss {
            return true;
        }
        slower = Some(slower.unwrap_or(true) && holder.srtt > SLOWER * fast.srtt);
    }
    slower == Some(true)
}

impl Scheduler for MinRtt {
    fn name(&self) -> &'static str {
        "minrtt"
    }

    fn select(&mut self, view: &SchedView<'_>) -> Choice {
        pick::send_on_fastest(view, pick::candidates(view)).unwrap_or_else(|| self.unblock(view))
    }
}
