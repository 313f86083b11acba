//! Recording what passes a device in a capture file (pcapng) that Wireshark and tshark read.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anabranch_frame::checksum::pseudo_header;
use anabranch_frame::pcapng::{Direction, Encoder, InterfaceId, Packet};
use anabranch_frame::{PathId, RxChecksum, RxPacket, Transmit, gso};
use parking_lot::{Condvar, Mutex};

use crate::{Capabilities, Counters, Device, State, TransmitError};

/// How old a record gets at most before it is written to the file.
const WRITE_AFTER: Duration = Duration::from_millis(500);
/// From how many bytes on they are written earlier.
const WRITE_FROM: usize = 256 * 1024;
/// Bytes that wait at most for a slow disk. What is more is not recorded, and counted.
const WAITING_MAX: usize = 64 * 1024 * 1024;

/// A capture file that any number of devices record to. Clones are the same file.
///
/// A thread writes what was recorded at least once a second, so that a program that is killed leaves a file
/// that can be read; the last clone writes the rest when it is dropped.
#[derive(Clone, Debug)]
pub struct Capture {
    writer: Arc<Writer>,
}

impl Capture {
    /// Starts a new file; one that is there is overwritten.
    ///
    /// # Errors
    /// When the file cannot be made or written to.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut file = File::create(path)?;
        let mut blocks = Vec::new();
        let encoder = Encoder::new(0, &mut blocks);
        file.write_all(&blocks)?;
        blocks.clear();
        let shared = Arc::new(Shared {
            records: Mutex::new(Records {
                encoder,
                interfaces: Vec::new(),
                blocks,
                waiting: 0,
                lost: 0,
                closing: false,
            }),
            news: Condvar::new(),
            file: Mutex::new(Sink { file, spare: Vec::new(), error: None }),
        });
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("pcap".into()).spawn(move || shared.write_until_closed())?
        };
        Ok(Self { writer: Arc::new(Writer { shared, thread: Some(thread) }) })
    }

    /// Writes what was recorded so far.
    ///
    /// # Errors
    /// When the file cannot be written to, now or earlier; then nothing is recorded any more.
    pub fn flush(&self) -> io::Result<()> {
        self.writer.shared.write();
        match &self.writer.shared.file.lock().error {
            Some(error) => Err(io::Error::new(error.kind(), error.to_string())),
            None => Ok(()),
        }
    }

    /// How many packets are missing because the disk was too slow, or the file could not be written to.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.writer.shared.records.lock().lost
    }

    /// The file's interface for a path of this name. Queues of one device share it.
    fn interface(&self, path: PathId, name: &str) -> InterfaceId {
        let mut records = self.writer.shared.records.lock();
        let Records { encoder, interfaces, blocks, .. } = &mut *records;
        if let Some((_, _, id)) = interfaces.iter().find(|(known, known_name, _)| *known == path && known_name == name)
        {
            return *id;
        }
        let id = encoder.interface(name, blocks);
        interfaces.push((path, name.to_owned(), id));
        id
    }

    fn record(&self, packet: &Packet<'_>) {
        let shared = &self.writer.shared;
        let mut records = shared.records.lock();
        if records.blocks.len() + packet.data.len() > WAITING_MAX {
            records.lost += 1;
            return;
        }
        let Records { encoder, blocks, waiting, .. } = &mut *records;
        let before = blocks.len();
        encoder.packet(packet, blocks);
        *waiting += 1;
        if before < WRITE_FROM && blocks.len() >= WRITE_FROM {
            shared.news.notify_one();
        }
    }
}

/// Ends the thread with the last clone of a [`Capture`].
#[derive(Debug)]
struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.records.lock().closing = true;
        self.shared.news.notify_one();
        if let Some(thread) = self.thread.take() {
            // It does not panic, and if it did there would be nobody to tell.
            let _ = thread.join();
        }
    }
}

/// The two halves have locks of their own: who records does not wait for the disk.
#[derive(Debug)]
struct Shared {
    records: Mutex<Records>,
    news: Condvar,
    file: Mutex<Sink>,
}

#[derive(Debug)]
struct Records {
    encoder: Encoder,
    interfaces: Vec<(PathId, String, InterfaceId)>,
    /// Whole blocks that are not in the file yet.
    blocks: Vec<u8>,
    /// How many packets are in them.
    waiting: u64,
    lost: u64,
    closing: bool,
}

