//! The world: hosts, links, and the order in which things happen.

use core::any::Any;
use core::fmt;
use core::time::Duration;
use std::io;

use anabranch_core::{Counters, Error, Shard, Sizes, WorkerId};
use anabranch_frame::pcapng::Direction;
use anabranch_frame::{Instant, PathId, Payload, Transmit, gso};

use crate::agenda::{Agenda, Source};
use crate::capture::Capture;
use crate::host::Attachment;
use crate::middlebox::{self, Chain, Function, Middlebox, Passed, TwoWay};
use crate::trace::Trace;
use crate::{AppId, Application, Host, HostConfig, HostId, Link, LinkChange, LinkConfig, Random};

/// Packets that a host may send, or rounds it may take, at one instant before it counts as gone mad.
const RUNAWAY: usize = 1_000_000;

/// One direction of a link of a world; in the order in which they were made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(usize);

/// What a [middlebox](World::set_middlebox) does with a packet.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Lets it through, changed or not.
    Pass(Payload),
    /// Sends these instead.
    Replace(Vec<Payload>),
    /// Swallows it.
    Drop,
}

type Script = Box<dyn FnOnce(&mut World) + Send>;

struct Wire {
    link: Link,
    to: (HostId, PathId),
    boxes: Chain,
    /// Of the boxes.
    random: Random,
}

/// Hosts and links on one virtual clock.
///
/// What happens at the same time happens in the order in which it was arranged. Nothing but the seed
/// and the calls decides what happens, so the same program with the same seed runs the same way.
/// When a thread panics with a world in its hands, the world prints its seed and its latest packets.
pub struct World {
    now: Instant,
    seed: u64,
    hosts: Vec<Host>,
    wires: Vec<Wire>,
    scripts: Vec<Option<Script>>,
    agenda: Agenda,
    trace: Trace,
    /// Steps since time last moved.
    stuck: usize,
}

