use std::cell::Cell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use anabranch_frame::Payload;
use arrayvec::ArrayVec;
use parking_lot::Mutex;
use rustix::io::Errno;

use super::error::OpenError;
use super::frame::{WireFrame, tag_at, tag_bytes};
use super::ring::Ring;
use super::sys::{self, About, BATCH, Slot};
use crate::buffers::Buffers;
use crate::ether::{ETHERNET_HEADER, Mac};
use crate::netlink::{Link, Netlink};
use crate::{State, TransmitError, vnet};

/// Room for a frame, in bytes: the longest IP packet that the kernel makes, a super-segment of IPv6, behind
/// an Ethernet header with two tags.
const ROOM: usize = 40 + 65_535 + ETHERNET_HEADER + 8;
/// Bytes that may wait in the kernel on their way out.
const SEND_BUFFER: i32 = 4 << 20;

/// How frames come from the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reception {
    /// By a ring in shared memory (`TPACKET_V3`). It takes no system call for each batch, but the kernel hands
    /// frames over only a millisecond late, or when many have come.
    Ring,
    /// By `recvmmsg`: at once, and a large frame is copied once less.
    Queue,
}

/// How the wire of an interface is to be opened.
#[derive(Clone, Debug)]
pub struct WireConfig {
    /// The interface.
    pub interface: String,
    /// How many sockets share what comes in, each flow on one of them. At least 1.
    pub queues: usize,
    /// How frames come from the kernel.
    pub reception: Reception,
    /// Bytes that may wait in the kernel to be received, for each socket.
    pub buffer_bytes: usize,
    /// Virtio headers: super-segments whole, checksums left to the interface, both ways.
    pub offload: bool,
    /// Send past the interface's queueing discipline, and past those who listen there.
    pub qdisc_bypass: bool,
    /// Receive what is for others, too.
    pub promiscuous: bool,
    /// Have time stamps and VLAN tags in received frames.
    pub metadata: bool,
}

/// What a wire receives, beside what its configuration says.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    /// Other addresses, unicast or group, that the interface is to receive for.
    pub(super) memberships: Vec<Mac>,
    /// A classic BPF program; what it answers with zero is not received. Empty: everything is.
    pub(super) filter: Vec<libc::sock_filter>,
}

impl WireConfig {
    /// One queue, everything that concerns the host, all that makes it fast.
    #[must_use]
    pub fn new(interface: impl Into<String>) -> Self {
        Self {
            interface: interface.into(),
            queues: 1,
            reception: Reception::Queue,
            buffer_bytes: 16 << 20,
            offload: true,
            qdisc_bypass: true,
            promiscuous: false,
            metadata: false,
        }
    }
}

/// What a wire lost. What it carried is its owner's to count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WireCounters {
    /// Frames that the kernel dropped because too many waited to be received.
    pub rx_overflow: u64,
    /// Frames dropped because they, or what the kernel said of them, made no sense.
    pub rx_malformed: u64,
    /// Frames that the kernel or the interface refused.
    pub tx_rejected: u64,
}

/// The wire of an Ethernet interface: what comes in on it, and what is put on it. Frames that the host itself sends
/// are not seen.
#[derive(Debug)]
pub struct Wire {
    fd: OwnedFd,
    name: String,
    index: u32,
    mac: Mac,
    mtu: u32,
    state: State,
    netlink: Arc<Mutex<Netlink>>,
    with_vnet: bool,
    bypass: bool,
    /// Auxiliary data come with each frame.
    metadata: bool,
    ring: Option<Ring>,
    slots: Vec<Slot>,
    /// Slots that the next call offers: few while few frames come.
    offered: usize,
    buffers: Buffers,
    counters: WireCounters,
    overflow: Cell<u64>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

impl Wire {
    /// Opens the wire of an interface in the network namespace of the calling thread: as many as there are to be
    /// queues. Where the kernel refuses what only makes it faster, one warning is logged and the slower way taken.
    ///
    /// # Errors
    /// See [`OpenError`], each of which names the cure.
    pub fn open(config: &WireConfig) -> Result<Vec<Self>, OpenError> {
        Self::open_selected(config, &Selection::default())
    }

