//! Two stacks and somebody in the middle, who follows a program made of bytes: packets are delivered,
//! lost, doubled, held back, damaged, altered and made up; time passes; the applications on both sides
//! connect, write, read, close and let go.
//!
//! Whatever happens, nothing panics, nothing loops, what is sent is well formed, and in the end no
//! connection is left over. As long as nobody forges, every byte that is read is the byte that was
//! written, and a stream ends where its writer ended it.

mod forge;
mod manage;
mod program;
mod side;

use std::collections::VecDeque;
use std::time::Duration;

use anabranch_core::SockOpt;
use anabranch_core::shard::Shutdown;
use anabranch_core::wire::{Flags, MptcpOption, Segment};
use anabranch_frame::{Instant, PathId, Payload, RxPacket, Transmit, gso};

use forge::Secrets;
use program::{Program, Setup};

pub(crate) use program::Dialect;
use side::Side;

/// Packets that a wire holds; more are lost.
const WIRE_MAX: usize = 256;
/// Packets that can come back from the past.
const PAST_MAX: usize = 64;
/// A packet that is older is gone for good: half of TIME-WAIT (RFC 9293 §3.4.1).
const LIFETIME: Duration = Duration::from_secs(30);
/// A packet held back for longer may look like a lost one.
const LATE: Duration = Duration::from_millis(150);
/// Paths there are at most.
const PATHS_MAX: u16 = 3;
/// Connections that the applications open in one run.
const CONNECTIONS_MAX: usize = 8;
/// How long the network works well at the end before whatever is still there counts as stuck.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);

/// A packet under way.
#[derive(Clone, Debug)]
struct Packet {
    sent: Instant,
    path: u16,
    bytes: Vec<u8>,
    segment_size: Option<u16>,
    /// Two changes could cancel each other out in the checksum: one is enough.
    damaged: bool,
}

/// What came of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// Bytes that were read.
    pub(crate) bytes: u64,
    /// Connections that ended in good order, both streams whole.
    pub(crate) whole: usize,
    /// Connections that spoke MPTCP.
    pub(crate) mptcp: u64,
    /// Subflows that joined.
    pub(crate) joins: u64,
    /// Steps that were taken.
    pub(crate) steps: u64,
}

impl std::iter::Sum for Outcome {
    fn sum<I: Iterator<Item = Self>>(outcomes: I) -> Self {
        outcomes.fold(Self::default(), |a, b| Self {
            bytes: a.bytes + b.bytes,
            whole: a.whole + b.whole,
            mptcp: a.mptcp + b.mptcp,
            joins: a.joins + b.joins,
            steps: a.steps + b.steps,
        })
    }
}

/// Runs `program` from its first byte to its last, then lets the network heal and everything end.
///
/// # Panics
/// If a stack breaks one of its promises.
pub(crate) fn run(program: &[u8], dialect: Dialect) -> Outcome {
    let mut program = Program::new(program);
    let setup = Setup::read(&mut program, dialect);
    let mut middle = Middle::new(&setup);
    let mut steps = 0;
    while !program.is_over() {
        middle.step(&mut program);
        steps += 1;
    }
    Outcome { steps, ..middle.finish() }
}

struct Middle {
    now: Instant,
    /// The opener and the listener.
    sides: [Side; 2],
    /// What is under way to each side.
    wires: [VecDeque<Packet>; 2],
    /// What went to each side lately.
    past: [VecDeque<Packet>; 2],
    secrets: Secrets,
    paths: u16,
    split: bool,
    honest: bool,
    dialect: Dialect,
    /// By side that they lead to and path: what is lost without a word.
    dark: [[bool; PATHS_MAX as usize]; 2],
    /// Somebody forged: bytes may be wrong.
    forged: bool,
    /// Packets were lost or late: connections may break.
    harsh: bool,
    trace: bool,
}

impl Middle {
    fn new(setup: &Setup) -> Self {
        let mut sides = [Side::new(0, setup), Side::new(1, setup)];
        sides[1].listen();
        sides[0].connect(Instant::ZERO);
        let mut middle = Self {
            now: Instant::ZERO,
            sides,
            wires: Default::default(),
            past: Default::default(),
            secrets: Secrets::default(),
            paths: setup.paths,
            split: setup.split,
            honest: setup.honest,
            dialect: setup.dialect,
            dark: Default::default(),
            forged: false,
            harsh: false,
            trace: std::env::var_os("ANABRANCH_TRACE").is_some(),
        };
        middle.settle();
        middle
    }

    /// Both sides say all that they have to say now.
    fn settle(&mut self) {
        for from in 0..2 {
            for transmit in self.sides[from].poll(self.now) {
                self.send(from, &transmit);
            }
            self.sides[from].check_memory();
            self.sides[from].audit();
        }
        self.check_progress();
    }

