//! A host: one stack of one or several workers, its paths, and the applications on it.

use core::any::Any;
use core::cmp::Reverse;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BinaryHeap};

use anabranch_core::{
    ConnId, Error, Event, ListenerId, Mail, PathConfig, Shard, ShardConfig, Sizes, SocketOptions, WorkerId,
};
use anabranch_frame::{Instant, PathId, Payload, RxPacket};

use crate::Random;
use crate::capture::Capture;
use crate::gro::Gro;
use crate::mail::{Mailing, PostOffice};

/// Which host of a world; in the order in which they were added.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostId(pub(crate) usize);

/// Which worker of a host gets a packet that arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Steering {
    /// The first one, whatever it is.
    #[default]
    First,
    /// Any one, at random: the hardest case for the hand-over between workers.
    Random,
}

/// What a host is made of.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Its name in traces and captures.
    pub name: String,
    /// Its paths.
    pub paths: Vec<PathConfig>,
    /// How many workers its stack has; at least 1.
    pub workers: WorkerId,
    /// How packets are spread over the workers.
    pub steering: Steering,
    /// How mail between the workers travels; by default at once.
    pub mail: Mailing,
    /// Merges segments that arrive in a row, as the kernel's receive offload does, and holds one back
    /// for this long to wait for the next; `None` hands every packet up by itself.
    pub gro: Option<Duration>,
    /// Settings of the stack. Worker numbers and what depends on the seed are filled in by the world.
    pub shard: ShardConfig,
}

impl HostConfig {
    /// A host without paths and with one worker.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let shard = ShardConfig::single(0);
        let (steering, mail) = (Steering::First, Mailing::default());
        Self { name: name.into(), paths: Vec::new(), workers: 1, steering, mail, gro: None, shard }
    }

    /// Adds a path.
    #[must_use]
    pub fn path(mut self, path: PathConfig) -> Self {
        self.paths.push(path);
        self
    }
}

/// A program on a host. It owns the connections and listeners that it opens through its
/// [`HostCtx`] and hears their events.
pub trait Application: Any + fmt::Debug + Send {
    /// The program starts. The context is that of worker 0.
    fn on_start(&mut self, ctx: &mut HostCtx<'_>);

    /// Something happened to one of its connections or listeners. The context is that of its worker.
    fn on_event(&mut self, ctx: &mut HostCtx<'_>, event: Event);

    /// A time that it asked for with [`HostCtx::wake_at`] has come.
    fn on_wake(&mut self, ctx: &mut HostCtx<'_>, token: u64) {
        let _ = (ctx, token);
    }
}

/// An application in its host. Reads as the application itself through [`World::app`](crate::World::app).
pub struct AppId<A> {
    pub(crate) host: HostId,
    pub(crate) index: usize,
    kind: core::marker::PhantomData<fn() -> A>,
}

impl<A> AppId<A> {
    pub(crate) fn new(host: HostId, index: usize) -> Self {
        Self { host, index, kind: core::marker::PhantomData }
    }

    /// The host it runs on.
    #[must_use]
    pub fn host(self) -> HostId {
        self.host
    }
}

impl<A> Clone for AppId<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for AppId<A> {}

impl<A> fmt::Debug for AppId<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppId(host {}, {})", self.host.0, self.index)
    }
}

/// What an application may do with its host, seen from one worker.
#[derive(Debug)]
pub struct HostCtx<'a> {
    now: Instant,
    worker: WorkerId,
    app: usize,
    shards: &'a mut [Shard],
    owners: &'a mut Owners,
}

