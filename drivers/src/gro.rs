//! Receive offload in software, for a device that hands up each packet of the wire by itself: segments that continue
//! each other become one super-segment, as with the kernel's GRO. The stack then works and answers once for all of them.

use anabranch_frame::checksum::{Sum, pseudo_header};
use anabranch_frame::{BufferMut, RxChecksum};

const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
const TCP: u8 = 6;
const TCP_HEADER: usize = 20;
const TCP_SEQ: usize = 4;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const ACK: u8 = 0x10;
/// FIN and PSH: what only the last of several segments may say.
const LAST: u8 = 0x09;
/// Of IPv4's flags and fragment offset, what makes a packet a fragment.
const FRAGMENT: u16 = 0x3fff;
/// Longest datagram that its IP header can express.
const LONGEST: usize = 65_535;

/// A packet in a buffer, and what was appended to it.
#[derive(Debug)]
pub(crate) struct Train {
    buffer: BufferMut,
    len: usize,
    /// What may follow; `None` when nothing may.
    next: Option<Next>,
    /// The segments' length, once there are several.
    segment_size: Option<u16>,
    checksum: RxChecksum,
}

/// What the next segment has to be.
#[derive(Clone, Copy, Debug)]
struct Next {
    /// Lengths of the IP header and of both headers.
    transport: usize,
    headers: usize,
    seq: u32,
    /// Payload of all segments but the last.
    segment: usize,
}

impl Train {
    /// Begins with the packet in the first `len` bytes of `buffer`.
    pub(crate) fn new(mut buffer: BufferMut, len: usize) -> Self {
        let next = Next::after(&buffer.as_mut_slice()[..len]);
        // Whatever may be continued was verified.
        let checksum = if next.is_some() { RxChecksum::Trusted } else { RxChecksum::Unverified };
        Self { buffer, len, next, segment_size: None, checksum }
    }

    /// Where the headers and the payload of a packet that may continue this one are to be put, `None` if none can: in
    /// `scratch`, and behind what is there already.
    pub(crate) fn room<'a>(&'a mut self, scratch: &'a mut [u8]) -> Option<(&'a mut [u8], &'a mut [u8])> {
        let next = self.next?;
        let headers = scratch.get_mut(..next.headers)?;
        let payload = self.buffer.as_mut_slice().get_mut(self.len..self.len + next.segment)?;
        Some((headers, payload))
    }

    /// Takes in the packet of `len` bytes in the [room](Self::room), if it continues this one.
    pub(crate) fn take(&mut self, scratch: &[u8], len: usize) -> bool {
        let Some(next) = self.next else { return false };
        let Some(payload_len) = len.checked_sub(next.headers).filter(|&payload| payload > 0) else { return false };
        if payload_len > next.segment || self.len + payload_len > LONGEST {
            return false;
        }
        let (whole, payload) = self.buffer.as_mut_slice().split_at_mut(self.len);
        let (headers, payload) = (&scratch[..next.headers], &payload[..payload_len]);
        if !next.is(&whole[..next.headers], headers, payload) {
            return false;
        }
        whole[next.transport + TCP_FLAGS] |= headers[next.transport + TCP_FLAGS] & LAST;
        self.len += payload_len;
        self.segment_size = Some(next.segment as u16);
        let complete = payload_len < next.segment || headers[next.transport + TCP_FLAGS] & LAST != 0;
        let seq = next.seq.wrapping_add(payload_len as u32);
        let fits = self.len + next.segment <= LONGEST;
        self.next = (!complete && fits).then_some(Next { seq, ..next });
        true
    }

    /// Ends it: the buffer, the packet's length, what is known of its checksum, and the segments' length.
    pub(crate) fn finish(mut self) -> (BufferMut, usize, RxChecksum, Option<u16>) {
        if self.segment_size.is_some() {
            set_length(&mut self.buffer.as_mut_slice()[..self.len]);
        }
        (self.buffer, self.len, self.checksum, self.segment_size)
    }
}