    /// Nobody has acknowledged what did not come, nor got what nobody wrote.
    fn check_progress(&self) {
        if self.forged {
            return;
        }
        for opener in &self.sides[0].apps {
            let mut answering = self.sides[1].apps.iter().filter(|app| app.key == opener.key);
            // An old SYN may have made a second one after the first was aborted, with the same numbers at the same time.
            let (Some(listener), None) = (answering.next(), answering.next()) else { continue };
            let of = |side: usize, app: &side::App| self.sides[side].shard.info(app.id);
            let (Some(a), Some(b)) = (of(0, opener), of(1, listener)) else { continue };
            // One that fell back alone takes for read what waits there for the rest of its mapping.
            let agreed = a.mptcp == b.mptcp;
            for (from, to, writer) in [(&a, &b, opener), (&b, &a, listener)] {
                assert!(!agreed || from.bytes_acked <= to.bytes_received, "acknowledged in vain: {from:?} {to:?}");
                assert!(to.bytes_received <= writer.written, "invented: {writer:?} {to:?}");
            }
        }
    }

    fn send(&mut self, from: usize, transmit: &Transmit) {
        let mut pieces = Vec::new();
        gso::for_each_segment(transmit, &mut Vec::new(), |bytes| pieces.push(bytes.to_vec()));
        for bytes in &pieces {
            self.check_sent(from, bytes);
            self.note("sends to", 1 - from, bytes);
        }
        let path = transmit.path.0 % PATHS_MAX;
        if self.sides[from].path(path) != Some(transmit.path) {
            // The farewell of what was on a path that is gone.
            self.harsh = true;
            return;
        }
        if !self.split {
            pieces.truncate(1);
            gso::complete(transmit, &mut pieces[0]);
        }
        for bytes in pieces {
            let segment_size = transmit.segment_size.filter(|_| !self.split);
            let packet = Packet { sent: self.now, path, bytes, segment_size, damaged: false };
            self.remember(1 - from, &packet);
            self.put(1 - from, packet);
        }
    }

    /// What a stack sends is well formed, whatever it was sent.
    fn check_sent(&mut self, from: usize, bytes: &[u8]) {
        let side = &self.sides[from];
        assert!(bytes.len() <= side.mtu, "side {from} sent {} bytes at an MTU of {}", bytes.len(), side.mtu);
        let packet = RxPacket::new(PathId(0), Payload::from(bytes));
        let segment = Segment::parse(packet).unwrap_or_else(|why| panic!("side {from} sent {bytes:02x?}: {why:?}"));
        assert_eq!(segment.options.malformed, 0, "side {from} sent {segment:?}");
        // A reset is the last that is heard from an address.
        let farewell = self.dialect == Dialect::Moving && segment.flags.has(Flags::RST);
        let owned = side.shard.owns(segment.tuple.remote.ip());
        assert!(owned || farewell, "side {from} sent from {}", segment.tuple.remote);
        for (start, end) in &segment.options.sack {
            assert!(start.before(*end), "side {from} sent an empty SACK block: {segment:?}");
        }
        for option in &segment.options.mptcp {
            if let MptcpOption::Capable(capable) = option
                && let Some(key) = capable.sender_key
            {
                self.secrets.keys[from] = key;
            }
        }
    }

    fn note(&self, what: &str, to: usize, bytes: &[u8]) {
        if self.trace {
            eprintln!("{} {what} {to}: {}", self.now, forge::describe(bytes));
        }
    }

    fn remember(&mut self, to: usize, packet: &Packet) {
        if self.past[to].len() == PAST_MAX {
            self.past[to].pop_front();
        }
        self.past[to].push_back(packet.clone());
    }

    fn put(&mut self, to: usize, packet: Packet) {
        if self.wires[to].len() < WIRE_MAX {
            self.wires[to].push_back(packet);
        } else {
            self.harsh = true;
        }
    }

    fn deliver(&mut self, to: usize) -> bool {
        let Some(packet) = self.wires[to].pop_front() else { return false };
        let age = self.now.saturating_since(packet.sent);
        self.harsh |= age > LATE;
        let lost = self.dark[to][usize::from(packet.path)];
        self.harsh |= lost;
        if age < LIFETIME && !lost {
            self.note("delivers to", to, &packet.bytes);
            let mut rx = RxPacket::new(self.sides[to].last_path(packet.path), Payload::from(packet.bytes));
            rx.segment_size = packet.segment_size;
            self.sides[to].shard.handle_packet(self.now, rx);
            self.settle();
        }
        true
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        for wire in &self.wires {
            self.harsh |= wire.front().is_some_and(|packet| self.now.saturating_since(packet.sent) > LATE);
        }
        self.settle();
    }

