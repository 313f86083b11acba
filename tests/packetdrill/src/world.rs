//! The stack, its clock, and everything that has a descriptor.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write;
use std::fs;
use std::os::fd::RawFd;
use std::path::Path;
use std::time::Duration;

use anabranch_core::info::TcpState;
use anabranch_core::{ConnId, Event, ListenerId, Shard};
use anabranch_frame::{Instant, Payload, RxPacket, gso};

use crate::errno::{Errno, Result};
use crate::handle::{self, Handle};
use crate::network::Network;
use crate::pipe::Pipe;
use crate::sendbuf::Progress;
use crate::settings::{self, Settings};
use crate::socket::{Opening, Socket, Stage};

/// The time of day at the stack's origin, of which nothing depends on the value: 2024-01-01.
const EPOCH: Duration = Duration::from_secs(1_704_067_200);

/// A packet that left the stack.
#[derive(Debug)]
pub(crate) struct Packet {
    /// When, as [`World::time_of_day`] tells it.
    pub(crate) at: Duration,
    pub(crate) bytes: Vec<u8>,
}

/// All there is.
#[derive(Debug)]
pub(crate) struct World {
    now: Instant,
    pub(crate) shard: Shard,
    pub(crate) network: Network,
    pub(crate) settings: Settings,
    /// The congestion control of the namespace before anybody changed it.
    inherited: Option<String>,
    pub(crate) handles: BTreeMap<RawFd, Handle>,
    pub(crate) pipes: Vec<Pipe>,
    conns: HashMap<ConnId, RawFd>,
    listeners: HashMap<ListenerId, RawFd>,
    packets: VecDeque<Packet>,
    scratch: Vec<u8>,
}

impl World {
    pub(crate) fn new() -> Self {
        let settings = Settings::read(None);
        Self {
            // Not zero: timestamps and the time since things happened are to look like a running system's.
            now: Instant::ZERO + Duration::from_secs(1000),
            shard: Shard::new(settings.shard_config()),
            network: Network::default(),
            settings,
            inherited: None,
            handles: BTreeMap::new(),
            pipes: Vec::new(),
            conns: HashMap::new(),
            listeners: HashMap::new(),
            packets: VecDeque::new(),
            scratch: Vec::new(),
        }
    }

    /// A run begins.
    pub(crate) fn begin(&mut self, flags: &str) {
        self.network = Network::from_flags(flags);
        self.inherited = settings::congestion_control();
        self.refresh();
    }

    /// Reads settings and addresses from the namespace again.
    pub(crate) fn refresh(&mut self) {
        self.settings = Settings::read(self.inherited.as_deref());
        if self.handles.is_empty() && self.shard.connections() == 0 {
            // Nobody has anything of the old one: what is settled when a stack is made can still be had.
            self.shard = Shard::new(self.settings.shard_config());
            self.network.forget_paths();
        }
        self.shard.set_handshake(self.settings.handshake);
        self.shard.set_recovery(self.settings.recovery);
        self.shard.set_pacing(self.settings.pacing);
        self.network.refresh();
        self.network.tell(self.now, &mut self.shard);
        self.pump();
    }

    /// Writes down the counters, one on a line.
    pub(crate) fn write_counters(&self, file: &Path) {
        let mut text = String::new();
        for (name, value) in self.shard.counters().iter() {
            let _ = writeln!(text, "{name} {value}");
        }
        // Who asks for them finds none: that is seen there.
        let _ = fs::write(file, text);
    }

    // --- time ------------------------------------------------------------------------------------

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn time_of_day(&self) -> Duration {
        EPOCH + self.now.saturating_since(Instant::ZERO)
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.shard.poll_timeout().map(|due| due.max(self.now))
    }

    /// Makes it `now`, and runs what is due.
    pub(crate) fn run_timers(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if self.shard.poll_timeout().is_some_and(|due| due <= self.now) {
            self.shard.handle_timeout(self.now);
        }
        self.pump();
    }

    // --- packets ---------------------------------------------------------------------------------

    /// A packet comes in.
    pub(crate) fn inject(&mut self, bytes: &[u8]) {
        self.network.adopt_destination(self.now, &mut self.shard, bytes);
        let path = self.network.path_of_packet(bytes);
        self.shard.handle_packet(self.now, RxPacket::new(path, Payload::from(bytes)));
        self.pump();
    }

    pub(crate) fn take_packet(&mut self) -> Option<Packet> {
        self.packets.pop_front()
    }