#[derive(Debug)]
struct Sink {
    file: File,
    spare: Vec<u8>,
    error: Option<io::Error>,
}

impl Shared {
    fn write_until_closed(&self) {
        loop {
            let closing = {
                let mut records = self.records.lock();
                if !records.closing && records.blocks.len() < WRITE_FROM {
                    self.news.wait_for(&mut records, WRITE_AFTER);
                }
                records.closing
            };
            self.write();
            if closing {
                return;
            }
        }
    }

    fn write(&self) {
        let mut sink = self.file.lock();
        let Sink { file, spare, error } = &mut *sink;
        let packets = {
            let mut records = self.records.lock();
            std::mem::swap(spare, &mut records.blocks);
            std::mem::take(&mut records.waiting)
        };
        if error.is_none() {
            *error = file.write_all(spare).err();
        }
        if error.is_some() {
            self.records.lock().lost += packets;
        }
        spare.clear();
    }
}

/// A device that records what passes another one.
///
/// A super-segment is recorded as one packet. Checksums that were left to a device are completed in the record.
/// Around [`Faults`](crate::faults::Faults) it records what the stack sees, within them what the device sees.
#[derive(Debug)]
pub struct Pcap<D> {
    device: D,
    capture: Capture,
    interface: InterfaceId,
    scratch: Vec<u8>,
}

impl<D: Device> Pcap<D> {
    /// Records what passes `device` in `capture`, as an interface of the device's name.
    #[must_use]
    pub fn new(device: D, capture: &Capture) -> Self {
        let interface = capture.interface(device.path(), device.name());
        Self { device, capture: capture.clone(), interface, scratch: Vec::new() }
    }
}

impl<D: Device> Device for Pcap<D> {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn path(&self) -> PathId {
        self.device.path()
    }

    fn interface_index(&self) -> Option<u32> {
        self.device.interface_index()
    }

    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn state(&self) -> State {
        self.device.state()
    }

    fn refresh(&mut self) -> State {
        self.device.refresh()
    }

    fn receive(&mut self, batch: &mut Vec<RxPacket>, max: usize) -> io::Result<usize> {
        let count = self.device.receive(batch, max)?;
        let unix_nanos = unix_nanos();
        let first = batch.len() - count;
        for packet in &batch[first..] {
            let data = match packet.checksum {
                RxChecksum::Unverified => &packet.data,
                RxChecksum::Trusted => completed(packet, &mut self.scratch),
            };
            let direction = Direction::Inbound;
            self.capture.record(&Packet { interface: self.interface, unix_nanos, direction, comment: None, data });
        }
        Ok(count)
    }

    fn transmit(&mut self, packet: &Transmit) -> Result<(), TransmitError> {
        // Before it leaves: its answer may be recorded by another queue's thread.
        let unix_nanos = unix_nanos();
        self.device.transmit(packet)?;
        gso::complete(packet, &mut self.scratch);
        let (direction, data) = (Direction::Outbound, &self.scratch[..]);
        self.capture.record(&Packet { interface: self.interface, unix_nanos, direction, comment: None, data });
        Ok(())
    }

    fn flush(&mut self) {
        self.device.flush();
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.device.poll_fd()
    }

    fn counters(&self) -> Counters {
        self.device.counters()
    }
}

fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// A copy of a packet with the TCP checksum that its sender left out.
fn completed<'a>(packet: &RxPacket, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    const TCP: u8 = 6;
    scratch.clear();
    scratch.extend_from_slice(&packet.data);
    let (transport, addresses, protocol) = match packet.data.first().map(|first| first >> 4) {
        Some(4) => (usize::from(packet.data[0] & 15) * 4, 12..20, packet.data.get(9)),
        Some(6) => (40, 8..40, packet.data.get(6)),
        _ => return scratch,
    };
    if protocol != Some(&TCP) || scratch.len() < transport + 20 {
        return scratch;
    }
    let (head, tcp) = scratch.split_at_mut(transport);
    let Some(addresses) = head.get(addresses) else { return scratch };
    let (source, destination) = addresses.split_at(addresses.len() / 2);
    tcp[16..18].fill(0);
    let sum = pseudo_header(source, destination, TCP, tcp.len() as u32).add(tcp).finish();
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    scratch
}

#[cfg(test)]
mod tests;