impl HostCtx<'_> {
    /// Now, in virtual time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The worker on which everything here happens.
    #[must_use]
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// How many workers the host has.
    #[must_use]
    pub fn workers(&self) -> WorkerId {
        self.shards.len() as WorkerId
    }

    /// The same on another worker.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn on_worker(&mut self, worker: WorkerId) -> HostCtx<'_> {
        assert!(usize::from(worker) < self.shards.len(), "worker {worker} of {}", self.shards.len());
        HostCtx { now: self.now, worker, app: self.app, shards: self.shards, owners: self.owners }
    }

    /// The worker's stack.
    pub fn shard(&mut self) -> &mut Shard {
        &mut self.shards[usize::from(self.worker)]
    }

    /// [`Shard::connect`].
    ///
    /// # Errors
    /// As there.
    pub fn connect(
        &mut self,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        options: &SocketOptions,
    ) -> Result<ConnId, Error> {
        let now = self.now;
        let conn = self.shard().connect(now, local, remote, options)?;
        self.owners.conns.insert((self.worker, conn), self.app);
        Ok(conn)
    }

    /// [`Shard::listen`] on this worker.
    ///
    /// # Errors
    /// As there.
    pub fn listen(&mut self, local: SocketAddr, backlog: usize, options: SocketOptions) -> Result<ListenerId, Error> {
        let listener = self.shard().listen(local, backlog, options)?;
        self.owners.listeners.insert((self.worker, listener), self.app);
        Ok(listener)
    }

    /// [`Shard::accept`]; events of the connection come to this application from now on.
    pub fn accept(&mut self, listener: ListenerId) -> Option<(ConnId, SocketAddr)> {
        let (conn, remote) = self.shard().accept(listener)?;
        self.owners.conns.insert((self.worker, conn), self.app);
        Some((conn, remote))
    }

    /// [`Shard::release`]; nothing more is heard of the connection.
    pub fn release(&mut self, conn: ConnId) {
        let now = self.now;
        self.shard().release(now, conn);
        self.owners.conns.remove(&(self.worker, conn));
    }

    /// Calls [`Application::on_wake`] with `token`, on this worker, at `at`.
    pub fn wake_at(&mut self, at: Instant, token: u64) {
        let order = self.owners.wakes_made;
        self.owners.wakes_made += 1;
        self.owners.wakes.push(Reverse(Wake { at, order, app: self.app, worker: self.worker, token }));
    }

    /// Calls [`Application::on_wake`] with `token`, on this worker, in `delay`.
    pub fn wake_after(&mut self, delay: Duration, token: u64) {
        self.wake_at(self.now + delay, token);
    }
}

/// A call of an application that it asked for; ordered by time and then by when it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Wake {
    pub(crate) at: Instant,
    order: u64,
    app: usize,
    worker: WorkerId,
    token: u64,
}

/// Which application hears what.
#[derive(Debug, Default)]
struct Owners {
    conns: BTreeMap<(WorkerId, ConnId), usize>,
    listeners: BTreeMap<(WorkerId, ListenerId), usize>,
    wakes: BinaryHeap<Reverse<Wake>>,
    wakes_made: u64,
}

impl Owners {
    fn of(&self, worker: WorkerId, event: Event) -> Option<usize> {
        match event {
            Event::Acceptable(listener) => self.listeners.get(&(worker, listener)),
            Event::Connected(conn)
            | Event::Readable(conn)
            | Event::Writable(conn)
            | Event::SubflowUp(conn, _)
            | Event::SubflowDown(conn, _)
            | Event::Closed(conn, _) => self.conns.get(&(worker, conn)),
            _ => None,
        }
        .copied()
    }
}

/// A host in a world.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    steering: Steering,
    random: Random,
    gro: Vec<(PathId, Gro)>,
    pub(crate) shards: Vec<Shard>,
    ended: Vec<bool>,
    mail: PostOffice,
    /// The outgoing link of each path and whether the path is up.
    pub(crate) paths: BTreeMap<PathId, Attachment>,
    /// `None` while the application runs.
    apps: Vec<Option<Box<dyn Application>>>,
    owners: Owners,
    /// Packets that left by a path without a link.
    pub(crate) unattached: u64,
    pub(crate) capture: Option<Capture>,
}

/// Where a path leads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attachment {
    pub(crate) link: Option<usize>,
    pub(crate) up: bool,
}

impl Host {
    /// A host with its paths added.
    ///
    /// # Panics
    /// If two paths have the same identifier.
    pub(crate) fn new(config: HostConfig, now: Instant, mut random: Random) -> Self {
        let stack = ShardConfig::single(random.bits());
        let mut shards = Vec::new();
        for worker in 0..config.workers.max(1) {
            let shard = ShardConfig {
                worker,
                workers: config.workers.max(1),
                seed: ShardConfig::single(random.bits()).seed,
                hash_key: stack.hash_key,
                isn_key: stack.isn_key,
                ..config.shard.clone()
            };
            let mut shard = Shard::new(shard);
            for path in &config.paths {
                if let Err(error) = shard.add_path(now, path.clone()) {
                    panic!("{} of host {}: {error}", path.id, config.name);
                }
            }
            shards.push(shard);
        }
        let paths = config.paths.iter().map(|path| (path.id, Attachment { link: None, up: true })).collect();
        Self {
            name: config.name,
            steering: config.steering,
            random,
            gro: config
                .gro
                .into_iter()
                .flat_map(|hold| config.paths.iter().map(move |path| (path.id, Gro::new(path.id, hold))))
                .collect(),
            ended: vec![false; shards.len()],
            mail: PostOffice::new(config.mail, shards.len()),
            shards,
            paths,
            apps: Vec::new(),
            owners: Owners::default(),
            unattached: 0,
            capture: None,
        }
    }