    /// To the next timer of either side, a minute at most.
    fn wait_for_timer(&mut self) {
        let next = self.sides.iter().filter_map(|side| side.shard.poll_timeout()).min();
        let time = next.map_or(Duration::ZERO, |at| at.saturating_since(self.now));
        self.wait(time.min(Duration::from_secs(60)));
    }

    fn step(&mut self, program: &mut Program<'_>) {
        let op = program.byte();
        let who = usize::from(op >> 7);
        match op & 0x1f {
            _ if self.dialect != Dialect::Plain && op & 0x60 == 0x60 => self.manage(who, program),
            0..=7 => {
                for _ in 0..1 << (op & 3) {
                    self.deliver(who);
                }
            }
            8..=10 => self.on_wire(who, program),
            11 => self.replay(who, program),
            12 => self.forge(who, program),
            13 | 14 => self.wait_for_timer(),
            15 => self.wait(Duration::from_micros(1 << program.below(27))),
            16 => self.wait(Duration::from_millis(10)),
            _ => self.application(op & 0x1f, who, program),
        }
        self.settle();
    }

    /// Something happens to the next packet to `to`.
    fn on_wire(&mut self, to: usize, program: &mut Program<'_>) {
        let what = program.below(8);
        let Some(mut packet) = self.wires[to].pop_front() else { return };
        match what {
            0 | 1 => self.harsh = true,
            2 => {
                self.put(to, packet.clone());
                self.wires[to].push_front(packet);
            }
            3 | 4 => self.put(to, packet),
            5 => {
                self.harsh = true;
                if !packet.damaged {
                    forge::damage(&mut packet.bytes, program);
                }
                packet.damaged = true;
                self.wires[to].push_front(packet);
            }
            6 => {
                // On a SYN it only turns MPTCP off. Later it leaves bytes without a mapping.
                self.harsh = true;
                // A checksum that damage made wrong must stay so.
                let harmless = forge::is_syn(&packet.bytes) && !packet.damaged;
                if harmless || !self.honest {
                    self.forged |= !forge::is_syn(&packet.bytes);
                    forge::strip(&mut packet.bytes);
                }
                self.wires[to].push_front(packet);
            }
            _ => {
                if !self.honest {
                    self.forged = true;
                    forge::alter(&mut packet.bytes, program);
                }
                self.wires[to].push_front(packet);
            }
        }
    }

    /// An old packet comes once more.
    fn replay(&mut self, to: usize, program: &mut Program<'_>) {
        let index = program.below(self.past[to].len());
        if let Some(packet) = self.past[to].get(index).cloned() {
            self.wires[to].push_front(packet);
            self.deliver(to);
        }
    }

    /// A packet comes that nobody sent.
    fn forge(&mut self, to: usize, program: &mut Program<'_>) {
        let index = program.below(self.past[to].len());
        let Some(packet) = self.past[to].get(index).filter(|_| !self.honest) else { return };
        let Some(like) = forge::parse(&packet.bytes) else { return };
        self.forged = true;
        if let Some(info) = self.sides[to].apps.last().and_then(|app| self.sides[to].shard.info(app.id)) {
            self.secrets.token = info.token;
        }
        let bytes = forge::segment(&like, &self.secrets, program);
        let packet = Packet { sent: self.now, path: packet.path, bytes, segment_size: None, damaged: false };
        self.wires[to].push_front(packet);
        self.deliver(to);
    }

    fn application(&mut self, op: u8, who: usize, program: &mut Program<'_>) {
        let now = self.now;
        let count = self.sides[who].apps.len();
        if op == 31 && program.below(4) == 0 && self.sides[0].apps.len() < CONNECTIONS_MAX {
            return self.sides[0].connect(now);
        }
        if count == 0 {
            return;
        }
        let index = program.below(count);
        let check = !self.forged;
        let side = &mut self.sides[who];
        match op {
            17..=21 => side.write(now, index, program.size()),
            22..=25 => {
                side.read(now, index, program.size(), check);
            }
            26 => match program.below(8) {
                0 => side.shutdown(now, index, Shutdown::Both),
                1 => side.shutdown(now, index, Shutdown::Read),
                _ => side.shutdown(now, index, Shutdown::Write),
            },
            27 => match program.below(8) {
                0 => side.abort(now, index),
                1 | 2 => side.release(now, index),
                _ => {}
            },
            28 => {
                self.harsh = true;
                let path = program.below(self.paths.into()) as u16;
                self.sides[who].set_path_up(now, path, program.byte() & 1 == 0);
            }
            29 => {
                let id = side.apps[index].id;
                // A subflow that may not exist: then it is an error, which is fine.
                let _ = side.shard.set_backup(now, id, program.byte() & 3, program.byte() & 1 == 0);
            }
            30 => {
                let id = side.apps[index].id;
                let _ = side.shard.set_option(now, id, SockOpt::Nodelay(program.byte() & 1 == 0));
            }
            _ => {}
        }
    }