    /// Takes out of the stack what it has to say.
    pub(crate) fn pump(&mut self) {
        let at = self.time_of_day();
        while self.shard.poll_mail().is_some() {}
        while let Some(transmit) = self.shard.poll_transmit(self.now) {
            gso::for_each_segment(&transmit, &mut self.scratch, |bytes| {
                self.packets.push_back(Packet { at, bytes: bytes.to_vec() });
            });
        }
        while let Some(event) = self.shard.poll_event() {
            self.on_event(event);
        }
        let sockets: Vec<RawFd> = self.handles.keys().copied().collect();
        for fd in sockets {
            self.follow(fd);
        }
    }

    /// Sees how far the bytes of a socket have come.
    fn follow(&mut self, fd: RawFd) {
        let now = self.time_of_day();
        let Some(Handle::Socket(socket)) = self.handles.get_mut(&fd) else { return };
        let (over, conn) = match socket.stage {
            Stage::Connected(conn) | Stage::Connecting(conn) => (false, conn),
            Stage::Ended(conn) => (true, conn),
            Stage::Idle | Stage::Listening(_) => return,
        };
        if let Some(first) = self.shard.subflows(conn).and_then(|subflows| subflows.into_iter().next()) {
            socket.info = Some(first);
        }
        let Some(progress) = progress(&self.shard, conn) else { return };
        if socket.opening == Some(Opening::Underway) && progress.established {
            socket.opening = None;
            self.wake(fd, handle::READ | handle::WRITE);
        }
        let Some(Handle::Socket(socket)) = self.handles.get_mut(&fd) else { return };
        socket.send_buffer.update(progress);
        let noted = socket.errors.on_progress(progress.sent, progress.acked, over, now);
        let room = socket.send_buffer.new_space();
        if noted {
            self.wake(fd, libc::POLLERR);
        }
        if room {
            self.wake(fd, handle::WRITE);
        }
    }

    fn on_event(&mut self, event: Event) {
        let (fd, activity) = match event {
            Event::Acceptable(listener) => (self.listeners.get(&listener), handle::READ),
            Event::Connected(conn) => (self.conns.get(&conn), handle::READ | handle::WRITE),
            Event::Readable(conn) => (self.conns.get(&conn), handle::READ),
            // Of room to write the send buffer knows better.
            Event::Closed(conn, _) => (self.conns.get(&conn), handle::READ | handle::WRITE | handle::HANG_UP),
            _ => return,
        };
        let Some(&fd) = fd else { return };
        if let Some(Handle::Socket(socket)) = self.handles.get_mut(&fd) {
            socket.on_event(event);
        }
        self.wake(fd, activity);
    }

    // --- handles ---------------------------------------------------------------------------------

    pub(crate) fn handle(&mut self, fd: RawFd) -> Result<&mut Handle> {
        self.handles.get_mut(&fd).ok_or(Errno::BAD_FD)
    }

    pub(crate) fn socket(&mut self, fd: RawFd) -> Result<&mut Socket> {
        match self.handle(fd)? {
            Handle::Socket(socket) => Ok(socket),
            _ => Err(Errno(libc::ENOTSOCK)),
        }
    }

    /// Gives `handle` a descriptor.
    pub(crate) fn open(&mut self, handle: Handle) -> Result<RawFd> {
        let fd = handle::descriptor()?;
        self.handles.insert(fd, handle);
        Ok(fd)
    }

    /// Events of `conn` go to the socket `fd` from now on.
    pub(crate) fn own_conn(&mut self, conn: ConnId, fd: RawFd) {
        self.conns.insert(conn, fd);
    }

    pub(crate) fn disown_conn(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
    }

    pub(crate) fn own_listener(&mut self, listener: ListenerId, fd: RawFd) {
        self.listeners.insert(listener, fd);
    }

    pub(crate) fn disown_listener(&mut self, listener: ListenerId) {
        self.listeners.remove(&listener);
    }
}

/// How far the bytes of a connection have come.
fn progress(shard: &Shard, conn: ConnId) -> Option<Progress> {
    let info = shard.info(conn)?;
    let subflows = shard.subflows(conn)?;
    let mss = subflows.first().map_or(0, |subflow| u64::from(subflow.snd_mss));
    let segments = |bytes: u64| bytes / mss.max(1);
    Some(Progress {
        sent: info.bytes_sent,
        acked: info.bytes_acked,
        mss,
        cwnd: segments(subflows.iter().map(|subflow| subflow.cwnd).sum()),
        in_flight: segments(subflows.iter().map(|subflow| subflow.in_flight).sum()),
        window: info.send_window + info.bytes_sent.saturating_sub(info.bytes_acked),
        established: subflows
            .first()
            .is_some_and(|first| !matches!(first.state, TcpState::SynSent | TcpState::SynReceived)),
    })
}
