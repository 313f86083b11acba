//! How a worker rests, and how it ends.

use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use anabranch_core::info::TcpState;
use anabranch_core::{ConnId, ConnInfo, Counters, Error, SubflowInfo};
use anabranch_drivers::{LinkEvent, LinkMonitor};
use anabranch_frame::Instant;

use super::poll::Token;
use super::{Stats, Worker};

/// How often a worker that drains looks whether it has finished.
const DRAIN_CHECK: Duration = Duration::from_millis(5);
/// The list of released connections is gone through when it has grown to twice what was left, and to this.
const RELEASED_MIN: usize = 64;

/// Whether a worker works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    /// It does.
    Running,
    /// It waits until the connections have closed, at most until then.
    Draining(Instant),
}

impl Worker {
    pub(super) fn is_running(&self) -> bool {
        self.life == Life::Running
    }

    /// Closes the listeners and ends when the connections have closed, or when the time is up.
    pub(crate) fn drain(&mut self, timeout: Duration) {
        let now = self.clock.now();
        self.life = Life::Draining(now + timeout);
        for (id, accepting) in std::mem::take(&mut self.listeners) {
            self.shard.close_listener(now, id);
            accepting.close();
        }
    }

    /// Whether it is time to end, and how many connections were aborted for that.
    pub(super) fn finished(&mut self, now: Instant) -> Option<usize> {
        let Life::Draining(deadline) = self.life else { return None };
        self.forget_closed();
        let closing = |subflow: &SubflowInfo| !matches!(subflow.state, TcpState::TimeWait | TcpState::Closed);
        // Both streams may have ended while the subflows still say farewell.
        let parting = |id| self.shard.subflows(id).is_some_and(|subflows| subflows.iter().any(closing));
        let held = self.conns.iter().filter(|(_, slot)| !slot.conn.is_closed() || parting(slot.id)).count();
        let open = held + self.released.len();
        if now < deadline && (open > 0 || self.has_mail()) {
            return None;
        }
        let slots: Vec<u32> = self.conns.iter().map(|(at, _)| at as u32).collect();
        for at in slots {
            self.abort(now, at);
        }
        for id in std::mem::take(&mut self.released) {
            self.shard.abort(now, id);
        }
        // The farewells of all of them, as far as the devices take them.
        for _ in 0..=open {
            if !self.speak(now) || self.paths.iter().any(super::PathQueue::is_blocked) {
                break;
            }
        }
        Some(open)
    }

    /// Keeps in mind a connection that goes on closing without its application.
    pub(super) fn remember_released(&mut self, id: ConnId) {
        if self.released.len() == self.released.capacity() && self.released.len() >= RELEASED_MIN {
            self.forget_closed();
        }
        self.released.push(id);
    }

    /// Forgets released connections that have closed. TIME-WAIT does not count.
    fn forget_closed(&mut self) {
        let shard = &self.shard;
        self.released.retain(|&id| shard.info(id).is_some());
    }

    /// There was nothing to do: keeps looking for as long as the configuration says, then sleeps.
    pub(super) fn rest(&mut self, now: Instant) {
        let budget = self.handle.busy_poll;
        if !budget.is_zero() {
            let since = *self.idle_since.get_or_insert(now);
            if now < since + budget {
                // The next turn asks the devices themselves: that is cheaper than epoll, which would only say
                // that they are to be asked.
                self.paths.iter_mut().for_each(super::PathQueue::ask_again);
                // Whoever we wait for may be waiting for this processor.
                return std::thread::yield_now();
            }
            self.idle_since = None;
        }
        self.handle.bell.prepare_sleep();
        if self.has_mail() || self.path_is_waiting() {
            self.handle.bell.awake();
            return;
        }
        let now = self.clock.now();
        let check = (!self.is_running()).then(|| now + DRAIN_CHECK);
        let looks = self.paths.iter().filter_map(super::PathQueue::next_look);
        let due = self.shard.poll_timeout().into_iter().chain(check).chain(looks).min();
        Stats::count(&self.handle.stats.sleeps);
        self.look(due.map(|due| due.saturating_since(now)));
        self.handle.bell.awake();
    }

    /// Asks epoll what happened, waiting for at most `timeout`.
    pub(super) fn look(&mut self, timeout: Option<Duration>) {
        self.since_poll = 0;
        self.watch_paths();
        let (paths, mut links) = (&mut self.paths, false);
        self.poll.wait(timeout, |ready| match ready.token {
            Token::Bell => {}
            Token::Links => links = true,
            Token::Path(at) => {
                if let Some(path) = paths.get_mut(at) {
                    path.ready(ready);
                }
            }
        });
        if links {
            self.hear_of_links();
        }
    }

    fn hear_of_links(&mut self) {
        let Some(monitor) = self.links.as_mut() else { return };
        let mut events: Vec<LinkEvent> = Vec::new();
        if let Err(error) = monitor.poll(&mut events) {
            tracing::warn!(%error, "no more news of links: paths that go down are noticed when packets are lost");
            self.drop_links();
        }
        for event in events {
            self.paths
                .iter_mut()
                .filter(|path| path.interface_index() == Some(event.index))
                .for_each(super::PathQueue::look_soon);
        }
    }

    fn drop_links(&mut self) {
        if let Some(monitor) = self.links.take() {
            let _ = self.poll.remove(LinkMonitor::poll_fd(&monitor));
        }
    }

    fn has_mail(&self) -> bool {
        let handle = &self.handle;
        !(handle.ready.is_empty() && handle.commands.is_empty() && handle.notes.is_empty() && handle.packets.is_empty())
    }

    // --- what the application asks ---------------------------------------------------------------

    /// This worker's counters.
    pub(crate) fn counters(&self) -> Counters {
        *self.shard.counters()
    }

    /// Every connection that the application holds.
    pub(crate) fn connections(&self) -> Vec<(ConnInfo, Vec<SubflowInfo>)> {
        let known = |id| Some((self.shard.info(id)?, self.shard.subflows(id)?.into_vec()));
        self.conns.iter().filter_map(|(_, slot)| known(slot.id)).collect()
    }

    /// The current time, for commands.
    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }
}

/// Whatever ends a worker, nobody waits for it in vain.
impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(worker = self.handle.id, "worker panicked: its connections are lost");
        }
        self.handle.closed.store(true, Ordering::Relaxed);
        // Either a command that comes now is seen below, or its sender sees `closed`.
        fence(Ordering::SeqCst);
        while self.handle.commands.pop().is_some() {}
        while self.handle.ready.pop().is_some() {}
        for (_, slot) in std::mem::take(&mut self.conns) {
            slot.conn.end(Error::Aborted);
        }
        for accepting in std::mem::take(&mut self.listeners).into_values() {
            accepting.close();
        }
    }
}
