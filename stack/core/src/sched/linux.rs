//! The default scheduler of the upstream kernel (`mptcp_subflow_get_send`), so that results compare.

use alloc::vec::Vec;

use super::{Choice, SchedEvent, SchedView, Scheduler, SubflowId, SubflowView, pick};

/// Bytes that a subflow gets at once: the kernel's `MPTCP_SEND_BURST_SIZE` is 64 KiB less the headers.
const BURST: u64 = 64 << 10;

/// The subflow that would empty its queue first, by an average of its pacing rate.
///
/// The kernel hands a subflow more than its congestion window holds; here what a subflow cannot send
/// stays unassigned, so only subflows with room are compared.
#[derive(Debug, Default)]
pub struct Linux {
    /// Average pacing rate in bytes per second of each subflow that was chosen once.
    pacing: Vec<(SubflowId, u64)>,
}

impl Linux {
    /// Average pacing rate, in bytes per second.
    pub(super) fn pacing(&self, subflow: &SubflowView) -> u64 {
        let average = self.pacing.iter().find(|(id, _)| *id == subflow.id).map(|&(_, rate)| rate);
        average.unwrap_or_else(|| current_rate(subflow))
    }

    /// Time to empty the queue, in 2^-32 s.
    fn linger(&self, subflow: &SubflowView) -> u128 {
        (u128::from(wmem(subflow)) << 32) / u128::from(self.pacing(subflow))
    }

    /// Averages the rate over what is queued and what is added.
    fn update(&mut self, subflow: &SubflowView, burst: u64) {
        if subflow.pacing_rate == 0 {
            return;
        }
        let (wmem, burst) = (u128::from(wmem(subflow)), u128::from(burst));
        let sum = u128::from(self.pacing(subflow)) * wmem + u128::from(subflow.pacing_rate) * burst;
        let average = (sum / (wmem + burst)).max(1) as u64;
        match self.pacing.iter_mut().find(|(id, _)| *id == subflow.id) {
            Some((_, rate)) => *rate = average,
            None => self.pacing.push((subflow.id, average)),
        }
    }
}

/// What the kernel calls `sk_wmem_queued`.
fn wmem(subflow: &SubflowView) -> u64 {
    subflow.in_flight + subflow.queued
}

/// A subflow that knows no rate yet is not paced: as the kernel's, it is infinitely fast.
fn current_rate(subflow: &SubflowView) -> u64 {
    if subflow.pacing_rate == 0 { u64::MAX } else { subflow.pacing_rate }
}

impl Scheduler for Linux {
    fn name(&self) -> &'static str {
        "linux"
    }

    fn select(&mut self, view: &SchedView<'_>) -> Choice {
        let with_room = pick::candidates(view).filter(|subflow| pick::new_data(view, subflow) > 0);
        let key = |subflow: &&SubflowView| (self.linger(subflow), subflow.cost, subflow.id);
        let Some(subflow) = with_room.min_by_key(key) else { return Choice::WAIT };
        let burst = pick::new_data(view, subflow).min(BURST);
        self.update(subflow, burst);
        pick::send(subflow, burst)
    }

    fn on_event(&mut self, event: &SchedEvent) {
        if let SchedEvent::Down(gone) = event {
            self.pacing.retain(|(id, _)| id != gone);
        }
    }
}
