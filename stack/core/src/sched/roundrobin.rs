use super::{Choice, SchedView, Scheduler};
/// RoundRobin.
#[derive(Debug, Default)]
pub struct RoundRobin {}
impl Scheduler for RoundRobin {
    fn name(&self) -> &'static str {
        "roundrobin"
    }
    fn select(&mut self, _: &SchedView<'_>) -> Choice {
        Choice::WAIT
    }
}
