//! A worker's queue of one path's device.

use std::collections::VecDeque;
use std::time::Duration;

use anabranch_core::Shard;
use anabranch_drivers::{Counters, Device, Readiness, State, TransmitError, echo};
use anabranch_frame::{Instant, PathId, RxPacket, Transmit};

use super::poll::{Poll, Ready, Token};
use super::{Stats, Worker};
use crate::opener::{Request, Requests};

mod changes;
#[cfg(test)]
mod tests;

/// Packets that a full device refused and that wait for it. At that many the shard is asked for no more.
const STASH_MAX: usize = 64;
/// Packets asked for in one go, before their bytes are looked at.
const RX_STEP: usize = 4;
/// A device that stays full for this long holds up the other paths no more: what comes for it is dropped.
const STUCK_AFTER: Duration = Duration::from_millis(10);
/// How often a device that is down is looked at.
pub(super) const REFRESH_EVERY: Duration = Duration::from_millis(100);

/// A device and what waits for it.
pub(crate) struct PathQueue {
    id: PathId,
    name: String,
    /// `None` while it is gone.
    device: Option<Box<dyn Device>>,
    /// Who opens it again when it is gone, if anybody can.
    opener: Option<Requests>,
    /// Which opening of the path the device is of.
    opening: u32,
    device_up: bool,
    /// What the application wants.
    wanted_up: bool,
    /// What the shard was told.
    shard_up: bool,
    shard_mtu: u16,
    /// There may be packets: epoll said so, or the last batch was not empty.
    readable: bool,
    stash: VecDeque<Transmit>,
    full_since: Option<Instant>,
    /// The last transmit came to a full device: do not try again before the descriptor says so.
    waits_for_room: bool,
    /// `EPOLLOUT` is being watched.
    watches_out: bool,
    /// The device is to be looked at.
    look_due: Option<Instant>,
    /// Packets were handed to the device and not flushed.
    unflushed: bool,
    /// What the devices that went had counted.
    earlier: Counters,
}

impl PathQueue {
    pub(crate) fn new(device: Box<dyn Device>, opener: Option<Requests>) -> Self {
        Self {
            id: device.path(),
            name: device.name().into(),
            device_up: device.state() == State::Up,
            wanted_up: true,
            shard_up: true,
            shard_mtu: device.capabilities().mtu,
            device: Some(device),
            opener,
            opening: 0,
            readable: true,
            stash: VecDeque::new(),
            full_since: None,
            waits_for_room: false,
            watches_out: false,
            look_due: None,
            unflushed: false,
            earlier: Counters::default(),
        }
    }

    /// Registers the device.
    pub(super) fn register(&self, poll: &Poll) -> std::io::Result<()> {
        self.device.as_ref().and_then(Device::poll_fd).map_or(Ok(()), |fd| poll.add(fd, Token::Path(self.id)))
    }

    pub(super) fn is_up(&self) -> bool {
        self.device_up && self.wanted_up
    }

    pub(super) fn counters(&self) -> Counters {
        let mut counters = self.earlier;
        if let Some(device) = &self.device {
            counters.merge(&device.counters());
        }
        counters
    }

    pub(super) fn mtu(&self) -> Option<u16> {
        self.device.as_ref().map(|device| device.capabilities().mtu)
    }

    pub(super) fn interface_index(&self) -> Option<u32> {
        self.device.as_ref().and_then(Device::interface_index)
    }

    /// Whether packets must not be polled for now: so many of this path wait already.
    pub(super) fn is_blocked(&self) -> bool {
        self.stash.len() >= STASH_MAX
    }

