use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

use anabranch_frame::{Instant, PathId, Payload, RxChecksum, RxPacket, Transmit, gso};
use arrayvec::ArrayVec;

use super::PacketConfig;
use super::frame::WireFrame;
use super::sys::BATCH;
use super::wire::Wire;
use crate::buffers::Buffers;
use crate::ether::{self, ETHERNET_HEADER, Input, Lookup, Mac, Out, Station, destination, now};
use crate::{Capabilities, Counters, Device, Readiness, State, TransmitError, vnet};

/// The longest datagram, in bytes: what the IPv4 header can express.
const LONGEST: usize = 65_535;
/// Pieces of one packet that are sent as they are; a packet in more pieces is copied together first.
const PIECES_MAX: usize = 64;

/// One queue of an interface's wire, see [`Packet::open`](super::Packet::open).
#[derive(Debug)]
pub struct PacketQueue {
    wire: Wire,
    station: Station,
    path: PathId,
    mtu_max: u16,
    /// The station's Ethernet address is not the interface's.
    private_mac: bool,
    /// It speaks for all queues when the interface comes up.
    first: bool,
    frames: Vec<WireFrame>,
    buffers: Buffers,
    segment: Vec<u8>,
    counters: Counters,
}

impl PacketQueue {
    pub(super) fn new(wire: Wire, station: Station, config: &PacketConfig, private_mac: bool, first: bool) -> Self {
        let mut queue = Self {
            wire,
            station,
            path: config.path,
            mtu_max: config.mtu.unwrap_or(u16::MAX),
            private_mac,
            first,
            frames: Vec::new(),
            buffers: Buffers::new(LONGEST),
            segment: Vec::new(),
            counters: Counters::default(),
        };
        if first && queue.wire.state() == State::Up {
            queue.announce();
        }
        queue
    }

    fn announce(&mut self) {
        self.station.announce();
        self.send_out();
    }

    /// Sends what the station has to say.
    fn send_out(&mut self) {
        while let Some(out) = self.station.next_out() {
            // What cannot be sent is asked for again.
            let _ = match out {
                Out::Frame(bytes) => self.wire.send_pieces(&self.with_header(&[IoSlice::new(&bytes)])),
                Out::Packet(packet, mac) => self.send_to(mac, &packet),
            };
        }
    }

