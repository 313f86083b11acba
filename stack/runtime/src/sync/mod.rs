//! How application threads and workers wait for each other. A worker never blocks in here.

mod bell;
mod gate;
mod reply;

pub(crate) use bell::Bell;
pub(crate) use gate::Gate;
#[cfg(feature = "tokio")]
pub(crate) use gate::TaskKey;
pub(crate) use reply::reply;
