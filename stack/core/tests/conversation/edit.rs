//! Changing IPv4 packets on their way, as middleboxes do.

use anabranch_core::wire::Flags;
use anabranch_frame::Payload;
use anabranch_frame::checksum::{Sum, pseudo_header};

/// Option kinds.
pub(crate) const WINDOW_SCALE: u8 = 3;
pub(crate) const SACK_PERMITTED: u8 = 4;
pub(crate) const SACK: u8 = 5;
pub(crate) const TIMESTAMPS: u8 = 8;
pub(crate) const MPTCP: u8 = 30;

/// A TCP segment over IPv4, to be changed.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    bytes: Vec<u8>,
}

impl Edit {
    pub(crate) fn new(packet: &Payload) -> Self {
        assert_eq!(packet[0] >> 4, 4, "only IPv4 is edited");
        Self { bytes: packet.to_vec() }
    }

    fn tcp(&self) -> usize {
        usize::from(self.bytes[0] & 15) * 4
    }

    fn data(&self) -> usize {
        self.tcp() + usize::from(self.bytes[self.tcp() + 12] >> 4) * 4
    }

    pub(crate) fn payload_len(&self) -> usize {
        self.bytes.len() - self.data()
    }

    /// Replaces payload by other payload of the same length, as application gateways do. False if it is not there.
    pub(crate) fn replace(&mut self, what: &[u8], by: &[u8]) -> bool {
        let data = self.data();
        let found = self.bytes[data..].windows(what.len()).position(|window| window == what);
        if let Some(at) = found {
            self.bytes[data + at..][..by.len()].copy_from_slice(by);
        }
        found.is_some()
    }

    /// Inverts the last byte of the payload.
    pub(crate) fn spoil(&mut self) {
        if let Some(last) = self.bytes.last_mut() {
            *last = !*last;
        }
    }

    pub(crate) fn is_syn(&self) -> bool {
        self.bytes[self.tcp() + 13] & 2 != 0
    }

    /// Replaces the control bits.
    pub(crate) fn set_flags(&mut self, flags: Flags) {
        let at = self.tcp() + 13;
        self.bytes[at] = flags.0;
    }

    fn add_at(&mut self, at: usize, n: u32) {
        let field: &mut [u8] = &mut self.bytes[at..at + 4];
        let sum = u32::from_be_bytes([field[0], field[1], field[2], field[3]]).wrapping_add(n);
        field.copy_from_slice(&sum.to_be_bytes());
    }

    /// Moves the sequence number.
    pub(crate) fn add_seq(&mut self, n: u32) {
        self.add_at(self.tcp() + 4, n);
    }

    /// Moves the acknowledgement and the SACK blocks.
    pub(crate) fn add_ack(&mut self, n: u32) {
        if self.bytes[self.tcp() + 13] & 0x10 == 0 {
            return;
        }
        self.add_at(self.tcp() + 8, n);
        for (at, len) in self.options(SACK) {
            for block in (at + 2..at + len).step_by(4) {
                self.add_at(block, n);
            }
        }
    }

    /// Replaces the last byte of the source or destination address.
    pub(crate) fn set_host(&mut self, source: bool, from: [u8; 4], to: [u8; 4]) {
        let at = if source { 12 } else { 16 };
        if self.bytes[at..at + 4] == from {
            self.bytes[at..at + 4].copy_from_slice(&to);
        }
    }

    /// Where the options of a kind are, and how long.
    fn options(&self, kind: u8) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let mut at = self.tcp() + 20;
        while at < self.data() {
            match self.bytes[at] {
                0 => break,
                1 => at += 1,
                other => {
                    let len = usize::from(self.bytes[at + 1]).max(2);
                    if other == kind {
                        found.push((at, len));
                    }
                    at += len;
                }
            }
        }
        found
    }

    /// Overwrites the options of a kind with NOPs.
    pub(crate) fn strip(&mut self, kind: u8) {
        for (at, len) in self.options(kind) {
            self.bytes[at..at + len].fill(1);
        }
    }

    /// Cuts the segment in two after `n` bytes of payload. Both have the options; FIN and PSH are on the second.
    pub(crate) fn split(self, n: usize) -> [Self; 2] {
        let (data, tcp) = (self.data(), self.tcp());
        let mut second = self.clone();
        second.bytes.drain(data..data + n);
        second.add_seq(n as u32);
        let mut first = self;
        first.bytes.truncate(data + n);
        first.bytes[tcp + 13] &= !0x09;
        [first, second]
    }

    /// The packet with lengths and checksums made right.
    pub(crate) fn finish(mut self) -> Payload {
        let (len, tcp) = (self.bytes.len(), self.tcp());
        self.bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        self.bytes[10..12].fill(0);
        let sum = Sum::new().add(&self.bytes[..tcp]).finish();
        self.bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        self.bytes[tcp + 16..tcp + 18].fill(0);
        let (head, segment) = self.bytes.split_at(tcp);
        let sum = pseudo_header(&head[12..16], &head[16..20], 6, segment.len() as u32).add(segment).finish();
        self.bytes[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
        Payload::from(self.bytes)
    }
}

/// The packet without its MPTCP options, as firewalls leave it.
pub(crate) fn without_mptcp(packet: &Payload) -> Payload {
    let mut edit = Edit::new(packet);
    edit.strip(MPTCP);
    edit.finish()
}