    /// `pieces` behind an empty virtio header, if there are such headers.
    fn with_header<'a>(&self, pieces: &[IoSlice<'a>]) -> ArrayVec<IoSlice<'a>, 2> {
        const EMPTY: [u8; vnet::LEN] = [0; vnet::LEN];
        let header = self.wire.offload().then_some(IoSlice::new(&EMPTY));
        header.into_iter().chain(pieces.iter().copied()).collect()
    }

    /// Sends a packet to a neighbour, and counts it.
    fn send_to(&mut self, mac: Mac, packet: &Transmit) -> Result<(), TransmitError> {
        match self.wire.offload() {
            true => self.send_whole(mac, packet)?,
            false => self.send_segments(mac, packet)?,
        }
        self.counters.sent(packet);
        Ok(())
    }

    /// Hands the kernel the packet as it is, behind a header that says what is left to do.
    fn send_whole(&mut self, mac: Mac, packet: &Transmit) -> Result<(), TransmitError> {
        let vnet = vnet::build(packet, packet.payload_len(), ETHERNET_HEADER as u16);
        let ether = ether::header(mac, self.station.mac(), ether::kind_of(packet.header[0]));
        let gathered;
        let mut pieces = ArrayVec::<IoSlice<'_>, PIECES_MAX>::new();
        pieces.extend([IoSlice::new(&vnet), IoSlice::new(&ether), IoSlice::new(&packet.header)]);
        if packet.payload.len() <= pieces.remaining_capacity() {
            pieces.extend(packet.payload.iter().map(|piece| IoSlice::new(piece)));
        } else {
            let slices = packet.payload.iter().map(Payload::as_slice);
            gathered = self.buffers.gather(packet.payload_len(), slices);
            pieces.push(IoSlice::new(&gathered));
        }
        self.wire.send_pieces(&pieces)
    }

    /// Cuts the packet up and completes it, for a kernel without virtio headers. When it has no room for all segments
    /// the rest is as if it was lost.
    fn send_segments(&mut self, mac: Mac, packet: &Transmit) -> Result<(), TransmitError> {
        let ether = ether::header(mac, self.station.mac(), ether::kind_of(packet.header[0]));
        let mut frames = Vec::with_capacity(packet.segment_count());
        let mut bytes = Vec::with_capacity(packet.len() + packet.segment_count() * 160);
        gso::for_each_segment(packet, &mut self.segment, |segment| {
            let start = bytes.len();
            bytes.extend_from_slice(&ether);
            bytes.extend_from_slice(segment);
            frames.push(start..bytes.len());
        });
        let mut first = true;
        for chunk in frames.chunks(BATCH) {
            let pieces: ArrayVec<_, BATCH> = chunk.iter().map(|range| [IoSlice::new(&bytes[range.clone()])]).collect();
            let messages: ArrayVec<&[IoSlice<'_>], BATCH> = pieces.iter().map(|piece| &piece[..]).collect();
            match self.wire.send_messages(&messages) {
                Ok(count) if count < chunk.len() => break,
                Ok(_) => first = false,
                Err(error) if first => return Err(error),
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// What the stack is to see of a frame.
    fn take(&mut self, frame: WireFrame, now: Instant) -> Option<RxPacket> {
        match self.station.input(&frame.data, now) {
            Input::Packet => {
                let packet = to_packet(self.path, frame, self.wire.offload());
                self.counters.rx_malformed += u64::from(packet.is_none());
                return packet;
            }
            Input::Neighbours => {}
            Input::Foreign => self.counters.rx_foreign += 1,
            Input::Malformed => self.counters.rx_malformed += 1,
        }
        None
    }
}

/// The IP packet of a frame, without what Ethernet pads it with; `None` when its headers make no sense.
fn to_packet(path: PathId, frame: WireFrame, offload: bool) -> Option<RxPacket> {
    let mut data = frame.data;
    data.advance(ETHERNET_HEADER);
    let (checksum, segment_size) = match offload {
        true => {
            let known = vnet::parse(&frame.vnet, *data.first()?)?;
            (known.checksum, known.segment_size)
        }
        false if frame.trusted => (RxChecksum::Trusted, None),
        false => (RxChecksum::Unverified, None),
    };
    // A super-segment may be longer than its header can say.
    if segment_size.is_none() && !ether::trim(&mut data) {
        return None;
    }
    Some(RxPacket { path, data, checksum, segment_size })
}

impl Device for PacketQueue {
    fn name(&self) -> &str {
        self.wire.name()
    }

    fn path(&self) -> PathId {
        self.path
    }

    fn interface_index(&self) -> Option<u32> {
        Some(self.wire.index())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            mtu: u16::try_from(self.wire.mtu()).unwrap_or(u16::MAX).min(self.mtu_max),
            max_len: LONGEST as u32,
            segmentation_offload: self.wire.offload(),
            checksum_offload: self.wire.offload(),
            full_until: Readiness::Writable,
        }
    }

    fn state(&self) -> State {
        self.wire.state()
    }

    fn refresh(&mut self) -> State {
        let before = self.wire.state();
        let state = self.wire.refresh();
        let moved = !self.private_mac && self.wire.mac() != self.station.mac();
        if moved {
            self.station.set_mac(self.wire.mac());
        }
        if self.first && state == State::Up && (moved || before != State::Up) {
            self.announce();
        }
        state
    }

    fn receive(&mut self, batch: &mut Vec<RxPacket>, max: usize) -> io::Result<usize> {
        let before = batch.len();
        let mut frames = std::mem::take(&mut self.frames);
        let result = loop {
            let wanted = max - (batch.len() - before);
            let result = self.wire.receive(&mut frames, wanted);
            let now = now();
            for frame in frames.drain(..) {
                if let Some(packet) = self.take(frame, now) {
                    self.counters.received(&packet);
                    batch.push(packet);
                }
            }
            // Not all frames are packets for the stack: fewer of those do not mean that there are no more.
            match result {
                Ok(count) if count == wanted && batch.len() - before < max => {}
                result => break result,
            }
        };
        self.frames = frames;
        self.send_out();
        match result {
            Err(error) if batch.len() == before => Err(error),
            _ => Ok(batch.len() - before),
        }
    }

    fn transmit(&mut self, packet: &Transmit) -> Result<(), TransmitError> {
        let destination = destination(packet).filter(|_| packet.len() <= LONGEST);
        let Some(destination) = destination else {
            self.counters.tx_rejected += 1;
            return Ok(());
        };
        let result = match self.station.look_up(destination, now()) {
            Lookup::Mac(mac) => self.send_to(mac, packet),
            Lookup::Wait(hop) => {
                self.station.park(hop, packet.clone());
                Ok(())
            }
            Lookup::NoRoute => {
                self.counters.tx_unresolved += 1;
                Ok(())
            }
        };
        self.send_out();
        match &result {
            Err(TransmitError::Full) => self.counters.tx_full += 1,
            Err(_) => self.counters.tx_down += 1,
            Ok(()) => {}
        }
        result
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wire.poll_fd())
    }

    fn counters(&self) -> Counters {
        let wire = self.wire.counters();
        let unresolved = if self.first { self.station.unresolved() } else { 0 };
        Counters {
            rx_overflow: wire.rx_overflow,
            rx_malformed: self.counters.rx_malformed + wire.rx_malformed,
            tx_rejected: self.counters.tx_rejected + wire.tx_rejected,
            tx_unresolved: self.counters.tx_unresolved + unresolved,
            ..self.counters
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hostile_frames_are_survived(
            data in proptest::collection::vec(any::<u8>(), ETHERNET_HEADER..200),
            first in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
            vnet: [u8; vnet::LEN],
            kind in prop_oneof![Just(0u8), Just(1), Just(4), any::<u8>()],
            offload: bool,
            trusted: bool,
        ) {
            let mut data = data;
            if let Some(byte) = data.get_mut(ETHERNET_HEADER) {
                *byte = first;
            }
            let mut frame = WireFrame::new(Payload::from(data.clone()));
            frame.vnet = vnet;
            frame.vnet[1] = kind;
            frame.trusted = trusted;

            if let Some(packet) = to_packet(PathId(0), frame, offload) {
                prop_assert!(packet.data.len() <= data.len() - ETHERNET_HEADER);
                prop_assert!(packet.segment_size != Some(0));
                Counters::default().received(&packet);
            }
        }
    }
}
