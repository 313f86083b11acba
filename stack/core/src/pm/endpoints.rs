use super::{PathManager, PmCommand, PmEvent, PmView};
use alloc::vec::Vec;
/// Endpoints.
#[derive(Debug, Default)]
pub struct Endpoints {}
impl PathManager for Endpoints {
    fn name(&self) -> &'static str {
        "endpoints"
    }
    fn on_event(&mut self, _: &PmView<'_>, _: &PmEvent, _: &mut Vec<PmCommand>) {}
}
