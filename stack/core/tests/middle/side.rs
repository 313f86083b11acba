use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anabranch_core::shard::{Read, Shutdown};
use anabranch_core::{
    ConnId, Error, Event, IpCidr, ListenerId, NewEndpoint, PathConfig, Shard, ShardConfig, SocketOptions,
    counters::Counters,
};
use anabranch_frame::{Instant, PathId, Payload, Transmit};

use super::PATHS_MAX;
use super::program::Setup;

/// Most transmissions that one instant can need: more is a loop.
const TRANSMITS_MAX: usize = 20_000;

/// The application's idea of a connection.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) id: ConnId,
    /// The opener's port: it names the connection on both sides.
    pub(crate) key: u16,
    pub(crate) written: u64,
    pub(crate) read: u64,
    pub(crate) shut_write: bool,
    pub(crate) shut_read: bool,
    pub(crate) aborted: bool,
    pub(crate) released: bool,
    /// The end of reading: of the stream, or an error.
    pub(crate) end: Option<Result<(), Error>>,
    pub(crate) closed: Option<Option<Error>>,
}

impl App {
    /// Neither finished here nor broken.
    pub(crate) fn is_open(&self) -> bool {
        !(self.aborted || self.released) && self.end != Some(Err(Error::NotConnected))
    }
}

/// One stack and its application.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) index: usize,
    pub(crate) shard: Shard,
    pub(crate) apps: Vec<App>,
    pub(crate) mtu: usize,
    options: SocketOptions,
    v6: bool,
    paths: Vec<Path>,
}

/// A path of a stack's, or where one was.
#[derive(Clone, Debug)]
struct Path {
    config: PathConfig,
    there: bool,
}

pub(crate) const PORT: u16 = 5001;

pub(crate) fn address(v6: bool, path: u16, side: usize) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd00, path, 0, 0, 0, 0, 0, side as u16 + 1).into()
    } else {
        Ipv4Addr::new(10, path as u8, 0, side as u8 + 1).into()
    }
}

