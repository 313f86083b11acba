//! How application threads and workers wait for each other. A worker never blocks in here.

mod announce;
mod bell;
mod driver;
mod event;
mod futex;
mod gate;
mod mailbox;
mod reply;
mod ring;
mod sleepers;
mod spin;
#[cfg(test)]
mod tests;

pub(crate) use announce::{Announcement, Request};
pub(crate) use bell::Bell;
pub(crate) use driver::Driver;
pub(crate) use event::EventFd;
pub(crate) use gate::Gate;
#[cfg(feature = "tokio")]
pub(crate) use gate::TaskKey;
pub(crate) use mailbox::Mailbox;
pub(crate) use reply::{Reply, reply};
pub(crate) use ring::Ring;
use sleepers::Sleepers;
pub(crate) use spin::spin;

use crossbeam_queue as queue;
use std::sync::atomic;
use std::time as clock;
