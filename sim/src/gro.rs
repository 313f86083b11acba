//! Receive offload as the kernel does it: segments that follow each other become one.

use core::time::Duration;

use anabranch_core::wire::{Flags, Segment};
use anabranch_frame::checksum::Sum;
use anabranch_frame::{Instant, PathId, Payload, RxChecksum, RxPacket};

/// Flows that are held back at once (Linux: `MAX_GRO_SKBS`).
const FLOWS_MAX: usize = 8;
/// Largest IP packet.
const PACKET_MAX: usize = 65_535;
/// Flags that end a super-segment, and those that a segment may have although the ones before had not.
const LAST: Flags = Flags(Flags::FIN.0 | Flags::PSH.0);

/// Merges what arrives on one path.
///
/// A segment is held back until one comes that does not continue it, or for as long as is
/// configured. Only segments that differ in nothing but position, length and checksum are merged, so
/// that nothing is lost of what they say.
#[derive(Debug)]
pub(crate) struct Gro {
    path: PathId,
    hold: Duration,
    held: Vec<Held>,
}

/// A super-segment to be.
#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    /// What every segment of it must have in common.
    common: Common,
    /// Sequence number that would continue it.
    next: u32,
    segment_size: usize,
    count: usize,
    until: Instant,
}

/// The headers without what differs from segment to segment.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Common {
    header: Vec<u8>,
    transport: usize,
}

impl Common {
    fn of(packet: &[u8], transport: usize, header_len: usize) -> Self {
        let mut header = packet[..header_len].to_vec();
        if transport == 40 {
            header[4..6].fill(0);
        } else {
            // Length, identification and checksum.
            header[2..6].fill(0);
            header[10..12].fill(0);
        }
        header[transport + 4..transport + 8].fill(0);
        header[transport + 13] &= !LAST.0;
        header[transport + 16..transport + 18].fill(0);
        Self { header, transport }
    }

    fn ports(&self) -> &[u8] {
        &self.header[self.transport..self.transport + 4]
    }

    fn same_flow(&self, other: &Self) -> bool {
        let addresses = if self.transport == 40 { 8..40 } else { 12..20 };
        self.transport == other.transport
            && self.header[addresses.clone()] == other.header[addresses]
            && self.ports() == other.ports()
    }
}

impl Gro {
    pub(crate) fn new(path: PathId, hold: Duration) -> Self {
        Self { path, hold, held: Vec::new() }
    }

    /// A packet arrived: what is to be handed up now, in order.
    pub(crate) fn push(&mut self, now: Instant, packet: Payload) -> Vec<RxPacket> {
        let mut ready = self.expire(now);
        let plain = RxPacket::new(self.path, packet);
        // A packet that is not in order by itself is nothing to be merged, as in the kernel.
        let Ok(segment) = Segment::parse(plain.clone()) else {
            ready.push(plain);
            return ready;
        };
        let transport = if plain.data[0] >> 4 == 6 { 40 } else { usize::from(plain.data[0] & 15) * 4 };
        let common = Common::of(&plain.data, transport, plain.data.len() - segment.payload.len());
        let flow = self.held.iter().position(|held| held.common.same_flow(&common));
        if let Some(at) = flow {
            if self.held[at].take(&segment, &common) {
                if self.held[at].is_complete(&segment) {
                    ready.push(self.release(at));
                }
                return ready;
            }
            ready.push(self.release(at));
        }
        let odd = segment.flags.0 & !(Flags::ACK.0) != 0 || !segment.flags.has(Flags::ACK);
        if segment.payload.is_empty() || odd {
            ready.push(plain);
            return ready;
        }
        if self.held.len() == FLOWS_MAX {
            ready.push(self.release(0));
        }
        self.held.push(Held {
            bytes: plain.data.to_vec(),
            common,
            next: segment.seq.add(segment.payload.len() as u32).0,
            segment_size: segment.payload.len(),
            count: 1,
            until: now + self.hold,
        });
        ready
    }

    /// What was held back for long enough.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<RxPacket> {
        let mut ready = Vec::new();
        while let Some(at) = self.held.iter().position(|held| held.until <= now) {
            ready.push(self.release(at));
        }
        ready
    }

    /// When to call [`expire`](Self::expire) next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.held.iter().map(|held| held.until).min()
    }

    fn release(&mut self, at: usize) -> RxPacket {
        let held = self.held.remove(at);
        let segment_size = (held.count > 1).then_some(held.segment_size as u16);
        // All of it was verified on the way in; the checksum field is that of the first segment.
        let checksum = if held.count > 1 { RxChecksum::Trusted } else { RxChecksum::Unverified };
        RxPacket { checksum, segment_size, ..RxPacket::new(self.path, Payload::from(held.bytes)) }
    }
}

impl Held {
    /// Appends a segment, if it continues this one.
    fn take(&mut self, segment: &Segment, common: &Common) -> bool {
        let len = segment.payload.len();
        let fits = segment.seq.0 == self.next && (1..=self.segment_size).contains(&len);
        if !fits || *common != self.common || self.bytes.len() + len > PACKET_MAX {
            return false;
        }
        self.bytes.extend_from_slice(&segment.payload);
        self.next = self.next.wrapping_add(len as u32);
        self.count += 1;
        let transport = self.common.transport;
        self.bytes[transport + 13] |= segment.flags.0 & LAST.0;
        self.set_length();
        true
    }

    /// Whether nothing can follow after `segment`, its latest one.
    fn is_complete(&self, segment: &Segment) -> bool {
        segment.payload.len() < self.segment_size || segment.flags.0 & LAST.0 != 0
    }

