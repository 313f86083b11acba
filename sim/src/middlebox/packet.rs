use core::ops::Range;

use anabranch_core::wire::{Flags, SeqNum};
use anabranch_frame::Payload;
use anabranch_frame::checksum::{Sum, pseudo_header};

const TCP: u8 = 6;
const TCP_HEADER: usize = 20;

/// Kinds of TCP options that boxes are known to meddle with.
pub mod option {
    /// End of the list.
    pub const END: u8 = 0;
    /// Padding.
    pub const NOP: u8 = 1;
    /// Window scale (RFC 7323 §2).
    pub const WINDOW_SCALE: u8 = 3;
    /// SACK permitted (RFC 2018 §2).
    pub const SACK_PERMITTED: u8 = 4;
    /// SACK (RFC 2018 §3).
    pub const SACK: u8 = 5;
    /// Timestamps (RFC 7323 §3).
    pub const TIMESTAMPS: u8 = 8;
    /// Multipath TCP (RFC 8684 §3).
    pub const MPTCP: u8 = 30;
}

/// An IP packet with a TCP segment in it, to be looked at and changed as boxes on the way do.
///
/// Changes leave lengths and checksums wrong until [`finish`](Self::finish).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcpPacket {
    bytes: Vec<u8>,
    /// Where the TCP header starts.
    tcp: usize,
}

/// Both ends of a segment as its IP packet names them: source, destination.
pub type Ends = (Endpoint, Endpoint);

/// An address, of 4 or 16 bytes, and a port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Endpoint {
    addr: [u8; 16],
    len: u8,
    /// The port.
    pub port: u16,
}

impl Endpoint {
    fn read(addr: &[u8], port: u16) -> Self {
        let mut bytes = [0; 16];
        bytes[..addr.len()].copy_from_slice(addr);
        Self { addr: bytes, len: addr.len() as u8, port }
    }

    /// An address of the same family that differs in its last byte, as a box in between has one.
    #[must_use]
    pub fn neighbour(mut self, host: u8) -> Self {
        self.addr[usize::from(self.len) - 1] = host;
        self
    }

    fn octets(&self) -> &[u8] {
        &self.addr[..self.len.into()]
    }
}

impl TcpPacket {
    /// Looks into a packet: `None` if it is none of TCP that is whole and without IP options.
    #[must_use]
    pub fn read(packet: &[u8]) -> Option<Self> {
        let tcp = match packet {
            [0x45, ..] if packet.len() >= 40 && packet[9] == TCP => 20,
            [first, ..] if first >> 4 == 6 && packet.len() >= 60 && packet[6] == TCP => 40,
            _ => return None,
        };
        let header = usize::from(packet[tcp + 12] >> 4) * 4;
        (TCP_HEADER..=packet.len() - tcp).contains(&header).then(|| Self { bytes: packet.to_vec(), tcp })
    }

    /// The packet with lengths and checksums made right.
    #[must_use]
    pub fn finish(mut self) -> Payload {
        self.mend();
        Payload::from(self.bytes)
    }

    fn mend(&mut self) {
        let (len, tcp) = (self.bytes.len(), self.tcp);
        if tcp == 20 {
            self.bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            self.bytes[10..12].fill(0);
            let sum = Sum::new().add(&self.bytes[..tcp]).finish();
            self.bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            self.bytes[4..6].copy_from_slice(&((len - tcp) as u16).to_be_bytes());
        }
        self.bytes[tcp + 16..tcp + 18].fill(0);
        let (head, segment) = self.bytes.split_at(tcp);
        let (source, destination) = self.addresses(head);
        let sum = pseudo_header(source, destination, TCP, segment.len() as u32).add(segment).finish();
        self.bytes[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
    }

    fn addresses<'a>(&self, head: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        if self.tcp == 20 { (&head[12..16], &head[16..20]) } else { (&head[8..24], &head[24..40]) }
    }

    // --- looking ---------------------------------------------------------------------------------

    /// Source and destination.
    #[must_use]
    pub fn ends(&self) -> Ends {
        let (source, destination) = self.addresses(&self.bytes[..self.tcp]);
        (Endpoint::read(source, self.be16(0)), Endpoint::read(destination, self.be16(2)))
    }

