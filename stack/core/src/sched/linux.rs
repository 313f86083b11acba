use super::{Choice, SchedView, Scheduler};
/// Linux.
#[derive(Debug, Default)]
pub struct Linux {}
impl Scheduler for Linux {
    fn name(&self) -> &'static str {
        "linux"
    }
    fn select(&mut self, _: &SchedView<'_>) -> Choice {
        Choice::WAIT
    }
}
