use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use anabranch_frame::{BufferMut, PathId, Payload, RxChecksum, RxPacket, Transmit, gso};
use arrayvec::ArrayVec;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};

use super::TunConfig;
use crate::buffers::Buffers;
use crate::gro::Train;
use crate::netlink::{Link, Netlink};
use crate::{Capabilities, Counters, Device, Readiness, State, TransmitError, vnet};

/// The longest datagram, in bytes: what the IPv4 header can express.
const LONGEST: usize = 65_535;
/// Room for what the kernel may hand us, in bytes: an IPv6 super-segment may be 40 longer than [`LONGEST`].
const ROOM: usize = LONGEST + 41;
/// Longest IP and TCP header of a packet that may be continued, in bytes.
const HEADERS_MAX: usize = 100;
/// Pieces of one packet that are written as they are; a packet in more pieces is copied together first.
const PIECES_MAX: usize = 64;

/// One queue of a TUN interface, see [`Tun::open`](crate::Tun::open).
///
/// The kernel never refuses a packet for lack of room here: what is written is received by the host at once, in
/// the writer's own time. [`TransmitError::Full`] can only come from a limit that somebody else set on
/// the descriptor.
#[derive(Debug)]
pub struct TunQueue {
    fd: OwnedFd,
    name: String,
    index: u32,
    path: PathId,
    mtu: u16,
    offload: bool,
    state: State,
    netlink: Arc<Mutex<Netlink>>,
    buffers: Buffers,
    /// Where the next packet is read to. It is handed up itself only if the packet is large.
    spare: Option<BufferMut>,
    /// Without offload, what the last packet may be continued by goes here if it does not: headers, and what is too long.
    headers: [u8; HEADERS_MAX],
    excess: Vec<u8>,
    /// A packet that did not continue the one before.
    next: Option<Train>,
    segment: Vec<u8>,
    counters: Counters,
}

