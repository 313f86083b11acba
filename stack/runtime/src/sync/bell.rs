//! How a worker sleeps and is woken.

use std::io;

use super::{Announcement, EventFd};

/// Wakes one worker, with a system call only when it sleeps.
///
/// Whoever has work for the worker puts it into one of its queues and [rings](Self::ring). The worker
/// [announces](Self::prepare_sleep) that it sleeps, looks at all its queues once more, and waits in epoll, which holds an
/// event descriptor that the ringer writes. [`Announcement`] says why no wake-up is lost.
#[derive(Debug)]
pub(crate) struct Bell {
    sleeping: Announcement,
    event: EventFd,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { sleeping: Announcement::new(), event: EventFd::new()? })
    }

    /// Called after work was published. Returns whether the worker had to be woken.
    pub(crate) fn ring(&self) -> bool {
        let sleeps = self.sleeping.take();
        if sleeps {
            self.send_event();
        }
        sleeps
    }

    /// Whether nobody does the worker's turns now. Called after work was published.
    pub(crate) fn worker_sleeps(&self) -> bool {
        self.sleeping.stands()
    }

    /// Wakes one thread that waits in the worker's epoll set, or the next one that would.
    pub(crate) fn send_event(&self) {
        self.event.set();
    }

    /// The worker is about to sleep: it must look at its queues once more after this, and only then wait.
    pub(crate) fn prepare_sleep(&self) {
        self.sleeping.announce();
    }

    /// The worker is awake, or did not sleep after all.
    pub(crate) fn awake(&self) {
        self.sleeping.withdraw();
    }

    /// What to wait for.
    pub(crate) fn event(&self) -> &EventFd {
        &self.event
    }
}
