use super::{Choice, SchedView, Scheduler};
/// MinRtt.
#[derive(Debug, Default)]
pub struct MinRtt {}
impl Scheduler for MinRtt {
    fn name(&self) -> &'static str {
        "minrtt"
    }
    fn select(&mut self, _: &SchedView<'_>) -> Choice {
        Choice::WAIT
    }
}