    /// When this path wants attention without anything happening.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let stuck = self.full_since.filter(|_| self.is_blocked()).map(|since| since + STUCK_AFTER);
        [self.look_due, stuck].into_iter().flatten().min()
    }

    /// There may be packets, for all that is known.
    pub(super) fn ask_again(&mut self) {
        self.readable = self.device.is_some();
    }

    /// Takes in up to `max` packets if there may be any, and not many more than `bytes`.
    pub(super) fn receive(&mut self, batch: &mut Vec<RxPacket>, max: usize, bytes: usize) {
        let (end, mut came) = (batch.len() + max, 0);
        while self.readable && batch.len() < end && came < bytes {
            let Some(device) = self.device.as_mut() else { return };
            let (begin, wanted) = (batch.len(), RX_STEP.min(end - batch.len()));
            match device.receive(batch, wanted) {
                // The descriptor tells of what comes from now on.
                Ok(count) => self.readable = count == wanted,
                Err(error) => {
                    self.readable = false;
                    self.look_due = Some(Instant::ZERO);
                    tracing::debug!(path = self.name, %error, "receiving failed");
                }
            }
            came += batch[begin..].iter().map(|packet| packet.data.len()).sum::<usize>();
        }
    }

    /// Sends a packet, or keeps it until the device has room, or drops it if the device is down.
    pub(super) fn send(&mut self, now: Instant, packet: Transmit, stats: &Stats) {
        if !self.stash.is_empty() || self.waits_for_room {
            return self.keep(now, packet, stats);
        }
        if let Some(packet) = self.offer(packet, stats) {
            self.keep(now, packet, stats);
        }
    }

    /// Hands a packet to the device; returns it if the device is full.
    fn offer(&mut self, packet: Transmit, stats: &Stats) -> Option<Transmit> {
        // A path that is down or gone loses its packets, as a cable that is pulled does. The stack sends
        // them again, elsewhere.
        let Some(device) = self.device.as_mut().filter(|_| self.device_up) else {
            Stats::count(&stats.transmit_dropped);
            return None;
        };
        match device.transmit(&packet) {
            Ok(()) => self.unflushed = true,
            Err(TransmitError::Full) => {
                self.waits_for_room = true;
                return Some(packet);
            }
            Err(error) => {
                tracing::debug!(path = self.name, %error, "sending failed");
                Stats::count(&stats.transmit_dropped);
                self.device_up = false;
                self.look_due = Some(Instant::ZERO);
            }
        }
        None
    }

    fn keep(&mut self, now: Instant, packet: Transmit, stats: &Stats) {
        if self.full_since.is_none() {
            self.full_since = Some(now);
        }
        if self.stash.len() < STASH_MAX {
            self.stash.push_back(packet);
        } else {
            Stats::count(&stats.transmit_dropped);
        }
    }

    /// Tries what was kept, gives up on it if the device stays full, and lets the device send.
    pub(super) fn flush(&mut self, now: Instant, stats: &Stats) {
        while !self.waits_for_room {
            let Some(packet) = self.stash.pop_front() else { break };
            if let Some(packet) = self.offer(packet, stats) {
                self.stash.push_front(packet);
            }
        }
        if self.stash.is_empty() {
            self.full_since = None;
        } else if self.full_since.is_some_and(|since| now >= since + STUCK_AFTER) {
            // Make room for new packets: old ones are worth less.
            for _ in self.stash.drain(..STASH_MAX.min(self.stash.len()) / 2) {
                Stats::count(&stats.transmit_dropped);
            }
            self.full_since = Some(now);
        }
        if std::mem::take(&mut self.unflushed)
            && let Some(device) = self.device.as_mut()
        {
            device.flush();
        }
    }

    /// Whether the descriptor has to be watched for room to write.
    fn wants_out(&self) -> bool {
        let writable = |device: &dyn Device| device.capabilities().full_until == Readiness::Writable;
        self.waits_for_room && self.device.as_deref().is_some_and(writable)
    }

    /// Brings what epoll watches up to date, before it waits.
    fn watch(&mut self, poll: &Poll) {
        let out = self.wants_out();
        if out == self.watches_out {
            return;
        }
        self.watches_out = out;
        if let Some(fd) = self.device.as_ref().and_then(Device::poll_fd)
            && let Err(error) = poll.want_out(fd, Token::Path(self.id), out)
        {
            tracing::warn!(path = self.name, %error, "cannot watch the device");
        }
    }

    /// What epoll said of the device.
    pub(super) fn ready(&mut self, ready: Ready) {
        self.readable |= ready.readable;
        if ready.writable || ready.readable {
            self.waits_for_room = false;
        }
        if ready.broken {
            self.look_due = Some(Instant::ZERO);
        }
    }

    /// Looks what has become of the device, if it is time to.
    fn look(&mut self, now: Instant, poll: &Poll, stats: &Stats) {
        if self.look_due.is_none_or(|due| now < due) {
            return;
        }
        self.look_due = None;
        let Some(device) = self.device.as_mut() else { return };
        let state = device.refresh();
        self.device_up = state == State::Up;
        match state {
            State::Up => self.readable = true,
            State::Down => self.look_due = Some(now + REFRESH_EVERY),
            State::Gone => self.lose(poll),
        }
        if state != State::Up {
            self.drop_waiting(stats);
        }
    }

    /// What waits for the device will not be sent.
    fn drop_waiting(&mut self, stats: &Stats) {
        self.waits_for_room = false;
        for _ in self.stash.drain(..) {
            Stats::count(&stats.transmit_dropped);
        }
    }

    /// The link monitor, or somebody else, wants it looked at.
    pub(super) fn look_soon(&mut self) {
        self.look_due = Some(Instant::ZERO);
    }

    pub(super) fn want_up(&mut self, up: bool) {
        self.wanted_up = up;
    }
}

