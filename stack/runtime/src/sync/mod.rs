//! How application threads and workers wait for each other. A worker never blocks in here.

mod announce;
mod bell;
mod driver;
mod futex;
mod gate;
mod reply;
mod ring;
mod sleepers;
mod spin;

pub(crate) use announce::{Announcement, Request};
pub(crate) use bell::Bell;
pub(crate) use driver::Driver;
pub(crate) use gate::Gate;
#[cfg(feature = "tokio")]
pub(crate) use gate::TaskKey;
pub(crate) use reply::reply;
pub(crate) use ring::Ring;
use sleepers::Sleepers;
pub(crate) use spin::spin;

use std::sync::atomic;