impl Next {
    /// What may follow a packet; `None` if nothing may, or if it is damaged.
    fn after(packet: &[u8]) -> Option<Self> {
        let transport = plain_ip(packet)?;
        let tcp = packet.get(transport..).filter(|tcp| tcp.len() > TCP_HEADER)?;
        let headers = transport + usize::from(tcp[12] >> 4) * 4;
        let payload = packet.get(headers..).filter(|payload| !payload.is_empty())?;
        if headers < transport + TCP_HEADER || tcp[TCP_FLAGS] != ACK || packet.len() + payload.len() > LONGEST {
            return None;
        }
        if !is_intact(&packet[..headers], transport, payload) {
            return None;
        }
        let (seq, segment) = (seq_of(tcp).wrapping_add(payload.len() as u32), payload.len());
        Some(Self { transport, headers, seq, segment })
    }

    /// Whether a packet follows that which began with `first`: it may differ in nothing but position, length,
    /// identification, checksums, and in being the last.
    fn is(&self, first: &[u8], headers: &[u8], payload: &[u8]) -> bool {
        let (ip, tcp) = headers.split_at(self.transport);
        let (first_ip, first_tcp) = first.split_at(self.transport);
        let same_ip = match self.transport {
            V4_HEADER => ip[..2] == first_ip[..2] && ip[6..10] == first_ip[6..10] && ip[12..] == first_ip[12..],
            _ => ip[..4] == first_ip[..4] && ip[6..] == first_ip[6..],
        };
        let same_tcp = tcp[..TCP_SEQ] == first_tcp[..TCP_SEQ]
            && tcp[TCP_SEQ + 4..TCP_FLAGS] == first_tcp[TCP_SEQ + 4..TCP_FLAGS]
            && (tcp[TCP_FLAGS] | LAST) == (first_tcp[TCP_FLAGS] | LAST)
            && tcp[TCP_FLAGS + 1..TCP_CHECKSUM] == first_tcp[TCP_FLAGS + 1..TCP_CHECKSUM]
            && tcp[TCP_CHECKSUM + 2..] == first_tcp[TCP_CHECKSUM + 2..];
        let whole = ip_len(ip) == headers.len() + payload.len();
        same_ip && same_tcp && whole && seq_of(tcp) == self.seq && is_intact(headers, self.transport, payload)
    }
}

/// Length of the IP header of a whole TCP datagram without IP options or extension headers.
fn plain_ip(packet: &[u8]) -> Option<usize> {
    let transport = match *packet.first()? {
        0x45 => V4_HEADER,
        first if first >> 4 == 6 => V6_HEADER,
        _ => return None,
    };
    let ip = packet.get(..transport)?;
    let tcp = if transport == V4_HEADER {
        ip[9] == TCP && u16::from_be_bytes([ip[6], ip[7]]) & FRAGMENT == 0
    } else {
        ip[6] == TCP
    };
    (tcp && ip_len(ip) == packet.len()).then_some(transport)
}

/// Length of the datagram as the header says it.
fn ip_len(ip: &[u8]) -> usize {
    match ip.len() {
        V4_HEADER => usize::from(u16::from_be_bytes([ip[2], ip[3]])),
        _ => V6_HEADER + usize::from(u16::from_be_bytes([ip[4], ip[5]])),
    }
}

fn seq_of(tcp: &[u8]) -> u32 {
    u32::from_be_bytes([tcp[TCP_SEQ], tcp[TCP_SEQ + 1], tcp[TCP_SEQ + 2], tcp[TCP_SEQ + 3]])
}

/// Whether all checksums are right.
fn is_intact(headers: &[u8], transport: usize, payload: &[u8]) -> bool {
    let (ip, tcp) = headers.split_at(transport);
    let len = (tcp.len() + payload.len()) as u32;
    let (ip_is_right, pseudo) = match transport {
        V4_HEADER => (Sum::new().add(ip).fold() == 0xffff, pseudo_header(&ip[12..16], &ip[16..20], TCP, len)),
        _ => (true, pseudo_header(&ip[8..24], &ip[24..40], TCP, len)),
    };
    ip_is_right && pseudo.add(tcp).add(payload).fold() == 0xffff
}

/// Makes the IP header that of a datagram as long as `packet`.
fn set_length(packet: &mut [u8]) {
    let len = packet.len();
    if packet[0] >> 4 == 6 {
        packet[4..6].copy_from_slice(&((len - V6_HEADER) as u16).to_be_bytes());
        return;
    }
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet[10..12].fill(0);
    let sum = Sum::new().add(&packet[..V4_HEADER]).finish();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests;
