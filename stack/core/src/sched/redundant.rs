use super::{Choice, SchedView, Scheduler};
/// Redundant.
#[derive(Debug, Default)]
pub struct Redundant {}
impl Scheduler for Redundant {
    fn name(&self) -> &'static str {
        "redundant"
    }
    fn select(&mut self, _: &SchedView<'_>) -> Choice {
        Choice::WAIT
    }
}