    /// Control bits.
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags(self.bytes[self.tcp + 13])
    }

    /// Whether it has the SYN bit, with or without ACK.
    #[must_use]
    pub fn is_syn(&self) -> bool {
        self.flags().has(Flags::SYN)
    }

    /// Sequence number.
    #[must_use]
    pub fn seq(&self) -> SeqNum {
        SeqNum(self.be32(4))
    }

    /// Acknowledgement number, whether or not it counts.
    #[must_use]
    pub fn ack(&self) -> SeqNum {
        SeqNum(self.be32(8))
    }

    /// Window as it stands there.
    #[must_use]
    pub fn window(&self) -> u16 {
        self.be16(14)
    }

    /// The first sequence number behind it.
    #[must_use]
    pub fn end(&self) -> SeqNum {
        let bits = u32::from(self.is_syn()) + u32::from(self.flags().has(Flags::FIN));
        self.seq().add(self.payload().len() as u32 + bits)
    }

    /// Payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.data()..]
    }

    /// The whole packet as it stands.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    fn data(&self) -> usize {
        self.tcp + usize::from(self.bytes[self.tcp + 12] >> 4) * 4
    }

    fn be16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.bytes[self.tcp + at], self.bytes[self.tcp + at + 1]])
    }

    fn be32(&self, at: usize) -> u32 {
        u32::from(self.be16(at)) << 16 | u32::from(self.be16(at + 2))
    }

    /// Where options of a kind stand in the packet, kind and length included.
    #[must_use]
    pub fn options(&self, kind: u8) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        let (mut at, end) = (self.tcp + TCP_HEADER, self.data());
        while at < end {
            let len = match self.bytes[at..end] {
                [option::NOP, ..] => 1,
                [1..=255, len @ 2..=255, ..] if at + usize::from(len) <= end => usize::from(len),
                _ => break,
            };
            if self.bytes[at] == kind {
                found.push(at..at + len);
            }
            at += len;
        }
        found
    }

    /// Whether it has an option of a kind.
    #[must_use]
    pub fn has_option(&self, kind: u8) -> bool {
        !self.options(kind).is_empty()
    }

    /// Everything between the fixed header and the payload.
    #[must_use]
    pub fn option_bytes(&self) -> &[u8] {
        &self.bytes[self.tcp + TCP_HEADER..self.data()]
    }

    // --- changing --------------------------------------------------------------------------------

    /// Overwrites the options of a kind with NOPs.
    pub fn strip(&mut self, kind: u8) {
        for range in self.options(kind) {
            self.bytes[range].fill(option::NOP);
        }
    }

    /// Replaces all options; `options` are a multiple of four bytes, 40 at most.
    ///
    /// # Panics
    /// If they are not.
    pub fn set_options(&mut self, options: &[u8]) {
        assert!(options.len() <= 40 && options.len().is_multiple_of(4), "{} bytes of options", options.len());
        let range = self.tcp + TCP_HEADER..self.data();
        self.bytes.splice(range, options.iter().copied());
        let offset = &mut self.bytes[self.tcp + 12];
        *offset = (5 + options.len() as u8 / 4) << 4 | *offset & 0x0f;
    }

    /// Replaces the control bits.
    pub fn set_flags(&mut self, flags: Flags) {
        self.bytes[self.tcp + 13] = flags.0;
    }

    /// Replaces the sequence number.
    pub fn set_seq(&mut self, seq: SeqNum) {
        self.put32(self.tcp + 4, seq.0);
    }

    /// Moves the sequence number.
    pub fn add_seq(&mut self, n: u32) {
        self.set_seq(self.seq().add(n));
    }

    /// Replaces the acknowledgement number.
    pub fn set_ack(&mut self, ack: SeqNum) {
        self.put32(self.tcp + 8, ack.0);
    }

    /// Moves the acknowledgement, if there is one, and the SACK blocks.
    pub fn add_ack(&mut self, n: u32) {
        if !self.flags().has(Flags::ACK) {
            return;
        }
        self.set_ack(self.ack().add(n));
        for range in self.options(option::SACK) {
            for at in (range.start + 2..range.end.saturating_sub(3)).step_by(4) {
                self.put32(at, self.be32(at - self.tcp).wrapping_add(n));
            }
        }
    }

    fn put32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// Replaces the window.
    pub fn set_window(&mut self, window: u16) {
        let at = self.tcp + 14;
        self.bytes[at..at + 2].copy_from_slice(&window.to_be_bytes());
    }

    /// Replaces the source. Of another family it is left alone.
    pub fn set_source(&mut self, source: Endpoint) {
        self.set_end(source, 0);
    }

    /// Replaces the destination. Of another family it is left alone.
    pub fn set_destination(&mut self, destination: Endpoint) {
        self.set_end(destination, 1);
    }

    fn set_end(&mut self, end: Endpoint, which: usize) {
        let (first, len) = if self.tcp == 20 { (12, 4) } else { (8, 16) };
        if end.octets().len() == len {
            self.bytes[first + which * len..][..len].copy_from_slice(end.octets());
            self.bytes[self.tcp + 2 * which..][..2].copy_from_slice(&end.port.to_be_bytes());
        }
    }

    /// The payload, to be changed in place.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let data = self.data();
        &mut self.bytes[data..]
    }

    /// Replaces payload by other payload of the same length, as application gateways do. False if it is not there.
    ///
    /// # Panics
    /// If the two differ in length.
    pub fn replace(&mut self, what: &[u8], by: &[u8]) -> bool {
        let found = self.payload().windows(what.len()).position(|window| window == what);
        if let Some(at) = found {
            self.payload_mut()[at..at + what.len()].copy_from_slice(by);
        }
        found.is_some()
    }

    /// Cuts the payload to `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.data() + len);
    }

    /// Appends payload.
    pub fn append(&mut self, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
    }

    /// Cuts the segment in two after `n` bytes of payload. Both have the options; FIN and PSH are on the second.
    #[must_use]
    pub fn split(mut self, n: usize) -> [Self; 2] {
        let (data, tcp) = (self.data(), self.tcp);
        let mut second = self.clone();
        second.bytes.drain(data..data + n);
        second.add_seq(n as u32);
        self.truncate(n);
        self.bytes[tcp + 13] &= !(Flags::FIN.0 | Flags::PSH.0);
        [self, second]
    }

    /// A segment without options and payload that answers this one: from its destination to its source, next in
    /// sequence as far as its acknowledgement tells.
    #[must_use]
    pub fn answer(&self, flags: Flags, ack: SeqNum) -> Self {
        let mut answer = self.clone();
        answer.truncate(0);
        answer.set_options(&[]);
        let (source, destination) = self.ends();
        answer.set_source(destination);
        answer.set_destination(source);
        answer.set_seq(self.ack());
        answer.set_ack(ack);
        answer.set_flags(flags);
        answer
    }
}