    /// Time goes on with a network that works, until `done` or nothing moves any more.
    fn heal(&mut self, what: &str, done: impl Fn(&mut Self) -> bool) {
        let end = self.now + PATIENCE;
        for _ in 0..200_000 {
            let mut moved = false;
            for to in 0..2 {
                for _ in 0..self.wires[to].len() {
                    moved |= self.deliver(to);
                }
            }
            if done(self) {
                return;
            }
            let idle = self.sides.iter().all(|side| side.shard.poll_timeout().is_none());
            if self.now > end || idle && self.wires.iter().all(VecDeque::is_empty) {
                break;
            }
            if moved {
                self.wait(Duration::from_millis(1));
            } else {
                self.wait_for_timer();
            }
        }
        panic!("{what} at {}:\n{}{}", self.now, self.sides[0].describe(), self.sides[1].describe());
    }

    fn finish(mut self) -> Outcome {
        self.dark = Default::default();
        for side in &mut self.sides {
            for path in 0..self.paths {
                side.add_path(self.now, path, true);
                side.add_address(self.now, path, path);
                side.set_path_up(self.now, path, true);
            }
        }
        self.settle();
        if !self.forged {
            self.end_streams();
        }
        let outcome = self.outcome();
        self.let_go();
        outcome
    }

    /// Every writer ends its stream, and every reader comes to the end or hears of an error.
    fn end_streams(&mut self) {
        // A peer that reset the connection may have done so unheard.
        let (idle, interval) = (Duration::from_secs(10), Duration::from_secs(1));
        for side in &mut self.sides {
            for app in side.apps.iter().filter(|app| app.is_open()) {
                // The connection may be over already.
                for option in [
                    SockOpt::Keepidle(idle),
                    SockOpt::Keepintvl(interval),
                    SockOpt::Keepcnt(5),
                    SockOpt::Keepalive(true),
                ] {
                    let _ = side.shard.set_option(self.now, app.id, option);
                }
            }
        }
        self.settle();
        self.heal("streams that do not end", |middle| {
            let now = middle.now;
            let mut all = true;
            for side in &mut middle.sides {
                for index in 0..side.apps.len() {
                    side.shutdown(now, index, Shutdown::Write);
                    while side.read(now, index, 1 << 20, true) {}
                    let app = &side.apps[index];
                    all &= !app.is_open() || app.end.is_some();
                }
            }
            middle.settle();
            all
        });
        for opener in &self.sides[0].apps {
            let Some(listener) = self.sides[1].apps.iter().find(|app| app.key == opener.key) else { continue };
            for (reader, writer) in [(opener, listener), (listener, opener)] {
                let quiet = !reader.shut_read && writer.is_open();
                if reader.end == Some(Ok(())) && quiet {
                    assert_eq!(reader.read, writer.written, "an end that is none: {reader:?} of {writer:?}");
                }
                let left = [reader, writer].iter().any(|app| app.aborted || app.released || app.shut_read);
                if let Some(Err(error)) = reader.end {
                    assert!(self.harsh || left, "{error} out of the blue: {reader:?} of {writer:?}");
                }
            }
        }
    }

    /// The applications let go of everything: in the end nothing is left.
    fn let_go(&mut self) {
        let now = self.now;
        for side in &mut self.sides {
            for index in 0..side.apps.len() {
                side.release(now, index);
            }
        }
        self.settle();
        // Forged bytes can leave two ends that disagree for ever, and answer each other's window probes
        // (RFC 1122 §4.2.2.17 has them go on): that is for the application to end.
        let late = now + PATIENCE / 2;
        self.heal("connections that stay", |middle| {
            let now = middle.now;
            if middle.forged && now > late {
                for side in &mut middle.sides {
                    side.abort_probing(now);
                }
            }
            for side in &mut middle.sides {
                // One that was accepted only now.
                for index in 0..side.apps.len() {
                    if !side.apps[index].released {
                        side.release(now, index);
                    }
                }
            }
            middle.settle();
            middle.sides.iter().all(|side| side.shard.connections() == 0)
        });
    }

    fn outcome(&self) -> Outcome {
        let [opener, listener] = &self.sides;
        let whole = |key: u16| {
            let ended = |side: &Side| side.apps.iter().any(|app| app.key == key && app.end == Some(Ok(())));
            ended(opener) && ended(listener)
        };
        Outcome {
            bytes: self.sides.iter().flat_map(|side| &side.apps).map(|app| app.read).sum(),
            whole: opener.apps.iter().filter(|app| whole(app.key)).count(),
            mptcp: listener.counters().mp_capable_ack_rx,
            joins: self.sides.iter().map(|side| side.counters().mp_join_ack_rx).sum(),
            steps: 0,
        }
    }
}
