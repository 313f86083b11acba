//! What every device can do.

use std::io;
use std::os::fd::BorrowedFd;

use anabranch_frame::{PathId, RxPacket, Transmit};

use crate::segments;

/// One queue of something that carries IP datagrams, owned by one worker.
///
/// # What the owner does
///
/// 1. Registers [`poll_fd`](Self::poll_fd) in its epoll set, edge-triggered, for `EPOLLIN`.
/// 2. When it is readable, calls [`receive`](Self::receive) until it brings fewer packets than asked for: the device
///    was empty then, and whatever comes later (packets, the device's end) is a new edge.
/// 3. Calls [`transmit`](Self::transmit) for each packet and, after the last one of the turn, [`flush`](Self::flush).
/// 4. On [`TransmitError::Full`] keeps the packet, stops polling the stack for more packets of this path,
///    and tries again when the descriptor shows [`Capabilities::full_until`]: for
///    [`Readiness::Writable`] it adds `EPOLLOUT` to what it waits for until the packet has gone, for
///    [`Readiness::Readable`] it need not change anything.
/// 5. On [`TransmitError::Down`] drops the packet (the stack retransmits), tells the stack that the path is
///    down, and asks [`refresh`](Self::refresh) until the answer is [`State::Up`]: when a
///    [`LinkMonitor`](crate::LinkMonitor) reports the interface, or else now and then (100 ms is plenty). A device
///    that is down stays registered for `EPOLLIN`: its descriptor is quiet. Who only receives does not notice
///    that the interface is down, but through the monitor.
/// 6. On an error from `receive`, on [`TransmitError::Gone`], or when epoll reports `EPOLLERR` or `EPOLLHUP` and
///    `refresh` answers [`State::Gone`]: removes the descriptor from epoll *before it waits again* (a
///    deleted interface reports `EPOLLERR` for ever), tells the stack that the path is down, and drops
///    the device. Gone is for good; a new interface of the same name is a new device.
///
/// A packet that the device has taken may still be lost, like any packet; [`counters`](Self::counters)
/// tell what the device itself lost and why.
pub trait Device: Send {
    /// The interface's name, or what stands for one.
    fn name(&self) -> &str;

    /// The path whose packets this device carries.
    fn path(&self) -> PathId;

    /// The kernel's index of the interface, to compare with [`LinkEvent::index`](crate::LinkEvent::index);
    /// `None` when there is no interface.
    fn interface_index(&self) -> Option<u32> {
        None
    }

    /// What the device can do. Constant but for the MTU, which may change with the interface's.
    fn capabilities(&self) -> Capabilities;

    /// Whether packets pass, as far as the device has noticed. Costs nothing.
    fn state(&self) -> State;

    /// Like [`state`](Self::state), but has a look (a system call or two) and also reads the MTU anew.
    fn refresh(&mut self) -> State {
        self.state()
    }

    /// Appends up to `max` packets that came in and returns how many; fewer than `max` when there are no more now.
    /// Does not block.
    ///
    /// # Errors
    /// The device is gone, see [`State::Gone`]. Packets that came before that have been delivered.
    fn receive(&mut self, batch: &mut Vec<RxPacket>, max: usize) -> io::Result<usize>;

    /// Sends a packet, or a super-segment of at most [`Capabilities::max_len`] bytes. Does not block.
    ///
    /// A packet that the device or the kernel finds unfit is dropped and counted: that is no error.
    ///
    /// # Errors
    /// When the device cannot take packets now or ever again. The packet is still the caller's.
    fn transmit(&mut self, packet: &Transmit) -> Result<(), TransmitError>;

    /// Makes sure that what was handed to [`transmit`](Self::transmit) is on its way. Does not block.
    fn flush(&mut self) {}

    /// What to put into epoll; `None` for a device that something else wakes.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>>;

    /// What passed and what was lost here.
    fn counters(&self) -> Counters;
}

impl<D: Device + ?Sized> Device for Box<D> {
    fn name(&self) -> &str {
        (**self).name()
    }
    fn path(&self) -> PathId {
        (**self).path()
    }
    fn interface_index(&self) -> Option<u32> {
        (**self).interface_index()
    }
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }
    fn state(&self) -> State {
        (**self).state()
    }
    fn refresh(&mut self) -> State {
        (**self).refresh()
    }
    fn receive(&mut self, batch: &mut Vec<RxPacket>, max: usize) -> io::Result<usize> {
        (**self).receive(batch, max)
    }
    fn transmit(&mut self, packet: &Transmit) -> Result<(), TransmitError> {
        (**self).transmit(packet)
    }
    fn flush(&mut self) {
        (**self).flush();
    }
    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        (**self).poll_fd()
    }
    fn counters(&self) -> Counters {
        (**self).counters()
    }
}

