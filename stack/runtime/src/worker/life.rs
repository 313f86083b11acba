//! How a worker rests, and how it ends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anabranch_core::info::TcpState;
use anabranch_core::{ConnId, ConnInfo, Counters, Error, Mail, Sizes, SubflowInfo};
use anabranch_drivers::{LinkEvent, LinkMonitor};
use anabranch_frame::Instant;

use super::poll::{Events, Ready, Token};
use super::{POLL_EVERY, RX_BYTES, RX_BYTES_OF_OTHERS, Worker};

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
        // Its own thread has to see to it.
        self.handle.draining.store(true, Ordering::Relaxed);
        self.handle.bell.send_event();
        self.handle.driver.hurry();
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

    /// Does what there is to do, on the worker's own thread, until there is nothing left, and has been for as long as
    /// the configuration says. Then whoever brings work rings. Returns how many connections had to be aborted, when
    /// this is the end.
    pub(super) fn work(&mut self) -> Option<usize> {
        self.handle.bell.awake();
        let budget = self.handle.busy_poll;
        let mut idle_since = None;
        loop {
            let now = self.clock.now();
            self.since_poll += 1;
            if self.since_poll >= POLL_EVERY {
                self.look();
            }
            self.idle = true;
            let more = self.turn(now, RX_BYTES);
            let aborted = self.finished(now);
            if aborted.is_some() {
                return aborted;
            }
            if !self.idle {
                idle_since = None;
            }
            if more || self.path_is_waiting() || self.has_mail() {
                self.wake_waiting();
            } else if !budget.is_zero() && now < *idle_since.get_or_insert(now) + budget {
                self.wake_waiting();
                // The next turn asks the devices themselves: that is cheaper than epoll, which would only say
                // that they are to be asked.
                self.paths.iter_mut().for_each(super::PathQueue::ask_again);
                // Whoever we wait for may be waiting for this processor.
                std::thread::yield_now();
            } else if self.settle() {
                return None;
            }
        }
    }

    /// One turn on an application's thread. Returns whether there is nothing left to do: then whoever brings work rings.
    pub(super) fn work_once(&mut self) -> bool {
        self.handle.bell.awake();
        let more = self.turn(self.clock.now(), RX_BYTES_OF_OTHERS);
        let finished = !more && self.settle();
        if !finished {
            // Who calls does the next turn.
            self.handle.bell.prepare_sleep();
        }
        finished
    }

    /// Makes sure that whatever happens from now on wakes a thread; `false` if something has happened already.
    fn settle(&mut self) -> bool {
        self.watch_paths();
        self.handle.bell.prepare_sleep();
        let now = self.clock.now();
        let check = (!self.is_running()).then(|| now + DRAIN_CHECK);
        let looks = self.paths.iter().filter_map(super::PathQueue::next_look);
        let due = self.shard.poll_timeout().into_iter().chain(check).chain(looks).min();
        if self.has_mail() || self.path_is_waiting() || due.is_some_and(|due| due <= now) {
            self.handle.bell.awake();
            return false;
        }
        // Deadlines mostly move away: a timer that goes off too early is set again then, and not each time.
        if let Some(due) = due
            && self.timer.is_none_or(|timer| due < timer)
        {
            self.timer = Some(due);
            self.handle.poll.set_timer(due.saturating_since(now));
        }
        true
    }

    /// Asks epoll what happened, without waiting.
    fn look(&mut self) {
        self.since_poll = 0;
        self.watch_paths();
        let events = self.handle.events_now();
        self.take_events(events);
    }

    /// Takes in what epoll said, here or to others.
    pub(super) fn take_events(&mut self, events: Events) {
        for event in events {
            self.take_event(event);
        }
        while let Some(event) = self.handle.events.pop() {
            self.take_event(event);
        }
    }

    fn take_event(&mut self, event: Ready) {
        match event.token {
            Token::Bell => {}
            Token::Timer => self.timer = None,
            Token::Links => self.hear_of_links(),
            Token::Path(id) => {
                if let Some(path) = super::paths::find(&mut self.paths, id) {
                    path.ready(event);
                }
            }
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
            let _ = self.handle.poll.remove(LinkMonitor::poll_fd(&monitor));
        }
    }

    fn has_mail(&self) -> bool {
        let handle = &self.handle;
        !(handle.ready.is_empty() && handle.commands.is_empty() && handle.mail.is_empty() && handle.events.is_empty())
    }

    /// What this one was asked about the others are asked from now on: they may go on for longer.
    fn leave_to_the_others(&self) {
        for peer in self.peers.iter().filter(|peer| peer.id != self.handle.id) {
            peer.post(Mail::Ended(self.handle.id));
            peer.ring();
        }
    }

    // --- what the application asks ---------------------------------------------------------------

    /// This worker's counters.
    pub(crate) fn counters(&self) -> Counters {
        *self.shard.counters()
    }

    /// What this worker's tables hold, and what the shard has counted.
    pub(crate) fn account(&self) -> (Sizes, Counters) {
        (self.shard.sizes(), self.counters())
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
        // Either a command that comes now is seen below, or its sender sees the announcement.
        self.handle.ended.announce();
        while self.handle.commands.pop().is_some() {}
        while self.handle.ready.pop().is_some() {}
        self.leave_to_the_others();
        for (_, slot) in std::mem::take(&mut self.conns) {
            slot.conn.end(Error::Aborted);
        }
        for accepting in std::mem::take(&mut self.listeners).into_values() {
            accepting.leave();
        }
        // What a thread that waits in its place waits for will not come any more, which is an answer. And its own
        // thread has nothing left to wait for.
        self.handle.poke_driver();
        self.handle.bell.send_event();
        self.handle.driver.hurry();
    }
}