    fn set_length(&mut self) {
        let total = self.bytes.len();
        if self.common.transport == 40 {
            self.bytes[4..6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
        } else {
            self.bytes[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            self.bytes[10..12].fill(0);
            let sum = Sum::new().add(&self.bytes[..self.common.transport]).finish();
            self.bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::SocketAddr;

    use anabranch_core::wire::{IpOut, OptionWriter, SegmentOut, SeqNum, Timestamps, Tuple};
    use anabranch_frame::{Slices, Transmit, gso};

    use super::*;

    const HOLD: Duration = Duration::from_micros(100);

    fn packet(v6: bool, seq: u32, flags: Flags, ts: u32, payload: &[u8]) -> Payload {
        let addr = |host: u8| -> SocketAddr {
            if v6 { format!("[fd00::{host}]:{host}") } else { format!("10.0.0.{host}:{host}") }.parse().unwrap()
        };
        let mut options = OptionWriter::new();
        assert!(options.timestamps(Timestamps { value: ts, echo: 1 }));
        let (header, transport_offset) = SegmentOut {
            tuple: Tuple { local: addr(1), remote: addr(2) },
            seq: SeqNum(seq),
            ack: SeqNum(5),
            flags: flags.with(Flags::ACK),
            window: 100,
            ip: IpOut { id: seq as u16, ..IpOut::default() },
            options: &options,
            payload_len: payload.len() as u32,
        }
        .emit();
        let transmit = Transmit {
            path: PathId(0),
            header,
            transport_offset,
            checksum_offset: 16,
            payload: Slices::from_iter([Payload::from(payload)]),
            segment_size: None,
        };
        let mut bytes = Vec::new();
        gso::complete(&transmit, &mut bytes);
        Payload::from(bytes)
    }

    fn gro() -> Gro {
        Gro::new(PathId(0), HOLD)
    }

    fn lens(packets: Vec<RxPacket>) -> Vec<(u32, usize, Option<u16>)> {
        let parse = |packet: RxPacket| Segment::parse(packet).expect("a packet as good as on the wire");
        packets
            .into_iter()
            .map(parse)
            .map(|segment| (segment.seq.0, segment.payload.len(), segment.segment_size))
            .collect()
    }

    #[test]
    fn segments_in_a_row_become_one() {
        for v6 in [false, true] {
            let mut gro = gro();
            let bytes: Vec<u8> = (0..2500).map(|n| n as u8).collect();
            assert!(gro.push(Instant::ZERO, packet(v6, 0, Flags(0), 7, &bytes[..1000])).is_empty());
            assert!(gro.push(Instant::ZERO, packet(v6, 1000, Flags(0), 7, &bytes[1000..2000])).is_empty());
            // A shorter one is the last, and PSH is kept.
            let merged = gro.push(Instant::ZERO, packet(v6, 2000, Flags::PSH, 7, &bytes[2000..]));
            let [merged] = &merged[..] else { panic!("{merged:?}") };
            let segment = Segment::parse(merged.clone()).unwrap();
            assert_eq!(segment.payload.as_slice(), &bytes[..]);
            assert_eq!((merged.segment_size, merged.checksum), (Some(1000), RxChecksum::Trusted));
            assert!(segment.flags.has(Flags::PSH));
            assert_eq!(segment.options.timestamps.map(|ts| ts.value), Some(7));
            assert_eq!(gro.next(), None);
        }
    }

    #[test]
    fn a_held_segment_goes_up_after_a_while() {
        let mut gro = gro();
        gro.push(Instant::ZERO, packet(false, 0, Flags(0), 7, &[1; 1000]));
        assert_eq!(gro.next(), Some(Instant::ZERO + HOLD));
        assert_eq!(lens(gro.expire(Instant::ZERO + HOLD)), [(0, 1000, None)]);
    }

    #[test]
    fn what_differs_is_not_merged() {
        let others = [
            packet(false, 1000, Flags(0), 8, &[1; 1000]),
            packet(false, 1001, Flags(0), 7, &[1; 1000]),
            packet(false, 1000, Flags(0), 7, &[1; 1001]),
            packet(false, 1000, Flags::URG, 7, &[1; 1000]),
        ];
        for other in others {
            let mut gro = gro();
            gro.push(Instant::ZERO, packet(false, 0, Flags(0), 7, &[1; 1000]));
            let mut up = gro.push(Instant::ZERO, other.clone());
            up.extend(gro.expire(Instant::MAX));
            assert_eq!(up.len(), 2);
            assert_eq!(up[1].data, other);
        }
    }

    #[test]
    fn an_acknowledgement_does_not_overtake_data() {
        let mut gro = gro();
        gro.push(Instant::ZERO, packet(false, 0, Flags(0), 7, &[1; 1000]));
        let up = gro.push(Instant::ZERO, packet(false, 1000, Flags(0), 7, &[]));
        assert_eq!(lens(up), [(0, 1000, None), (1000, 0, None)]);
    }

    #[test]
    fn a_corrupted_packet_goes_up_as_it_is() {
        let mut gro = gro();
        let mut bytes = packet(false, 0, Flags(0), 7, &[1; 1000]).to_vec();
        bytes[500] ^= 1;
        let up = gro.push(Instant::ZERO, Payload::from(bytes.clone()));
        assert_eq!(up.len(), 1);
        assert_eq!(up[0].data.as_slice(), &bytes[..]);
    }

    #[test]
    fn no_packet_outgrows_what_ip_can_say() {
        let mut gro = gro();
        let mut up = Vec::new();
        for n in 0..100 {
            up.extend(gro.push(Instant::ZERO, packet(false, n * 1448, Flags(0), 7, &[1; 1448])));
        }
        up.extend(gro.expire(Instant::MAX));
        assert!(up.iter().all(|packet| packet.data.len() <= PACKET_MAX));
        assert_eq!(lens(up).iter().map(|&(_, len, _)| len).sum::<usize>(), 144_800);
    }
}
