//! Paths that come and go, and devices that are replaced, while the worker works.

use std::io;

use anabranch_core::{Error, PathConfig};
use anabranch_drivers::{Device, LinkMonitor, State};
use anabranch_frame::{Instant, PathId};

use super::{PathQueue, Poll, Request, Stats, Worker, find, place};
use crate::worker::poll::Token;

/// Rounds in which what a path says at its end may leave.
const FAREWELLS: usize = 16;

impl PathQueue {
    /// The device is gone. Whoever can open another one closes it: the kernel may take milliseconds for that.
    pub(super) fn lose(&mut self, poll: &Poll) {
        let Some(device) = self.take_device(poll) else { return };
        self.earlier.merge(&device.counters());
        if let Some(opener) = &self.opener {
            opener.put(Request::Lost { path: self.id, opening: self.opening, device });
        }
    }

    /// Takes the device out of everything.
    fn take_device(&mut self, poll: &Poll) -> Option<Box<dyn Device>> {
        let device = self.device.take()?;
        // Before the next wait: the descriptor of a deleted interface reports errors for ever.
        if let Some(fd) = device.poll_fd() {
            let _ = poll.remove(fd);
        }
        (self.device_up, self.readable, self.watches_out) = (false, false, false);
        Some(device)
    }

    /// Goes on with another device, that of a later opening.
    pub(super) fn replace(&mut self, device: Box<dyn Device>, opening: u32, poll: &Poll, stats: &Stats) {
        // This worker may not have noticed yet that the old one is gone.
        self.lose(poll);
        self.drop_waiting(stats);
        self.opening = opening;
        self.device_up = device.state() == State::Up;
        self.device = Some(device);
        if let Err(error) = self.register(poll) {
            tracing::warn!(path = self.name, %error, "cannot watch the device");
            return self.lose(poll);
        }
        self.readable = true;
        // What happened to it since it was opened went unheard.
        self.look_due = Some(Instant::ZERO);
    }
}

impl Worker {
    /// The addresses of a path that comes are ours. It is down until its device is [attached](Self::attach).
    pub(crate) fn add_path(&mut self, config: PathConfig) -> Result<(), Error> {
        self.shard.add_path_down(config)
    }

    /// Takes over this worker's queue of a path that was added.
    pub(crate) fn attach(&mut self, mut path: PathQueue, links: LinkMonitor) -> io::Result<()> {
        path.shard_up = false;
        path.look_soon();
        path.register(&self.handle.poll)?;
        if let Err(at) = place(&self.paths, path.id) {
            self.paths.insert(at, path);
        }
        if self.links.is_none() {
            self.handle.poll.add(links.poll_fd(), Token::Links)?;
            self.links = Some(links);
        }
        Ok(())
    }

    /// A path goes: what was on it ends or goes on elsewhere. Returns its device, for somebody with time to close it.
    pub(crate) fn remove_path(&mut self, id: PathId) -> Option<Box<dyn Device>> {
        let now = self.clock.now();
        // An error says that it was not added everywhere.
        let _ = self.shard.remove_path(now, id);
        for _ in 0..FAREWELLS {
            if !self.speak(now) {
                break;
            }
        }
        let at = place(&self.paths, id).ok()?;
        let mut path = self.paths.remove(at);
        path.drop_waiting(&self.handle.stats);
        path.take_device(&self.handle.poll)
    }

    /// A path's device was opened again.
    pub(crate) fn replace_device(&mut self, id: PathId, opening: u32, device: Box<dyn Device>) {
        // One that was removed meanwhile needs none.
        if let Some(path) = find(&mut self.paths, id) {
            path.replace(device, opening, &self.handle.poll, &self.handle.stats);
        }
    }
}
