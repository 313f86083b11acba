use super::{Choice, SchedView, Scheduler};
/// Backup.
#[derive(Debug, Default)]
pub struct Backup {}
impl Scheduler for Backup {
    fn name(&self) -> &'static str {
        "backup"
    }
    fn select(&mut self, _: &SchedView<'_>) -> Choice {
        Choice::WAIT
    }
}
