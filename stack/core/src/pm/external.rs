//! Leaves it to a program.

use alloc::vec::Vec;

use super::{Command, PathManager, PmEvent, PmView};

/// Does nothing by itself: a program that hears the [`Report`](super::Report)s announces, withdraws, opens and closes with
/// the commands of [`Shard`](crate::Shard), as the daemons of the kernel's `userspace` path manager do. What the peer
/// announces is remembered within the limits, and subflows that it opens are accepted.
#[derive(Debug, Default)]
pub struct External {}

impl PathManager for External {
    fn name(&self) -> &'static str {
        "external"
    }

    fn on_event(&mut self, _: &PmView<'_>, _: &PmEvent, _: &mut Vec<Command>) {}
}