impl Counters {
    /// Adds what another device counted.
    pub fn merge(&mut self, more: &Self) {
        let Self {
            rx_packets,
            rx_segments,
            rx_bytes,
            rx_malformed,
            rx_overflow,
            rx_foreign,
            rx_dropped,
            tx_packets,
            tx_segments,
            tx_bytes,
            tx_full,
            tx_down,
            tx_rejected,
            tx_unresolved,
            tx_dropped,
        } = more;
        self.rx_packets += rx_packets;
        self.rx_segments += rx_segments;
        self.rx_bytes += rx_bytes;
        self.rx_malformed += rx_malformed;
        self.rx_overflow += rx_overflow;
        self.rx_foreign += rx_foreign;
        self.rx_dropped += rx_dropped;
        self.tx_packets += tx_packets;
        self.tx_segments += tx_segments;
        self.tx_bytes += tx_bytes;
        self.tx_full += tx_full;
        self.tx_down += tx_down;
        self.tx_rejected += tx_rejected;
        self.tx_unresolved += tx_unresolved;
        self.tx_dropped += tx_dropped;
    }

    /// Counts a packet that was received and delivered.
    pub(crate) fn received(&mut self, packet: &RxPacket) {
        self.rx_packets += 1;
        self.rx_segments += segments::count(packet);
        self.rx_bytes += packet.data.len() as u64;
    }

    /// Counts a packet that was sent.
    pub(crate) fn sent(&mut self, packet: &Transmit) {
        self.tx_packets += 1;
        self.tx_segments += packet.segment_count() as u64;
        self.tx_bytes += packet.len() as u64;
    }
}

/// What a device can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Longest IP datagram on the wire, in bytes.
    pub mtu: u16,
    /// Longest datagram that [`Device::transmit`] takes, headers included, in bytes. At least `mtu`; more than
    /// that must carry [`Transmit::segment_size`].
    pub max_len: u32,
    /// Super-segments are not cut up in software in this process: large ones are cheap.
    pub segmentation_offload: bool,
    /// Transport checksums are not computed in this process.
    pub checksum_offload: bool,
    /// What the descriptor shows once there is room again after [`TransmitError::Full`].
    pub full_until: Readiness,
}

/// What epoll reports of a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// `EPOLLIN`.
    Readable,
    /// `EPOLLOUT`.
    Writable,
}

/// Whether packets pass a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// They do, as far as is known.
    Up,
    /// The interface is set down. It may come back.
    Down,
    /// The interface was deleted, or taken from us. It does not come back.
    Gone,
}

/// Why a device did not take a packet.
#[derive(Debug, thiserror::Error)]
pub enum TransmitError {
    /// No room now.
    #[error("the device has no room for a packet now")]
    Full,
    /// The interface is set down.
    #[error("the interface is down; `ip link set dev NAME up` brings it back")]
    Down,
    /// The interface was deleted, or the descriptor broke.
    #[error("the interface is gone: {0}")]
    Gone(#[source] io::Error),
}

/// What passed a device, since it was opened. A super-segment counts as one packet here, and as
/// many segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Packets received and delivered.
    pub rx_packets: u64,
    /// Segments that they stand for.
    pub rx_segments: u64,
    /// Their bytes, IP headers included.
    pub rx_bytes: u64,
    /// Received packets dropped because the device's own header, or the packet's length, made no sense.
    pub rx_malformed: u64,
    /// Packets that the kernel dropped because too many waited to be received.
    pub rx_overflow: u64,
    /// Received frames that were for somebody else, or of a protocol that the device does not speak.
    pub rx_foreign: u64,
    /// Received packets dropped by a wrapper on purpose.
    pub rx_dropped: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Segments that they stand for.
    pub tx_segments: u64,
    /// Their bytes, IP headers included, as handed in.
    pub tx_bytes: u64,
    /// Packets refused because there was no room.
    pub tx_full: u64,
    /// Packets refused because the interface was down or gone.
    pub tx_down: u64,
    /// Packets dropped because the kernel refused just them, or because they were longer than the device takes.
    pub tx_rejected: u64,
    /// Packets dropped because there is no way to their destination, or the neighbour to send them to did not
    /// answer. Of all queues of an interface, as the first one shows it.
    pub tx_unresolved: u64,
    /// Sent packets dropped by a wrapper on purpose.
    pub tx_dropped: u64,
}
