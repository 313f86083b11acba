//! Two devices back to back in one process, for tests and for programs that talk to themselves.
//!
//! A packet that one side transmits the other side receives: in order, at once, without loss until the
//! queue between them is full. With offload, super-segments and unfinished checksums pass as they are, as they
//! do between a TUN device and the kernel; without, packets look as they would on a wire.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use anabranch_frame::{PathId, Payload, RxChecksum, RxPacket, Transmit, gso};
use crossbeam_queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};

use crate::buffers::Buffers;
use crate::{Capabilities, Counters, Device, Readiness, State, TransmitError, segments};

/// The longest datagram that the IP headers can express, in bytes.
const LONGEST: u32 = 65_535;

/// What a link between two [`MemoryDevice`]s is like. Both sides are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryConfig {
    /// Longest datagram in bytes, super-segments aside.
    pub mtu: u16,
    /// Super-segments pass whole and their checksums are trusted; otherwise they are cut up, and their
    /// checksums completed and left to be verified.
    pub offload: bool,
    /// How many packets wait in each direction before a device is full.
    pub queue_len: usize,
}

impl Default for MemoryConfig {
    /// MTU 1500, offload, 1000 packets.
    fn default() -> Self {
        Self { mtu: 1_500, offload: true, queue_len: 1_000 }
    }
}

/// Two devices, each of which receives what the other one sends. `paths` are what each side calls the link.
///
/// # Errors
/// When the process has run out of file descriptors.
pub fn pair(paths: [PathId; 2], config: MemoryConfig) -> io::Result<(MemoryDevice, MemoryDevice)> {
    let [a, b] = [End::new(config)?, End::new(config)?].map(Arc::new);
    Ok((MemoryDevice::new(paths[0], config, Arc::clone(&a), Arc::clone(&b)), MemoryDevice::new(paths[1], config, b, a)))
}

/// What waits for one side, and how to wake it.
#[derive(Debug)]
struct End {
    inbox: ArrayQueue<RxPacket>,
    wake: OwnedFd,
    /// The wake-up was written and not taken back yet.
    awake: AtomicBool,
    /// The sender found no room and wants to hear of it.
    sender_waits: AtomicBool,
    /// This side was dropped.
    closed: AtomicBool,
}

impl End {
    fn new(config: MemoryConfig) -> io::Result<Self> {
        Ok(Self {
            inbox: ArrayQueue::new(config.queue_len.max(1)),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            awake: AtomicBool::new(false),
            sender_waits: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        })
    }

