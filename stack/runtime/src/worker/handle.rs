//! What the rest of the process holds of a worker.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anabranch_core::{Mail, WorkerId};
use anabranch_frame::RxPacket;
use crossbeam_queue::SegQueue;
use crossbeam_utils::CachePadded;

use super::Worker;
use super::poll::{Poll, Ready, Token};
use super::seat::Seat;
use crate::WorkerStats;
use crate::conn::Conn;
use crate::error::stack_is_gone;
use crate::sync::{Announcement, Bell, Driver, Mailbox, Ring, reply};

/// Packets that may wait for one worker in the hands of the others. Beyond that they are dropped: the network
/// could fill any queue.
const MAILBOX: usize = 1024;

/// Connections that may ask for service at once without an allocation.
const READY: usize = 256;

/// Something for the worker to do between two packets.
pub(crate) type Command = Box<dyn FnOnce(&mut Worker) + Send>;

/// A worker, its mailboxes, and how it sleeps and wakes.
pub(crate) struct Handle {
    pub(crate) id: WorkerId,
    pub(crate) seat: Seat,
    /// How long the worker and those who wait for it look for work before they sleep.
    pub(crate) busy_poll: Duration,
    pub(crate) bell: Bell,
    pub(super) poll: Poll,
    pub(super) driver: Driver,
    /// The worker's own thread has nothing to do.
    pub(super) resting: AtomicBool,
    /// An application's thread left something to do.
    pub(super) unfinished: AtomicBool,
    /// So many connections that the next thing to do is hardly ever the calling thread's own.
    pub(super) crowded: AtomicBool,
    /// The worker shall end once its connections have closed.
    pub(super) draining: AtomicBool,
    /// News of descriptors from a thread that found the seat taken.
    pub(super) events: SegQueue<Ready>,
    /// Connections that want service, each at most once.
    pub(crate) ready: Ring<Arc<Conn>, READY>,
    /// Commands of the application.
    pub(crate) commands: SegQueue<Command>,
    /// What other workers have for it.
    pub(crate) mail: Mailbox<RxPacket, Mail>,
    /// It has ended: what is put into its queues from now on nobody takes out.
    pub(crate) ended: Announcement,
    /// The worker's connections hold nearly as much memory as they may.
    tight: AtomicBool,
    /// Apart from what other threads read all the time.
    pub(crate) stats: CachePadded<Stats>,
}

/// What a worker counts of itself. Written by the worker alone but for `mail_dropped` and `wakeups`.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) turns: AtomicU64,
    pub(crate) sleeps: AtomicU64,
    pub(crate) wakeups: AtomicU64,
    pub(crate) mail_dropped: AtomicU64,
    pub(crate) transmit_dropped: AtomicU64,
}

impl Stats {
    pub(crate) fn read(&self) -> WorkerStats {
        WorkerStats {
            turns: self.turns.load(Ordering::Relaxed),
            sleeps: self.sleeps.load(Ordering::Relaxed),
            wakeups: self.wakeups.load(Ordering::Relaxed),
            mail_dropped: self.mail_dropped.load(Ordering::Relaxed),
            transmit_dropped: self.transmit_dropped.load(Ordering::Relaxed),
        }
    }

    /// Counts one.
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Handle {
    pub(crate) fn new(id: WorkerId, busy_poll: Duration) -> io::Result<Self> {
        let (bell, poll) = (Bell::new()?, Poll::new()?);
        poll.add(bell.event().fd(), Token::Bell)?;
        Ok(Self {
            id,
            busy_poll,
            seat: Seat::default(),
            bell,
            poll,
            driver: Driver::new(),
            resting: AtomicBool::new(false),
            unfinished: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            events: SegQueue::new(),
            ready: Ring::new(),
            commands: SegQueue::new(),
            mail: Mailbox::new(MAILBOX),
            ended: Announcement::new(),
            tight: AtomicBool::new(false),
            stats: CachePadded::default(),
        })
    }

    /// Whether the worker is short of memory: writers shall wait sooner.
    pub(crate) fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Relaxed)
    }

    /// Says whether the worker is short of memory.
    pub(super) fn set_tight(&self, tight: bool) {
        if self.is_tight() != tight {
            self.tight.store(tight, Ordering::Relaxed);
            tracing::debug!(worker = self.id, tight, "memory");
        }
    }

    /// Takes mail for the worker. The caller [rings](Self::ring) after the last one.
    pub(crate) fn post(&self, mail: Mail) {
        match mail {
            Mail::Packet(packet) => {
                if !self.mail.post_packet(packet) {
                    Stats::count(&self.stats.mail_dropped);
                }
            }
            note => self.mail.post_note(note),
        }
    }

    /// Gives the worker a command.
    ///
    /// # Errors
    /// The worker has ended; the command may have been dropped or be dropped later, but never runs.
    pub(crate) fn command(&self, command: impl FnOnce(&mut Worker) + Send + 'static) -> io::Result<()> {
        self.commands.push(Box::new(command));
        // Either the worker's last look at its queues, after it announced its end, sees the command, or we see that.
        if self.ended.stands() {
            return Err(stack_is_gone());
        }
        self.call();
        Ok(())
    }

    /// Runs `question` on the worker and waits for its answer.
    ///
    /// # Errors
    /// The worker has ended.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> io::Result<T> {
        let (reply, answer) = reply();
        self.command(move |worker| reply.send(question(worker)))?;
        answer.wait().ok_or_else(stack_is_gone)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("id", &self.id).field("stats", &self.stats).finish_non_exhaustive()
    }
}
