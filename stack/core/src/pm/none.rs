//! Leaves everything as it is.

use alloc::vec::Vec;

use super::{Command, PathManager, PmEvent, PmView};

/// Announces nothing and opens nothing. Subflows that the peer opens are accepted within the limits.
#[derive(Debug, Default)]
pub struct NoPathManager {}

impl PathManager for NoPathManager {
    fn name(&self) -> &'static str {
        "none"
    }

    fn on_event(&mut self, _: &PmView<'_>, _: &PmEvent, _: &mut Vec<Command>) {}
}