impl Worker {
    /// Looks after devices that went, came or stay full, and tells the shard which paths there are.
    pub(super) fn check_paths(&mut self, now: Instant) {
        for path in &mut self.paths {
            path.look(now, &self.handle.poll, &self.handle.stats);
            if let Some(mtu) = path.mtu().filter(|&mtu| mtu != path.shard_mtu) {
                tracing::info!(worker = self.handle.id, path = path.name, mtu, "the path's MTU changed");
                path.shard_mtu = mtu;
                // The path was added when the shard was made: it is known.
                let _ = self.shard.set_path_mtu(path.id, mtu);
            }
            let up = path.is_up();
            if up == path.shard_up {
                continue;
            }
            path.shard_up = up;
            match (up, path.device.is_some()) {
                (true, _) => tracing::info!(worker = self.handle.id, path = path.name, "path is up"),
                (false, true) => tracing::warn!(worker = self.handle.id, path = path.name, "path is down"),
                (false, false) => tracing::warn!(
                    worker = self.handle.id,
                    path = path.name,
                    back = path.opener.is_some(),
                    "path is gone: its interface was deleted"
                ),
            }
            let _ = self.shard.set_path_up(now, path.id, up);
        }
    }

    /// Whether anything that happens at the paths wants a turn now.
    pub(super) fn path_is_waiting(&self) -> bool {
        self.paths.iter().any(|path| path.readable || path.is_up() != path.shard_up)
    }

    /// Brings what epoll watches up to date.
    pub(super) fn watch_paths(&mut self) {
        for path in &mut self.paths {
            path.watch(&self.handle.poll);
        }
    }

    /// The path as this worker sees it.
    pub(crate) fn path_status(&self, id: PathId) -> Option<PathStatus> {
        let path = &self.paths[place(&self.paths, id).ok()?];
        Some(PathStatus { up: path.is_up(), mtu: path.mtu(), counters: path.counters() })
    }

    /// The application wants a path used, or not.
    pub(crate) fn want_path_up(&mut self, id: PathId, up: bool) {
        if let Some(path) = find(&mut self.paths, id) {
            path.want_up(up);
            path.look_soon();
        }
    }
}

/// A path as one worker sees it.
pub(crate) struct PathStatus {
    pub(crate) up: bool,
    /// `None`: its device is gone.
    pub(crate) mtu: Option<u16>,
    /// What passed its devices.
    pub(crate) counters: Counters,
}

/// Where a path stands among others, which are in the order of their identifiers, or would.
fn place(paths: &[PathQueue], id: PathId) -> Result<usize, usize> {
    paths.binary_search_by_key(&id, |path| path.id)
}

pub(super) fn find(paths: &mut [PathQueue], id: PathId) -> Option<&mut PathQueue> {
    place(paths, id).ok().map(|at| &mut paths[at])
}

/// The answer to a ping of one of our addresses.
pub(super) fn answer_echo(packet: &RxPacket, shard: &Shard) -> Option<Transmit> {
    const ICMP: u8 = 1;
    const ICMPV6: u8 = 58;
    let protocol = match packet.data.first()? >> 4 {
        4 => packet.data.get(9),
        _ => packet.data.get(6),
    };
    match protocol {
        Some(&(ICMP | ICMPV6)) => echo::answer(packet, |addr| shard.owns(addr)),
        _ => None,
    }
}