impl TunQueue {
    pub(super) fn new(fd: OwnedFd, config: &TunConfig, link: &Link, netlink: Arc<Mutex<Netlink>>) -> Self {
        Self {
            fd,
            name: link.name.clone(),
            index: link.index,
            path: config.path,
            mtu: link.datagram_max(),
            offload: config.offload,
            state: State::Up,
            netlink,
            buffers: Buffers::new(ROOM),
            spare: None,
            headers: [0; HEADERS_MAX],
            excess: vec![0; if config.offload { 0 } else { ROOM }],
            next: None,
            segment: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Reads one packet with the header before it; `Ok(None)` for one that makes no sense.
    fn read(&mut self) -> Result<Option<RxPacket>, Errno> {
        let mut header = [0; vnet::LEN];
        let mut buffer = self.take_spare();
        let body = IoSliceMut::new(buffer.as_mut_slice());
        let result = rustix::io::readv(&self.fd, &mut [IoSliceMut::new(&mut header), body]);
        let len = match result {
            Ok(len) => len.saturating_sub(vnet::LEN),
            Err(errno) => {
                self.spare = Some(buffer);
                return Err(errno);
            }
        };
        let first = buffer.as_mut_slice()[0];
        match vnet::parse(&header, first) {
            Some(known) if len > 0 => Ok(Some(self.packet(buffer, len, known.checksum, known.segment_size))),
            _ => {
                self.counters.rx_malformed += 1;
                self.spare = Some(buffer);
                Ok(None)
            }
        }
    }

    /// Without offload: reads a packet and those that continue it. Whether there are no more for now is the other half.
    fn read_plain(&mut self) -> (Result<Option<RxPacket>, Errno>, bool) {
        let mut train = match self.next.take().map_or_else(|| self.read_first(), |train| Ok(Some(train))) {
            Ok(Some(train)) => train,
            Ok(None) => return (Ok(None), false),
            Err(errno) => return (Err(errno), true),
        };
        let empty = loop {
            match self.read_behind(&mut train) {
                Ok(true) | Err(Errno::INTR) => {}
                Ok(false) => break false,
                // Another error than `AGAIN` comes again.
                Err(_) => break true,
            }
        };
        let (buffer, len, checksum, segment_size) = train.finish();
        (Ok(Some(self.packet(buffer, len, checksum, segment_size))), empty)
    }

    fn read_first(&mut self) -> Result<Option<Train>, Errno> {
        let mut buffer = self.take_spare();
        match rustix::io::read(&self.fd, buffer.as_mut_slice()) {
            Ok(len) if len > 0 && matches!(buffer.as_mut_slice()[0] >> 4, 4 | 6) => Ok(Some(Train::new(buffer, len))),
            result => {
                self.spare = Some(buffer);
                result?;
                self.counters.rx_malformed += 1;
                Ok(None)
            }
        }
    }

    /// Reads a packet to where it need not be moved if it continues `train`. Whether it did; if not, it is the next.
    fn read_behind(&mut self, train: &mut Train) -> Result<bool, Errno> {
        let Some((headers, payload)) = train.room(&mut self.headers) else { return Ok(false) };
        let pieces = &mut [headers, payload, &mut self.excess].map(IoSliceMut::new);
        let len = rustix::io::readv(&self.fd, pieces)?;
        if train.take(&self.headers, len) {
            return Ok(true);
        }
        let mut buffer = self.take_spare();
        let mut at = 0;
        let (headers, payload) = train.room(&mut self.headers).unwrap_or_default();
        for piece in [&*headers, &*payload, &self.excess] {
            let part = piece.len().min(len - at);
            buffer.as_mut_slice()[at..at + part].copy_from_slice(&piece[..part]);
            at += part;
        }
        if len > 0 && matches!(buffer.as_mut_slice()[0] >> 4, 4 | 6) {
            self.next = Some(Train::new(buffer, len));
        } else {
            self.counters.rx_malformed += 1;
            self.spare = Some(buffer);
        }
        Ok(false)
    }

    fn take_spare(&mut self) -> BufferMut {
        self.spare.take().unwrap_or_else(|| self.buffers.take_large())
    }

    /// The packet in the first `len` bytes of `buffer`, which is kept if the packet is small.
    fn packet(
        &mut self,
        mut buffer: BufferMut,
        len: usize,
        checksum: RxChecksum,
        segment_size: Option<u16>,
    ) -> RxPacket {
        let data = match self.buffers.take_fitting(len) {
            Some(mut small) => {
                small.as_mut_slice()[..len].copy_from_slice(&buffer.as_mut_slice()[..len]);
                self.spare = Some(buffer);
                small.freeze(len)
            }
            None => buffer.freeze(len),
        };
        RxPacket { path: self.path, data, checksum, segment_size }
    }

    /// Hands the kernel the packet as it is, behind a header that says what is left to do.
    fn write_whole(&self, packet: &Transmit) -> Result<(), Errno> {
        let header = vnet::build(packet, packet.payload_len(), 0);
        let gathered;
        let mut pieces = ArrayVec::<IoSlice<'_>, PIECES_MAX>::new();
        pieces.push(IoSlice::new(&header));
        pieces.push(IoSlice::new(&packet.header));
        if packet.payload.len() <= pieces.remaining_capacity() {
            pieces.extend(packet.payload.iter().map(|piece| IoSlice::new(piece)));
        } else {
            let slices = packet.payload.iter().map(Payload::as_slice);
            gathered = self.buffers.gather(packet.payload_len(), slices);
            pieces.push(IoSlice::new(&gathered));
        }
        retry_on_intr(|| rustix::io::writev(&self.fd, &pieces)).map(|_| ())
    }

    /// Cuts the packet up and completes it, for an interface without offload. When the kernel refuses a segment
    /// the rest is not tried: the peer misses it as if it was lost.
    fn write_segments(&mut self, packet: &Transmit) -> Result<(), Errno> {
        let mut result = Ok(());
        let mut written = 0u32;
        let fd = &self.fd;
        gso::for_each_segment(packet, &mut self.segment, |segment| {
            if result.is_ok() {
                result = retry_on_intr(|| rustix::io::write(fd, segment)).map(|_| ());
                written += u32::from(result.is_ok());
            }
        });
        // Some of it has gone: it must not be sent a second time.
        if written > 0 { Ok(()) } else { result }
    }

    fn lost(&mut self, errno: Errno) -> TransmitError {
        self.counters.tx_down += 1;
        match errno {
            Errno::IO => {
                self.state = State::Down;
                TransmitError::Down
            }
            errno => {
                self.state = State::Gone;
                TransmitError::Gone(errno.into())
            }
        }
    }
}

impl Device for TunQueue {
    fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathId {
        self.path
    }

    fn interface_index(&self) -> Option<u32> {
        Some(self.index)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            mtu: self.mtu,
            max_len: LONGEST as u32,
            segmentation_offload: self.offload,
            checksum_offload: self.offload,
            full_until: Readiness::Writable,
        }
    }

    fn state(&self) -> State {
        self.state
    }

    fn refresh(&mut self) -> State {
        if self.state == State::Gone {
            return State::Gone;
        }
        // The driver reports room for packets only while the interface is up, and an error once it is deleted.
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        if retry_on_intr(|| poll(&mut fds, Some(&at_once))).is_ok() {
            let shown = fds[0].revents();
            self.state = match shown {
                _ if shown.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) => State::Gone,
                _ if shown.contains(PollFlags::OUT) => State::Up,
                _ => State::Down,
            };
        }
        if let Ok(Some(link)) = self.netlink.lock().link_by_index(self.index) {
            self.mtu = link.datagram_max();
        }
        self.state
    }

    fn receive(&mut self, batch: &mut Vec<RxPacket>, max: usize) -> io::Result<usize> {
        let (mut count, mut empty) = (0, false);
        while count < max && !empty {
            let result;
            (result, empty) = if self.offload { (self.read(), false) } else { self.read_plain() };
            match result {
                Ok(Some(packet)) => {
                    self.counters.received(&packet);
                    batch.push(packet);
                    count += 1;
                }
                Ok(None) | Err(Errno::INTR) => empty = false,
                Err(Errno::AGAIN) => break,
                // It will say so again when there is nothing else to tell.
                Err(_) if count > 0 => break,
                Err(errno) => {
                    self.state = State::Gone;
                    return Err(errno.into());
                }
            }
        }
        Ok(count)
    }

    fn transmit(&mut self, packet: &Transmit) -> Result<(), TransmitError> {
        let len = packet.len();
        if len > LONGEST {
            self.counters.tx_rejected += 1;
            return Ok(());
        }
        let result = if self.offload { self.write_whole(packet) } else { self.write_segments(packet) };
        match result {
            Ok(()) => {
                self.state = State::Up;
                self.counters.sent(packet);
                Ok(())
            }
            Err(Errno::AGAIN) => {
                self.counters.tx_full += 1;
                Err(TransmitError::Full)
            }
            Err(errno @ (Errno::IO | Errno::BADFD | Errno::BADF | Errno::NODEV)) => Err(self.lost(errno)),
            Err(_) => {
                self.counters.tx_rejected += 1;
                Ok(())
            }
        }
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
