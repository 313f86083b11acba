//! One worker thread: a shard of the stack, its queue of every path's device, and the sockets that live on it.
//!
//! A turn takes in what waits (packets, mail, rings, commands, time), lets the shard speak, and wakes the
//! application threads that wait for what came of it. A worker that finds nothing to do sleeps in epoll, which
//! holds the devices, the [bell](crate::sync::Bell) and, as the timeout, the shard's next deadline.
//!
//! Nothing in here blocks but that, and nothing takes a lock that an application thread may hold.

mod conns;
mod handle;
mod life;
mod listeners;
mod manage;
mod paths;
mod poll;
mod seat;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use anabranch_core::{ConnId, Event, ListenerId, Mail, Shard};
use anabranch_drivers::LinkMonitor;
use anabranch_frame::{Instant, RxPacket};
use slab::Slab;

pub(crate) use conns::Opening;
pub(crate) use handle::{Handle, Stats};
pub(crate) use manage::Watcher;
pub(crate) use paths::PathQueue;
pub(crate) use poll::{Poll, Token};
pub(crate) use seat::thread;

use crate::listener::Accepting;
use conns::Slot;
use life::Life;
use seat::Woken;

/// Packets taken from one device in one turn.
const RX_BATCH: usize = 32;
/// Bytes after which a turn takes no more packets from a device: on the worker's own thread, and on an application's
/// thread, which looks at them next and wants them in its cache.
const RX_BYTES: usize = 2 << 20;
const RX_BYTES_OF_OTHERS: usize = 192 << 10;
/// Packets sent in one turn before the devices are read again.
const TX_BATCH: usize = 64;
/// Connections served and commands run in one turn.
const SERVICE_BATCH: usize = 256;
/// Turns without sleep after which epoll is asked about devices that were quiet.
const POLL_EVERY: u32 = 32;

/// Nanoseconds since the stack was built: the clock that all workers share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(std::time::Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn now(self) -> Instant {
        Instant::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// See the module.
pub(crate) struct Worker {
    pub(crate) shard: Shard,
    pub(crate) handle: Arc<Handle>,
    /// All workers, by their numbers.
    peers: Arc<[Arc<Handle>]>,
    clock: Clock,
    links: Option<LinkMonitor>,
    /// In the order of their identifiers.
    paths: Vec<PathQueue>,
    conns: Slab<Slot>,
    by_id: HashMap<ConnId, u32>,
    listeners: HashMap<ListenerId, Arc<Accepting>>,
    /// Who wants to hear of connections and their paths.
    watchers: Vec<Watcher>,
    /// Connections whose waiting threads are to be told at the end of the turn.
    touched: Vec<u32>,
    /// Connections that their application let go of, and that may not have finished closing.
    released: Vec<ConnId>,
    life: Life,
    /// Packets of this turn, from a device and from other workers.
    batch: Vec<RxPacket>,
    mail: Vec<RxPacket>,
    since_poll: u32,
    /// When the timer goes off, if it was set.
    timer: Option<Instant>,
    /// Nothing came in this turn.
    idle: bool,
    /// Whom to wake, once there is nothing else to do.
    woken: Woken,
}

/// What a worker is made of.
pub(crate) struct WorkerParts {
    pub(crate) shard: Shard,
    pub(crate) handle: Arc<Handle>,
    pub(crate) peers: Arc<[Arc<Handle>]>,
    pub(crate) clock: Clock,
    pub(crate) links: Option<LinkMonitor>,
    pub(crate) paths: Vec<PathQueue>,
}

impl Worker {
    /// Registers everything that wakes the worker.
    pub(crate) fn new(parts: WorkerParts) -> io::Result<Self> {
        let WorkerParts { shard, handle, peers, clock, links, paths } = parts;
        let poll = &handle.poll;
        if let Some(monitor) = &links {
            poll.add(monitor.poll_fd(), Token::Links)?;
        }
        for path in &paths {
            path.register(poll)?;
        }
        Ok(Self {
            shard,
            handle,
            peers,
            clock,
            links,
            paths,
            conns: Slab::new(),
            by_id: HashMap::new(),
            listeners: HashMap::new(),
            watchers: Vec::new(),
            touched: Vec::new(),
            released: Vec::new(),
            life: Life::Running,
            batch: Vec::with_capacity(RX_BATCH),
            mail: Vec::new(),
            since_poll: 0,
            timer: None,
            idle: true,
            woken: Woken::new(),
        })
    }

    /// One turn, in which each device is asked for about `rx_bytes`. Returns whether there is more to send already.
    fn turn(&mut self, now: Instant, rx_bytes: usize) -> bool {
        Stats::count(&self.handle.stats.turns);
        self.receive(now, rx_bytes);
        self.take_mail(now);
        // What a thread did to a connection comes before what it asked afterwards.
        self.serve_ready(now);
        self.run_commands();
        if self.shard.poll_timeout().is_some_and(|due| due <= now) {
            self.shard.handle_timeout(now);
        }
        self.check_paths(now);
        let more = self.speak(now);
        self.handle.set_tight(self.shard.memory().tight);
        more
    }

