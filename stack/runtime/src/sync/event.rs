//! An event descriptor (eventfd(2)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// Makes a descriptor readable.
///
/// It is registered edge-triggered and never read: every write is an edge.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(crate) fn set(&self) {
        // The counter would have to reach 2^64 - 1 for this to fail.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// What to register in epoll, for `EPOLLIN | EPOLLET`.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