    pub(crate) fn add_app(&mut self, app: Box<dyn Application>) -> usize {
        self.apps.push(Some(app));
        self.apps.len() - 1
    }

    pub(crate) fn app(&self, index: usize) -> Option<&dyn Application> {
        self.apps.get(index)?.as_deref()
    }

    /// Lets an application run with a context of `worker`.
    pub(crate) fn with_app<R>(
        &mut self,
        now: Instant,
        app: usize,
        worker: WorkerId,
        run: impl FnOnce(&mut dyn Application, &mut HostCtx<'_>) -> R,
    ) -> Option<R> {
        let mut taken = self.apps.get_mut(app)?.take()?;
        let mut ctx = HostCtx { now, worker, app, shards: &mut self.shards, owners: &mut self.owners };
        let result = run(taken.as_mut(), &mut ctx);
        self.apps[app] = Some(taken);
        Some(result)
    }

    /// Moves mail between the workers, as much as is due. True if there was any.
    pub(crate) fn exchange_mail(&mut self, now: Instant) -> bool {
        let posted = self.mail.collect(now, &mut self.shards, &mut self.random);
        self.mail.deliver(now, &mut self.shards) || posted
    }

    /// A worker ends with all that it had, and the others are told.
    pub(crate) fn end_worker(&mut self, now: Instant, worker: WorkerId) {
        self.ended[usize::from(worker)] = true;
        for (at, shard) in self.shards.iter_mut().enumerate() {
            match self.ended[at] {
                true => *shard = Shard::new(ShardConfig::single(0)),
                false => shard.handle_mail(now, Mail::Ended(worker)),
            }
        }
        assert!(self.ended.contains(&false), "{} has no worker left", self.name);
    }

    /// What all workers hold, and letters that are on their way between them.
    pub(crate) fn sizes(&self) -> (Vec<Sizes>, usize) {
        (self.shards.iter().map(Shard::sizes).collect(), self.mail.waiting())
    }

    /// Hands all events to the applications that own what they are about. True if there was any.
    pub(crate) fn dispatch_events(&mut self, now: Instant) -> bool {
        let mut any = false;
        for worker in 0..self.shards.len() {
            while let Some(event) = self.shards[worker].poll_event() {
                any = true;
                let worker = worker as WorkerId;
                if let Some(owner) = self.owners.of(worker, event) {
                    self.with_app(now, owner, worker, |app, ctx| app.on_event(ctx, event));
                }
            }
        }
        any
    }

    /// A packet arrived on a path.
    pub(crate) fn receive(&mut self, now: Instant, path: PathId, packet: Payload) {
        match self.gro.iter_mut().find(|(id, _)| *id == path) {
            Some((_, gro)) => {
                for packet in gro.push(now, packet) {
                    self.hand_up(now, packet);
                }
            }
            None => self.hand_up(now, RxPacket::new(path, packet)),
        }
    }

    fn hand_up(&mut self, now: Instant, packet: RxPacket) {
        let worker = match self.steering {
            Steering::First => 0,
            Steering::Random => self.random.below(self.shards.len() as u64) as usize,
        };
        // The devices of a worker that ended are closed.
        let worker = (worker..).map(|at| at % self.shards.len()).find(|at| !self.ended[*at]).unwrap_or(worker);
        self.mail.read_notes(now, worker, &mut self.shards[worker]);
        self.shards[worker].handle_packet(now, packet);
    }

    /// Timers of the stack and of the applications that are due.
    pub(crate) fn handle_timeouts(&mut self, now: Instant) {
        for at in 0..self.gro.len() {
            for packet in self.gro[at].1.expire(now) {
                self.hand_up(now, packet);
            }
        }
        for shard in &mut self.shards {
            if shard.poll_timeout().is_some_and(|at| at <= now) {
                shard.handle_timeout(now);
            }
        }
        while let Some(&Reverse(wake)) = self.owners.wakes.peek() {
            if wake.at > now {
                break;
            }
            self.owners.wakes.pop();
            self.with_app(now, wake.app, wake.worker, |app, ctx| app.on_wake(ctx, wake.token));
        }
    }

    /// When to call [`handle_timeouts`](Self::handle_timeouts) next.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let stack = self.shards.iter().filter_map(Shard::poll_timeout);
        let gro = self.gro.iter().filter_map(|(_, gro)| gro.next());
        stack.chain(gro).chain(self.mail.next()).chain(self.owners.wakes.peek().map(|Reverse(wake)| wake.at)).min()
    }
}