impl World {
    /// An empty world at time zero. With `ANABRANCH_TRACE=1` in the environment it prints every packet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            seed,
            hosts: Vec::new(),
            wires: Vec::new(),
            scripts: Vec::new(),
            agenda: Agenda::default(),
            trace: Trace::from_env(),
            stuck: 0,
        }
    }

    // --- building --------------------------------------------------------------------------------

    /// Adds a host.
    ///
    /// # Panics
    /// If two of its paths have the same identifier.
    pub fn add_host(&mut self, config: HostConfig) -> HostId {
        let id = HostId(self.hosts.len());
        self.hosts.push(Host::new(config, self.now, Random::new(self.seed, stream(id, u16::MAX))));
        id
    }

    /// Connects two paths with one link each way: `out` leads from `a` to `b`, `back` from `b` to `a`.
    ///
    /// # Panics
    /// If there is no such path or it is connected already.
    pub fn connect(
        &mut self,
        a: (HostId, PathId),
        b: (HostId, PathId),
        out: LinkConfig,
        back: LinkConfig,
    ) -> (LinkId, LinkId) {
        (self.add_link(a, b, out), self.add_link(b, a, back))
    }

    fn add_link(&mut self, from: (HostId, PathId), to: (HostId, PathId), config: LinkConfig) -> LinkId {
        let index = self.wires.len();
        let host = &mut self.hosts[from.0.0];
        match host.paths.get_mut(&from.1) {
            Some(Attachment { link: link @ None, .. }) => *link = Some(index),
            Some(_) => panic!("{} of host {} is connected already", from.1, host.name),
            None => panic!("host {} has no {}", host.name, from.1),
        }
        let link = Link::new(config, Random::new(self.seed, stream(from.0, from.1.0)), self.now);
        let random = Random::new(self.seed, BOXES | stream(from.0, from.1.0));
        self.wires.push(Wire { link, to, boxes: Chain::default(), random });
        LinkId(index)
    }

    /// Puts a function in front of a link that sees, changes or drops every packet, in place of the boxes that are there.
    pub fn set_middlebox(&mut self, link: LinkId, middlebox: impl FnMut(Instant, Payload) -> Verdict + Send + 'static) {
        self.clear_middleboxes(link);
        self.add_middlebox(link, Function(middlebox));
    }

    /// Puts a box in front of a link, behind those that are there.
    pub fn add_middlebox(&mut self, link: LinkId, middlebox: impl Middlebox + 'static) {
        self.wires[link.0].boxes.push(middlebox);
    }

    /// Puts a box in front of both links of a path, behind those that are there: `out` leads from the side that the box
    /// serves.
    pub fn add_two_way(&mut self, out: LinkId, back: LinkId, both: impl TwoWay + 'static) {
        let [outward, inward] = middlebox::sides(both);
        self.add_middlebox(out, outward);
        self.add_middlebox(back, inward);
    }

    /// Takes all boxes away that are in front of a link, with what they hold.
    pub fn clear_middleboxes(&mut self, link: LinkId) {
        self.wires[link.0].boxes.clear();
        self.arm_link(link.0);
    }

    /// Starts an application on a host.
    pub fn spawn<A: Application>(&mut self, host: HostId, app: A) -> AppId<A> {
        let index = self.hosts[host.0].add_app(Box::new(app));
        self.hosts[host.0].with_app(self.now, index, 0, Application::on_start);
        self.drive(host.0);
        AppId::new(host, index)
    }

    /// Calls `script` when the world's clock shows `at`; in the past means now.
    pub fn at(&mut self, at: Duration, script: impl FnOnce(&mut World) + Send + 'static) {
        let index = self.scripts.len();
        self.scripts.push(Some(Box::new(script)));
        self.agenda.arm(Source::Script(index), Some(self.now.max(Instant::ZERO + at)));
    }

    // --- meddling --------------------------------------------------------------------------------

    /// A device goes down or comes up: the stack is told, and nothing passes while it is down.
    ///
    /// # Errors
    /// [`Error::BadPath`] if there is no such path.
    pub fn set_path_up(&mut self, host: HostId, path: PathId, up: bool) -> Result<(), Error> {
        let it = &mut self.hosts[host.0];
        it.paths.get_mut(&path).ok_or(Error::BadPath)?.up = up;
        for shard in &mut it.shards {
            shard.set_path_up(self.now, path, up)?;
        }
        self.drive(host.0);
        Ok(())
    }

    /// Changes a link now.
    pub fn change_link(&mut self, link: LinkId, change: LinkChange) {
        self.wires[link.0].link.change(self.now, change);
        self.arm_link(link.0);
    }

    /// Calls a function on the stack of a worker of a host, and then lets the host run.
    pub fn with_shard<R>(&mut self, host: HostId, worker: WorkerId, run: impl FnOnce(Instant, &mut Shard) -> R) -> R {
        let result = run(self.now, &mut self.hosts[host.0].shards[usize::from(worker)]);
        self.drive(host.0);
        result
    }

    /// Hands a packet to a host as if it had come in on `path`.
    pub fn inject(&mut self, host: HostId, path: PathId, packet: Payload) {
        self.deliver(host, path, packet);
    }

    /// Writes what a host sends and receives from now on to `out`, as a pcapng file with one interface
    /// for each path. The clock in it starts on 2020-01-01.
    pub fn capture(&mut self, host: HostId, out: impl io::Write + Send + 'static) {
        self.hosts[host.0].capture = Some(Capture::new(Box::new(out)));
    }

    /// Ends a capture, if there is one.
    ///
    /// # Errors
    /// The first error of writing.
    pub fn end_capture(&mut self, host: HostId) -> io::Result<()> {
        self.hosts[host.0].capture.take().map_or(Ok(()), Capture::finish)
    }

    // --- running ---------------------------------------------------------------------------------

    /// When the next thing happens.
    pub fn next_event(&mut self) -> Option<Instant> {
        self.agenda.next()
    }

    /// Lets one thing happen. False if nothing ever will.
    ///
    /// # Panics
    /// If time stands still.
    pub fn step(&mut self) -> bool {
        let Some((at, source)) = self.agenda.pop() else { return false };
        self.stuck = if at > self.now { 0 } else { self.stuck + 1 };
        assert!(self.stuck < RUNAWAY, "time stands still at {}: {source:?} comes up again and again", self.now);
        self.now = self.now.max(at);
        match source {
            Source::Link(index) => {
                while let Some(packet) = self.wires[index].link.poll(self.now) {
                    let (host, path) = self.wires[index].to;
                    self.deliver(host, path, packet);
                }
                self.arm_link(index);
            }
            Source::Boxes(index) => {
                let wire = &mut self.wires[index];
                let passed = wire.boxes.on_timeout(self.now, &mut wire.random);
                self.enqueue(index, passed);
            }
            Source::Host(index) => {
                self.hosts[index].handle_timeouts(self.now);
                self.drive(index);
            }
            Source::Script(index) => {
                if let Some(script) = self.scripts[index].take() {
                    script(self);
                }
            }
        }
        true
    }

    /// Runs until `done`, and says whether that came before `deadline`, a time on the world's clock.
    #[must_use]
    pub fn run_until(&mut self, deadline: Duration, mut done: impl FnMut(&World) -> bool) -> bool {
        let deadline = Instant::ZERO + deadline;
        loop {
            if done(self) {
                return true;
            }
            if self.agenda.next().is_none_or(|at| at > deadline) {
                self.now = self.now.max(deadline);
                return false;
            }
            self.step();
        }
    }

    /// Runs until the world's clock shows `until`.
    pub fn run_to(&mut self, until: Duration) {
        let _ = self.run_until(until, |_| false);
    }

    /// Runs for so long.
    pub fn run_for(&mut self, time: Duration) {
        self.run_to(self.elapsed() + time);
    }

    // --- looking ---------------------------------------------------------------------------------

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now - Instant::ZERO
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The seed that everything follows from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// An application.
    ///
    /// # Panics
    /// If it is of another world, or is running just now.
    #[must_use]
    pub fn app<A: Application>(&self, id: AppId<A>) -> &A {
        let app: Option<&dyn Any> = self.hosts[id.host.0].app(id.index).map(|app| app as &dyn Any);
        app.and_then(|app| app.downcast_ref()).unwrap_or_else(|| panic!("{id:?} is none of this world's"))
    }

    /// Lets an application do something, and then lets its host run.
    ///
    /// # Panics
    /// If it is of another world, or is running just now.
    pub fn with_app<A: Application, R>(
        &mut self,
        id: AppId<A>,
        run: impl FnOnce(&mut A, &mut crate::HostCtx<'_>) -> R,
    ) -> R {
        let result = self.hosts[id.host.0].with_app(self.now, id.index, 0, |app, ctx| {
            let app: &mut dyn Any = app;
            app.downcast_mut().map(|app| run(app, ctx))
        });
        self.drive(id.host.0);
        result.flatten().unwrap_or_else(|| panic!("{id:?} is none of this world's"))
    }

    /// The link by which a path of a host leads out.
    #[must_use]
    pub fn link_of(&self, host: HostId, path: PathId) -> Option<LinkId> {
        self.hosts[host.0].paths.get(&path)?.link.map(LinkId)
    }

    /// A link.
    #[must_use]
    pub fn link(&self, link: LinkId) -> &Link {
        &self.wires[link.0].link
    }

    /// The stack of a worker of a host.
    #[must_use]
    pub fn shard(&self, host: HostId, worker: WorkerId) -> &Shard {
        &self.hosts[host.0].shards[usize::from(worker)]
    }

    /// How many workers a host has.
    #[must_use]
    pub fn workers(&self, host: HostId) -> WorkerId {
        self.hosts[host.0].shards.len() as WorkerId
    }

    /// What the workers of a host hold, and how many letters between them nobody has read yet.
    #[must_use]
    pub fn sizes(&self, host: HostId) -> (Vec<Sizes>, usize) {
        self.hosts[host.0].sizes()
    }

    /// A worker of a host ends as if its thread had died; the others are told.
    ///
    /// # Panics
    /// If it is the last one.
    pub fn end_worker(&mut self, host: HostId, worker: WorkerId) {
        self.hosts[host.0].end_worker(self.now, worker);
        self.drive(host.0);
    }

    /// The counters of a host, all workers together.
    #[must_use]
    pub fn counters(&self, host: HostId) -> Counters {
        let mut sum = Counters::default();
        for shard in &self.hosts[host.0].shards {
            sum.merge(shard.counters());
        }
        sum
    }

    /// Packets that a host sent by a path that leads nowhere.
    #[must_use]
    pub fn unattached(&self, host: HostId) -> u64 {
        self.hosts[host.0].unattached
    }

    /// The latest packets, one line each, oldest first.
    #[must_use]
    pub fn trace(&self) -> String {
        self.trace.render()
    }

    // --- inside ----------------------------------------------------------------------------------

    fn arm_link(&mut self, index: usize) {
        let wire = &self.wires[index];
        self.agenda.arm(Source::Link(index), wire.link.next());
        self.agenda.arm(Source::Boxes(index), wire.boxes.deadline());
    }

    fn deliver(&mut self, host: HostId, path: PathId, packet: Payload) {
        if self.hosts[host.0].paths.get(&path).is_none_or(|attachment| !attachment.up) {
            return;
        }
        self.record(host.0, path, Direction::Inbound, &packet);
        self.hosts[host.0].receive(self.now, path, packet);
        self.drive(host.0);
    }

    fn record(&mut self, host: usize, path: PathId, direction: Direction, packet: &Payload) {
        let host = &mut self.hosts[host];
        self.trace.packet(self.now, &host.name, path, direction, packet);
        if let Some(capture) = &mut host.capture {
            capture.packet(self.now, &host.name, path, direction, packet);
        }
    }

    /// Polls a host until it is dry, in the order that the core asks for.
    fn drive(&mut self, index: usize) {
        for round in 0.. {
            assert!(round < RUNAWAY, "host {} never runs dry at {}", self.hosts[index].name, self.now);
            let mail = self.hosts[index].exchange_mail(self.now);
            self.transmit_all(index);
            let events = self.hosts[index].dispatch_events(self.now);
            if !mail && !events {
                break;
            }
        }
        let next = self.hosts[index].next_timeout();
        self.agenda.arm(Source::Host(index), next);
    }

    fn transmit_all(&mut self, index: usize) {
        let mut sent = 0;
        for worker in 0..self.hosts[index].shards.len() {
            while let Some(transmit) = self.hosts[index].shards[worker].poll_transmit(self.now) {
                sent += 1;
                assert!(sent < RUNAWAY, "host {} sends without end at {}", self.hosts[index].name, self.now);
                self.transmit(index, &transmit);
            }
        }
    }

    /// Cuts what a host sends into packets and hands them to its link.
    fn transmit(&mut self, index: usize, transmit: &Transmit) {
        let host = &mut self.hosts[index];
        let wire = match host.paths.get(&transmit.path) {
            Some(&Attachment { link: Some(link), up: true }) => link,
            Some(Attachment { up: false, .. }) => return,
            _ => {
                host.unattached += 1;
                return;
            }
        };
        let mut packets = Vec::with_capacity(transmit.segment_count());
        gso::for_each_segment(transmit, &mut Vec::new(), |packet| packets.push(Payload::from(packet)));
        for packet in packets {
            self.record(index, transmit.path, Direction::Outbound, &packet);
            let Wire { boxes, random, link, .. } = &mut self.wires[wire];
            if boxes.is_empty() {
                link.enqueue(self.now, packet);
            } else {
                let passed = boxes.on_packet(self.now, random, packet);
                self.enqueue(wire, passed);
            }
        }
        self.arm_link(wire);
    }

    /// What came out of the boxes in front of a link goes over it, and back over the one in the other direction.
    fn enqueue(&mut self, index: usize, passed: Passed) {
        let back = opposite(index);
        for (wire, packets) in [(index, passed.onward), (back, passed.back)] {
            for packet in packets {
                self.wires[wire].link.enqueue(self.now, packet);
            }
            self.arm_link(wire);
        }
    }
}

/// The link in the other direction: links are made two at a time.
fn opposite(wire: usize) -> usize {
    wire ^ 1
}

/// Marks the random streams of boxes.
const BOXES: u64 = 1 << 40;

/// The number of the random stream of a host's outgoing path.
fn stream(host: HostId, path: u16) -> u64 {
    (host.0 as u64 + 1) << 16 | u64::from(path)
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}to repeat this run: ANABRANCH_SEED={}", self.trace.render(), self.seed);
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("now", &self.now)
            .field("seed", &self.seed)
            .field("hosts", &self.hosts.len())
            .field("links", &self.wires.len())
            .finish_non_exhaustive()
    }
}
