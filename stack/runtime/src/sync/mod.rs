//! How application threads and workers wait for each other. A worker never blocks in here.

mod bell;
mod gate;
mod reply;

pub(crate) use bell::Bell;
pub(crate) use gate::{Gate, TaskKey};
pub(crate) use reply::{Reply, reply};