    pub(super) fn open_selected(config: &WireConfig, selection: &Selection) -> Result<Vec<Self>, OpenError> {
        let system = |doing| system(&config.interface, doing);
        let mut netlink = Netlink::open().map_err(system("opening a netlink socket"))?;
        let link = netlink.link_by_name(&config.interface).map_err(system("looking for the interface"))?;
        let link = link.ok_or_else(|| OpenError::NoInterface { name: config.interface.clone() })?;
        let mac = link.mac.ok_or_else(|| OpenError::NotEthernet { name: link.name.clone() })?;
        let netlink = Arc::new(Mutex::new(netlink));
        let mut group = None;
        let mut wires = Vec::with_capacity(config.queues.max(1));
        for at in 0..config.queues.max(1) {
            let mut wire = Self::open_one(config, selection, &link, mac, Arc::clone(&netlink))?;
            // Without a fanout group the first socket hears everything, and the others only send.
            let listen = at == 0 || group.is_some();
            sys::bind(&wire.fd, link.index, listen).map_err(system("binding to it"))?;
            if config.queues > 1 && listen {
                match sys::fanout(&wire.fd, group) {
                    Ok(id) => group = Some(id),
                    Err(error) if at == 0 => refused(&link.name, "a fanout group", "one queue hears all", &error),
                    Err(source) => return Err(system("joining the fanout group")(source)),
                }
            }
            // What the interface is like may have changed since it was looked up.
            wire.refresh();
            wires.push(wire);
        }
        Ok(wires)
    }