    fn wake(&self) {
        if !self.awake.swap(true, Ordering::SeqCst) {
            // The counter is far from its limit: this cannot fail.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    /// Takes the wake-up back. Whoever calls this must look at the inbox once more afterwards: a packet
    /// that arrived in between wrote no wake-up of its own.
    fn sleep(&self) {
        if self.awake.load(Ordering::SeqCst) {
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
            self.awake.store(false, Ordering::SeqCst);
        }
    }
}

/// One side of a link in memory, see [`pair`].
///
/// When it is dropped the other side is [`State::Gone`] once it has read what was sent before.
#[derive(Debug)]
pub struct MemoryDevice {
    path: PathId,
    config: MemoryConfig,
    ours: Arc<End>,
    theirs: Arc<End>,
    buffers: Buffers,
    segment: Vec<u8>,
    /// The last packet found no room. Until the next one is tried, news of room must stay visible.
    refused: bool,
    counters: Counters,
}

impl MemoryDevice {
    fn new(path: PathId, config: MemoryConfig, ours: Arc<End>, theirs: Arc<End>) -> Self {
        let buffers = Buffers::new(LONGEST as usize);
        Self { path, config, ours, theirs, buffers, segment: Vec::new(), refused: false, counters: Counters::default() }
    }

    /// Takes one packet that waits for us, and tells the sender if it waits for the room.
    fn pop(&self) -> Option<RxPacket> {
        let mut packet = self.ours.inbox.pop()?;
        // Either the sender sees the room, or we see that it waits.
        fence(Ordering::SeqCst);
        if self.ours.sender_waits.swap(false, Ordering::SeqCst) {
            self.theirs.wake();
        }
        packet.path = self.path;
        Some(packet)
    }

    /// Whether `packets` more would fit. If not, the other side will wake us once it has taken one.
    fn has_room(&self, packets: usize) -> bool {
        let inbox = &self.theirs.inbox;
        // Nobody else sends this way, so room can only grow.
        let fits = || inbox.capacity() - inbox.len() >= packets.min(inbox.capacity());
        if fits() {
            return true;
        }
        self.theirs.sender_waits.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        fits()
    }

    /// The packet as it is, to be trusted.
    fn send_whole(&self, packet: &Transmit) {
        let parts = std::iter::once(&*packet.header).chain(packet.payload.iter().map(Payload::as_slice));
        let _ = self.theirs.inbox.push(RxPacket {
            path: packet.path,
            data: self.buffers.gather(packet.len(), parts),
            checksum: RxChecksum::Trusted,
            segment_size: packet.segment_size.filter(|&size| packet.payload_len() > usize::from(size)),
        });
    }

    /// The packet as it would be on a wire. Segments beyond what the whole queue holds are lost.
    fn send_segments(&mut self, packet: &Transmit) {
        let (inbox, buffers, path) = (&self.theirs.inbox, &self.buffers, packet.path);
        let mut lost = 0;
        gso::for_each_segment(packet, &mut self.segment, |segment| {
            let data = buffers.gather(segment.len(), std::iter::once(segment));
            lost += u64::from(inbox.push(RxPacket::new(path, data)).is_err());
        });
        self.counters.tx_rejected += lost;
    }
}

impl Device for MemoryDevice {
    fn name(&self) -> &str {
        "memory"
    }

    fn path(&self) -> PathId {
        self.path
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            mtu: self.config.mtu,
            max_len: LONGEST,
            segmentation_offload: self.config.offload,
            checksum_offload: self.config.offload,
            full_until: Readiness::Readable,
        }
    }

    fn state(&self) -> State {
        match self.theirs.closed.load(Ordering::SeqCst) {
            true => State::Gone,
            false => State::Up,
        }
    }

    fn receive(&mut self, batch: &mut Vec<RxPacket>, max: usize) -> io::Result<usize> {
        let mut count = 0;
        let mut asleep = false;
        while count < max {
            let Some(packet) = self.pop() else {
                if asleep {
                    break;
                }
                self.ours.sleep();
                asleep = true;
                if self.refused && !self.theirs.sender_waits.load(Ordering::SeqCst) {
                    self.ours.wake();
                }
                continue;
            };
            self.counters.rx_packets += 1;
            self.counters.rx_segments += segments::count(&packet);
            self.counters.rx_bytes += packet.data.len() as u64;
            batch.push(packet);
            count += 1;
        }
        if asleep && !self.ours.inbox.is_empty() {
            self.ours.wake();
        }
        if count < max && self.state() == State::Gone && self.ours.inbox.is_empty() {
            if count == 0 {
                return Err(gone());
            }
            // To be told the next time.
            self.ours.wake();
        }
        Ok(count)
    }

    fn transmit(&mut self, packet: &Transmit) -> Result<(), TransmitError> {
        if self.state() == State::Gone {
            self.counters.tx_down += 1;
            return Err(TransmitError::Gone(gone()));
        }
        if packet.len() > LONGEST as usize {
            self.counters.tx_rejected += 1;
            return Ok(());
        }
        let needed = if self.config.offload { 1 } else { packet.segment_count() };
        self.refused = !self.has_room(needed);
        if self.refused {
            self.counters.tx_full += 1;
            return Err(TransmitError::Full);
        }
        match self.config.offload {
            true => self.send_whole(packet),
            false => self.send_segments(packet),
        }
        self.theirs.wake();
        self.counters.tx_packets += 1;
        self.counters.tx_segments += packet.segment_count() as u64;
        self.counters.tx_bytes += packet.len() as u64;
        Ok(())
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ours.wake.as_fd())
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl Drop for MemoryDevice {
    fn drop(&mut self) {
        self.ours.closed.store(true, Ordering::SeqCst);
        self.theirs.wake();
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the other side of the link in memory was dropped")
}

#[cfg(test)]
mod tests;