    fn receive(&mut self, now: Instant, rx_bytes: usize) {
        for at in 0..self.paths.len() {
            let mut batch = std::mem::take(&mut self.batch);
            self.paths[at].receive(&mut batch, RX_BATCH, rx_bytes);
            if !batch.is_empty() {
                self.idle = false;
                self.take_notes(now);
            }
            for packet in batch.drain(..) {
                match paths::answer_echo(&packet, &self.shard) {
                    Some(answer) => self.paths[at].send(now, answer, &self.handle.stats),
                    None => self.shard.handle_packet(now, packet),
                }
            }
            self.batch = batch;
        }
    }

    /// Takes in what other workers say of tuples. After packets were taken from a queue and before they are
    /// handled: whatever note was on its way before a packet has arrived by then, so that the entry that forwards the
    /// packet is there.
    fn take_notes(&mut self, now: Instant) {
        while let Some(note) = self.handle.mail.take_note() {
            self.shard.handle_mail(now, note);
        }
    }

    fn take_mail(&mut self, now: Instant) {
        self.handle.mail.take_packets(SERVICE_BATCH, &mut self.mail);
        self.idle &= self.mail.is_empty();
        self.take_notes(now);
        for packet in self.mail.drain(..) {
            self.shard.handle_mail(now, Mail::Packet(packet));
        }
    }

    fn run_commands(&mut self) {
        for _ in 0..SERVICE_BATCH {
            let Some(command) = self.handle.commands.pop() else { break };
            command(self);
        }
    }

    fn serve_ready(&mut self, now: Instant) {
        for _ in 0..SERVICE_BATCH {
            let Some(conn) = self.handle.ready.pop() else { break };
            self.idle = false;
            conn.service.begin();
            self.serve(now, &conn);
        }
    }

    /// Lets the shard speak until it is dry, or has said as much as a turn allows; returns whether there is more.
    fn speak(&mut self, now: Instant) -> bool {
        let mut sent = 0;
        loop {
            self.forward_mail();
            while sent < TX_BATCH && !self.paths.iter().any(PathQueue::is_blocked) {
                let Some(packet) = self.shard.poll_transmit(now) else { break };
                sent += 1;
                self.transmit(now, packet);
            }
            // Events make the applications' bytes move, and those make packets.
            let mut events = false;
            while let Some(event) = self.shard.poll_event() {
                events = true;
                self.handle_event(now, event);
            }
            if !events || sent >= TX_BATCH {
                break;
            }
        }
        if !self.watchers.is_empty() {
            self.tell_watchers();
        }
        for path in &mut self.paths {
            path.flush(now, &self.handle.stats);
        }
        sent >= TX_BATCH
    }

    fn forward_mail(&mut self) {
        let mut last = None;
        while let Some((worker, mail)) = self.shard.poll_mail() {
            let Some(peer) = self.peers.get(usize::from(worker)) else { continue };
            peer.post(mail);
            if last.replace(worker).is_some_and(|before| before != worker) {
                // Rare: mail for several workers at once. Ring them all below.
                self.peers.iter().for_each(|peer| peer.ring());
            }
        }
        if let Some(worker) = last {
            self.peers[usize::from(worker)].ring();
        }
    }

    fn transmit(&mut self, now: Instant, packet: anabranch_frame::Transmit) {
        match paths::find(&mut self.paths, packet.path) {
            Some(path) => path.send(now, packet, &self.handle.stats),
            None => Stats::count(&self.handle.stats.transmit_dropped),
        }
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Acceptable(listener) => self.fill_accepting(now, listener),
            Event::Connected(id) => self.with_slot(id, Self::connected),
            Event::Readable(id) => self.with_slot(id, |worker, slot| worker.pump_rx(now, slot)),
            Event::Writable(id) => self.with_slot(id, |worker, slot| worker.pump_tx(now, slot)),
            Event::Drained(id) => self.with_slot(id, Self::drained),
            Event::Closed(id, error) => self.with_slot(id, |worker, slot| worker.closed(now, slot, error)),
            Event::SubflowUp(id, subflow) => tracing::debug!(?id, subflow, "subflow up"),
            Event::SubflowDown(id, subflow) => tracing::debug!(?id, subflow, "subflow down"),
            _ => {}
        }
    }

    fn with_slot(&mut self, id: ConnId, act: impl FnOnce(&mut Self, u32)) {
        // Not there: it waits to be accepted, or the application let go of it.
        if let Some(&slot) = self.by_id.get(&id) {
            act(self, slot);
        }
    }
}