/// Byte number `position` of what `from` writes on connection `key`.
fn pattern(key: u16, from: usize, position: u64) -> u8 {
    let mixed = (position + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(key) << 20 ^ (from as u64) << 40;
    (mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8
}

impl Side {
    pub(crate) fn new(index: usize, setup: &Setup) -> Self {
        let mut shard = Shard::new(ShardConfig::single(7 + index as u64));
        let mut paths = Vec::new();
        for path in 0..setup.paths {
            let prefix = if setup.v6 { 64 } else { 24 };
            let cidr = IpCidr::new(address(setup.v6, path, index), prefix).expect("a prefix of that family");
            let mut config = PathConfig::new(PathId(path), vec![cidr]);
            config.mtu = setup.mtu;
            config.gso_max = setup.gso_max;
            if path > 0 {
                config.flags = setup.flags[index];
            }
            shard.add_path(Instant::ZERO, config.clone()).expect("a new path");
            paths.push(Path { config, there: true });
        }
        let options = SocketOptions {
            mptcp: setup.mptcp[index],
            nodelay: setup.nodelay,
            scheduler: setup.scheduler.into(),
            congestion: setup.congestion.into(),
            path_manager: setup.manager[index].into(),
            checksum: setup.checksum[index],
            send_buffer_max: setup.buffer_max,
            recv_buffer_max: setup.buffer_max,
            ..SocketOptions::default()
        };
        Self { index, shard, apps: Vec::new(), mtu: setup.mtu.into(), options, v6: setup.v6, paths }
    }

    pub(crate) fn listen(&mut self) -> ListenerId {
        let any = if self.v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        self.shard.listen(SocketAddr::new(any, PORT), 16, self.options.clone()).expect("the only listener")
    }

    /// What the stack calls a path, if it is there.
    pub(crate) fn path(&self, path: u16) -> Option<PathId> {
        Some(&self.paths[usize::from(path)]).filter(|path| path.there).map(|path| path.config.id)
    }

    /// What the stack calls a path, or called it.
    pub(crate) fn last_path(&self, path: u16) -> PathId {
        self.paths[usize::from(path)].config.id
    }

    pub(crate) fn set_path_up(&mut self, now: Instant, path: u16, up: bool) {
        if let Some(id) = self.path(path) {
            self.shard.set_path_up(now, id, up).expect("a path that exists");
        }
    }

    pub(crate) fn remove_path(&mut self, now: Instant, path: u16) {
        if let Some(id) = self.path(path) {
            self.paths[usize::from(path)].there = false;
            self.shard.remove_path(now, id).expect("a path that exists");
        }
    }

    /// Adds a path that is not there, under another number than before, with its address.
    pub(crate) fn add_path(&mut self, now: Instant, path: u16, up: bool) {
        if self.path(path).is_none() {
            // It may be on another path.
            self.remove_address(now, path);
            let path = &mut self.paths[usize::from(path)];
            path.there = true;
            path.config.id.0 += PATHS_MAX;
            let config = path.config.clone();
            if up { self.shard.add_path(now, config) } else { self.shard.add_path_down(config) }.expect("a new path");
        }
    }

    /// Removes the address that a path had at first, wherever it is.
    pub(crate) fn remove_address(&mut self, now: Instant, path: u16) {
        let addr = address(self.v6, path, self.index);
        if let Some(endpoint) = self.shard.endpoints().iter().find(|endpoint| endpoint.addr == addr) {
            self.shard.remove_endpoint(now, endpoint.id).expect("an address that exists");
        }
    }

    /// Adds the address that `path` had at first, if it is nowhere, to the path `to`, if that is there.
    pub(crate) fn add_address(&mut self, now: Instant, path: u16, to: u16) {
        let PathConfig { addrs, flags, .. } = &self.paths[usize::from(path)].config;
        let (addr, flags) = (addrs[0], *flags);
        if let Some(path) = self.path(to).filter(|_| !self.shard.owns(addr.addr)) {
            let new = NewEndpoint { path, addr, id: 0, flags, port: None };
            self.shard.add_endpoint(now, &new).expect("a new address");
        }
    }

    pub(crate) fn connect(&mut self, now: Instant) {
        let remote = SocketAddr::new(address(self.v6, 0, 1 - self.index), PORT);
        // All paths may be down.
        let Ok(id) = self.shard.connect(now, None, remote, &self.options.clone()) else { return };
        let key = self.shard.info(id).expect("it was just made").local.port();
        self.add(id, key);
    }

    fn add(&mut self, id: ConnId, key: u16) {
        self.apps.push(App {
            id,
            key,
            written: 0,
            read: 0,
            shut_write: false,
            shut_read: false,
            aborted: false,
            released: false,
            end: None,
            closed: None,
        });
    }

    /// Polls until dry; what is to be sent comes back.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<Transmit> {
        let mut out = Vec::new();
        for _ in 0..100 {
            while let Some(transmit) = self.shard.poll_transmit(now) {
                out.push(transmit);
                assert!(out.len() < TRANSMITS_MAX, "side {} sends without end at {now}", self.index);
            }
            assert!(self.shard.poll_mail().is_none(), "mail from the only worker");
            while let Some(event) = self.shard.poll_event() {
                self.on_event(event);
            }
            if self.shard.poll_timeout().is_none_or(|at| at > now) {
                return out;
            }
            self.shard.handle_timeout(now);
        }
        panic!("side {}: the timer of {:?} never goes off at {now}", self.index, self.shard.poll_timeout())
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Acceptable(listener) => {
                while let Some((id, remote)) = self.shard.accept(listener) {
                    self.add(id, remote.port());
                }
            }
            Event::Closed(id, why) => {
                if let Some(app) = self.apps.iter_mut().find(|app| app.id == id) {
                    assert_eq!(app.closed, None, "side {}: closed twice", self.index);
                    app.closed = Some(why);
                }
            }
            _ => {}
        }
    }

    /// Writes up to `len` bytes of the connection's pattern, as far as there is room.
    pub(crate) fn write(&mut self, now: Instant, index: usize, len: usize) {
        let app = &mut self.apps[index];
        let len = len.min(self.shard.write_room(app.id));
        if len == 0 || app.shut_write || !app.is_open() {
            return;
        }
        let bytes: Vec<u8> =
            (app.written..app.written + len as u64).map(|at| pattern(app.key, self.index, at)).collect();
        if self.shard.write(now, app.id, Payload::from(bytes)).is_ok() {
            app.written += len as u64;
        }
    }

    /// Reads up to `max` bytes; with `check`, they must be the peer's.
    pub(crate) fn read(&mut self, now: Instant, index: usize, max: usize, check: bool) -> bool {
        let app = &mut self.apps[index];
        if !app.is_open() || app.end.is_some() {
            return false;
        }
        match self.shard.read(app.id, max) {
            Read::Data(payload) => {
                assert!(!payload.is_empty() && payload.len() <= max, "read {} of {max} bytes", payload.len());
                if check {
                    let peer = 1 - self.index;
                    let wrong =
                        (0u64..).zip(&payload[..]).find(|&(at, &byte)| pattern(app.key, peer, app.read + at) != byte);
                    assert_eq!(wrong, None, "side {}: wrong from byte {} on: {app:?}", self.index, app.read);
                }
                app.read += payload.len() as u64;
                self.shard.consumed(now, app.id, payload.len());
                true
            }
            Read::Empty => false,
            Read::Eof => {
                app.end = Some(Ok(()));
                false
            }
            Read::Failed(error) => {
                app.end = Some(Err(error));
                false
            }
        }
    }

    pub(crate) fn shutdown(&mut self, now: Instant, index: usize, how: Shutdown) {
        let app = &mut self.apps[index];
        if !app.is_open() {
            return;
        }
        if self.shard.shutdown(now, app.id, how).is_ok() {
            app.shut_write |= how != Shutdown::Read;
            app.shut_read |= how != Shutdown::Write;
        }
    }

    pub(crate) fn abort(&mut self, now: Instant, index: usize) {
        let app = &mut self.apps[index];
        app.aborted = true;
        self.shard.abort(now, app.id);
    }

    /// Aborts what waits for a window that does not open.
    pub(crate) fn abort_probing(&mut self, now: Instant) {
        for app in &self.apps {
            if self.shard.info(app.id).is_some_and(|info| info.send_window == 0 && info.send_queued > 0) {
                self.shard.abort(now, app.id);
            }
        }
    }

    pub(crate) fn release(&mut self, now: Instant, index: usize) {
        let app = &mut self.apps[index];
        app.released = true;
        self.shard.release(now, app.id);
    }

    /// What waits to be read or for a hole to be filled stays within twice the buffer that was allowed (with
    /// several subflows a peer may send beyond the edge), and a segment.
    pub(crate) fn check_memory(&self) {
        for info in self.apps.iter().filter_map(|app| self.shard.info(app.id)) {
            let held = info.recv_queued + info.recv_out_of_order;
            let most = 2 * u64::from(self.options.recv_buffer_max) + self.mtu as u64;
            assert!(held <= most, "side {} holds {held} bytes: {info:?}", self.index);
        }
    }

    /// No state without an owner, a timer for all that is under way, and counters that are right.
    pub(crate) fn audit(&self) {
        if let Err(what) = self.shard.audit() {
            panic!("side {}: {what}:\n{}", self.index, self.describe());
        }
    }

    /// Everything that helps to find out what went wrong.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!("side {}: {} connections\n", self.index, self.shard.connections());
        for app in &self.apps {
            text += &format!("  {app:?}\n");
            if let Some(info) = self.shard.info(app.id) {
                text += &format!("    {info:?}\n");
            }
            for subflow in self.shard.subflows(app.id).unwrap_or_default() {
                text += &format!("    {subflow:?}\n");
            }
        }
        let counts = self.counters().iter().filter(|&(_, count)| count > 0);
        text + &format!("  next timer {:?}, {:?}\n", self.shard.poll_timeout(), counts.collect::<Vec<_>>())
    }

    pub(crate) fn counters(&self) -> &Counters {
        self.shard.counters()
    }
}