    fn open_one(
        config: &WireConfig,
        selection: &Selection,
        link: &Link,
        mac: Mac,
        netlink: Arc<Mutex<Netlink>>,
    ) -> Result<Self, OpenError> {
        let name = &link.name;
        let fd = sys::socket().map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => OpenError::NoPermission { name: name.clone(), source },
            _ => system(name, "opening a packet socket")(source),
        })?;
        let option = |option, value: i32| sys::set(&fd, option, &value);
        if let Err(error) = option(libc::PACKET_IGNORE_OUTGOING, 1) {
            refused(name, "to leave out what the host sends", "it is received and dropped here", &error);
        }
        let with_vnet = config.offload
            && worked(option(libc::PACKET_VNET_HDR, 1), name, "virtio headers", "segments are cut up in software");
        let bypass = config.qdisc_bypass
            && worked(option(libc::PACKET_QDISC_BYPASS, 1), name, "to bypass the qdisc", "frames go through it");
        // Without virtio headers only the auxiliary data tell which checksums are unfinished.
        let metadata = config.metadata || !with_vnet;
        let mut ring = None;
        if config.reception == Reception::Ring {
            match Ring::new(&fd, config.buffer_bytes, with_vnet) {
                Ok(mapped) => ring = Some(mapped),
                Err(error) => refused(name, "a ring", "frames are received one by one", &error),
            }
        }
        if ring.is_none() {
            set_buffer(&fd, [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF], config.buffer_bytes as i32);
            if metadata {
                option(libc::PACKET_AUXDATA, 1).map_err(system(name, "asking for auxiliary data"))?;
            }
            if config.metadata {
                sys::set_socket(&fd, libc::SO_TIMESTAMPNS, 1).map_err(system(name, "asking for time stamps"))?;
            }
        }
        set_buffer(&fd, [libc::SO_SNDBUFFORCE, libc::SO_SNDBUF], SEND_BUFFER);
        let mut filter = selection.filter.clone();
        if !filter.is_empty() {
            sys::attach_filter(&fd, &mut filter).map_err(system(name, "attaching a filter"))?;
        }
        let promiscuous = config.promiscuous.then_some((libc::PACKET_MR_PROMISC, [0; 6]));
        let others = selection
            .memberships
            .iter()
            .map(|&mac| (if mac[0] & 1 == 1 { libc::PACKET_MR_MULTICAST } else { libc::PACKET_MR_UNICAST }, mac));
        for (kind, mac) in promiscuous.into_iter().chain(others) {
            sys::join(&fd, link.index, kind, mac).map_err(system(name, "receiving for another address"))?;
        }
        Ok(Self {
            fd,
            name: name.clone(),
            index: link.index,
            mac,
            mtu: link.mtu,
            state: State::Up,
            netlink,
            with_vnet,
            bypass,
            metadata,
            ring,
            slots: Vec::new(),
            offered: 1,
            buffers: Buffers::new(ROOM),
            counters: WireCounters::default(),
            overflow: Cell::new(0),
        })
    }

    /// The interface's name when it was opened.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kernel's index of the interface.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The interface's Ethernet address.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// The interface's MTU in bytes, without Ethernet header.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Whether super-segments and unfinished checksums pass.
    #[must_use]
    pub fn offload(&self) -> bool {
        self.with_vnet
    }

    /// How frames really come from the kernel.
    #[must_use]
    pub fn reception(&self) -> Reception {
        if self.ring.is_some() { Reception::Ring } else { Reception::Queue }
    }

    /// Whether frames pass, as far as is known.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Has a look what has become of the interface.
    pub fn refresh(&mut self) -> State {
        // A socket whose interface went down reports an error for ever, unless somebody takes it.
        let _ = sys::take_error(&self.fd);
        if self.state != State::Gone && matches!(sys::bound_to(&self.fd), Ok(bound) if bound != Some(self.index)) {
            self.state = State::Gone;
        }
        if self.state == State::Gone {
            return State::Gone;
        }
        if let Ok(link) = self.netlink.lock().link_by_index(self.index) {
            self.state = link.as_ref().map_or(State::Gone, Link::state);
            if let Some(link) = link {
                self.mtu = link.mtu;
                self.mac = link.mac.unwrap_or(self.mac);
            }
        }
        self.state
    }

    /// What to put into epoll, for `EPOLLIN`.
    #[must_use]
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What was lost.
    #[must_use]
    pub fn counters(&self) -> WireCounters {
        // The kernel forgets what it has told.
        self.overflow.set(self.overflow.get() + sys::take_drops(&self.fd));
        WireCounters { rx_overflow: self.overflow.get(), ..self.counters }
    }

    /// Appends up to `max` frames that came in and returns how many; fewer than `max` when there are no more now.
    /// Does not block.
    ///
    /// # Errors
    /// The interface is gone for good.
    pub fn receive(&mut self, batch: &mut Vec<WireFrame>, max: usize) -> io::Result<usize> {
        let before = batch.len();
        if self.ring.is_some() {
            self.receive_from_ring(batch, max);
            return Ok(batch.len() - before);
        }
        let mut told = false;
        while batch.len() - before < max {
            match self.receive_from_queue(batch, max - (batch.len() - before)) {
                Ok(true) => {}
                Ok(false) | Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) if self.refresh() == State::Gone && batch.len() == before => return Err(errno.into()),
                // It was set down, of which one is told once; frames that came before still wait.
                Err(_) if !told => told = true,
                Err(_) => break,
            }
        }
        Ok(batch.len() - before)
    }

    fn receive_from_ring(&mut self, batch: &mut Vec<WireFrame>, max: usize) {
        let Some(ring) = &mut self.ring else { return };
        let (buffers, counters, with_vnet) = (&self.buffers, &mut self.counters, self.with_vnet);
        let before = batch.len();
        while batch.len() - before < max {
            let more = ring.next(|entry| match entry {
                Some(entry) if !entry.truncated && entry.data.len() <= ROOM => {
                    let data = buffers.gather(entry.data.len(), std::iter::once(entry.data));
                    batch.push(frame(data, entry.vnet, entry.about, with_vnet));
                }
                _ => counters.rx_malformed += 1,
            });
            if !more {
                break;
            }
        }
    }

    /// One call of the kernel; whether there may be more.
    fn receive_from_queue(&mut self, batch: &mut Vec<WireFrame>, max: usize) -> Result<bool, Errno> {
        let offered = self.offered.min(max).min(BATCH);
        while self.slots.len() < offered {
            self.slots.push(Slot::new(self.buffers.take_large()));
        }
        let count = sys::receive(&self.fd, &mut self.slots[..offered], self.with_vnet, self.metadata)?;
        // Offering more than there is saves the call that finds nothing.
        self.offered = (count * 2).clamp(2, BATCH);
        for slot in &mut self.slots[..count] {
            if slot.truncated {
                self.counters.rx_malformed += 1;
                continue;
            }
            let data = match self.buffers.take_fitting(slot.len) {
                Some(mut small) => {
                    small.as_mut_slice()[..slot.len].copy_from_slice(&slot.buffer.as_mut_slice()[..slot.len]);
                    small.freeze(slot.len)
                }
                None => std::mem::replace(&mut slot.buffer, self.buffers.take_large()).freeze(slot.len),
            };
            batch.push(frame(data, slot.vnet, slot.about, self.with_vnet));
        }
        Ok(count == offered)
    }

    /// Sends a frame, whole or in segments, as the interface takes it. Does not block.
    ///
    /// # Errors
    /// When the interface takes no frames now, or ever again. One that it does not take is no error, but counted.
    pub fn send(&mut self, frame: &WireFrame) -> Result<(), TransmitError> {
        if self.needs_cutting(frame) {
            return self.send_segments(frame);
        }
        let prepared = Prepared::new(frame);
        self.send_pieces(&prepared.pieces(frame, self.with_vnet))
    }

    /// Whether a frame has to be cut up and completed before it is sent.
    fn needs_cutting(&self, frame: &WireFrame) -> bool {
        !self.with_vnet && vnet::partial_checksum(&frame.vnet).is_some()
    }

    fn send_segments(&mut self, frame: &WireFrame) -> Result<(), TransmitError> {
        let mut result = Ok(());
        frame.for_each_segment(&mut Vec::new(), |segment| {
            if result.is_ok() {
                result = self.send_pieces(&[IoSlice::new(segment)]);
            }
        });
        result
    }

    /// Sends several frames in few calls of the kernel; how many of them, from the first on, it took or refused for
    /// good.
    ///
    /// # Errors
    /// As [`send`](Self::send), if not even the first was taken.
    pub fn send_many(&mut self, frames: &[WireFrame]) -> Result<usize, TransmitError> {
        let mut done = 0;
        for chunk in frames.chunks(BATCH) {
            let result = match chunk.iter().any(|frame| self.needs_cutting(frame)) {
                true => self.send_each(chunk),
                false => {
                    let prepared: ArrayVec<Prepared, BATCH> = chunk.iter().map(Prepared::new).collect();
                    let pieces: ArrayVec<_, BATCH> = prepared
                        .iter()
                        .zip(chunk)
                        .map(|(prepared, frame)| prepared.pieces(frame, self.with_vnet))
                        .collect();
                    self.send_messages(&pieces.iter().map(|pieces| &pieces[..]).collect::<ArrayVec<_, BATCH>>())
                }
            };
            match result {
                Ok(count) => done += count,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
            if done % BATCH != 0 {
                break;
            }
        }
        Ok(done)
    }

    fn send_each(&mut self, frames: &[WireFrame]) -> Result<usize, TransmitError> {
        for (at, frame) in frames.iter().enumerate() {
            match self.send(frame) {
                Ok(()) => {}
                Err(error) if at == 0 => return Err(error),
                Err(_) => return Ok(at),
            }
        }
        Ok(frames.len())
    }

    /// Sends one frame of which the first piece is the virtio header, if there are such headers.
    pub(super) fn send_pieces(&mut self, pieces: &[IoSlice<'_>]) -> Result<(), TransmitError> {
        loop {
            match rustix::io::writev(&self.fd, pieces) {
                Ok(_) => {
                    self.state = State::Up;
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(errno) if self.give_up_bypass(errno) => {}
                Err(errno) => return self.explain(errno),
            }
        }
    }

    /// Sends frames like [`send_pieces`](Self::send_pieces) does, in few calls; how many of the first were taken or
    /// refused for good.
    pub(super) fn send_messages(&mut self, messages: &[&[IoSlice<'_>]]) -> Result<usize, TransmitError> {
        let mut done = 0;
        while done < messages.len() {
            match sys::send_many(&self.fd, &messages[done..]) {
                Ok(count) => {
                    self.state = State::Up;
                    done += count;
                }
                Err(Errno::INTR) => {}
                Err(errno) if self.give_up_bypass(errno) => {}
                Err(errno) => match self.explain(errno) {
                    // Refused for good.
                    Ok(()) => done += 1,
                    Err(error) if done == 0 => return Err(error),
                    Err(_) => break,
                },
            }
        }
        Ok(done)
    }

    /// Past the qdisc nobody cuts up what the interface cannot, and nothing waits for it: a frame that was refused
    /// there has another chance behind the qdisc. Whether it is worth while to try again.
    fn give_up_bypass(&mut self, errno: Errno) -> bool {
        if errno != Errno::NOBUFS || !self.bypass || self.refresh() != State::Up {
            return false;
        }
        self.bypass = false;
        let result = sys::set(&self.fd, libc::PACKET_QDISC_BYPASS, &0_i32);
        tracing::warn!(
            interface = self.name,
            "the interface refused a frame past its queueing discipline: sending through it from now on"
        );
        result.is_ok()
    }

    /// What an error of sending means.
    fn explain(&mut self, errno: Errno) -> Result<(), TransmitError> {
        match errno {
            Errno::AGAIN => Err(TransmitError::Full),
            Errno::NETDOWN | Errno::NXIO | Errno::NODEV | Errno::BADF => match self.refresh() {
                State::Gone => Err(TransmitError::Gone(errno.into())),
                _ => {
                    self.state = State::Down;
                    Err(TransmitError::Down)
                }
            },
            Errno::NOBUFS if self.state != State::Up => Err(TransmitError::Down),
            _ => {
                self.counters.tx_rejected += 1;
                Ok(())
            }
        }
    }
}

/// What is sent with a frame that is not in its data.
struct Prepared {
    vnet: [u8; vnet::LEN],
    tag: [u8; 4],
    tag_len: usize,
}

impl Prepared {
    fn new(frame: &WireFrame) -> Self {
        let tag_len = if frame.vlan.is_some() { 4 } else { 0 };
        let tag = frame.vlan.map(tag_bytes).unwrap_or_default();
        Self { vnet: vnet::forward(&frame.vnet, tag_len as u16), tag, tag_len }
    }

    fn pieces<'a>(&'a self, frame: &'a WireFrame, with_vnet: bool) -> ArrayVec<IoSlice<'a>, 4> {
        let vnet = if with_vnet { &self.vnet[..] } else { &[] };
        let (head, rest) = frame.data.split_at(if self.tag_len > 0 { tag_at(frame.data.len()) } else { 0 });
        let pieces = [vnet, head, &self.tag[..self.tag_len], rest];
        pieces.into_iter().filter(|piece| !piece.is_empty()).map(IoSlice::new).collect()
    }
}

fn frame(data: Payload, vnet: [u8; vnet::LEN], about: About, with_vnet: bool) -> WireFrame {
    let trusted = !with_vnet && about.status & (libc::TP_STATUS_CSUMNOTREADY | libc::TP_STATUS_CSUM_VALID) != 0;
    WireFrame { data, vlan: about.vlan, received: about.received, vnet, trusted }
}

/// Sets the size of a socket's buffer, past the limit for all where that is allowed.
fn set_buffer(fd: &OwnedFd, [force, ask]: [i32; 2], bytes: i32) {
    if sys::set_socket(fd, force, bytes).is_err() {
        // The kernel gives what its limit allows: that is no error.
        let _ = sys::set_socket(fd, ask, bytes);
    }
}

fn system<'a>(name: &'a str, doing: &'static str) -> impl FnOnce(io::Error) -> OpenError + use<'a> {
    move |source| OpenError::System { name: name.to_owned(), doing, source }
}

fn worked(result: io::Result<()>, name: &str, what: &str, instead: &str) -> bool {
    result.inspect_err(|error| refused(name, what, instead, error)).is_ok()
}

/// The one warning about something that the kernel refused.
fn refused(name: &str, what: &str, instead: &str, error: &io::Error) {
    tracing::warn!(interface = name, %error, "the kernel refused {what}: {instead}");
}
