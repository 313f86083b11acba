//! Segmentation and checksum completion in software, for devices that can do neither.
//!
//! The result is what a network card with TSO or USO puts on the wire, and what Linux's software GSO
//! does: headers and TCP options are repeated verbatim, only lengths, IPv4 identification, sequence
//! number, FIN, PSH, CWR and checksums differ from segment to segment.

use alloc::vec::Vec;

use crate::checksum::Sum;
use crate::{Payload, Transmit};

/// Where the checksum is in a TCP header.
const TCP_CHECKSUM: u8 = 16;
/// Where it is in a UDP header.
const UDP_CHECKSUM: u8 = 6;
const UDP_LENGTH: usize = 4;
const TCP_SEQ: usize = 4;
const TCP_FLAGS: usize = 13;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

const V4_HEADER_MIN: usize = 20;
const V6_HEADER: usize = 40;

/// Calls `f` with each packet that `transmit` is on the wire, in order, checksums complete. Each is
/// put together in `scratch`, whose former content is lost.
///
/// # Panics
/// If the offsets in `transmit` point beyond its header.
pub fn for_each_segment(transmit: &Transmit, scratch: &mut Vec<u8>, mut f: impl FnMut(&[u8])) {
    let count = transmit.segment_count();
    let size = usize::from(transmit.segment_size.unwrap_or_default());
    if count == 1 || !matches!(transmit.checksum_offset, TCP_CHECKSUM | UDP_CHECKSUM) {
        complete(transmit, scratch);
        return f(scratch);
    }
    let whole_len = transport_len(transmit);
    let mut rest = Cursor { slices: &transmit.payload, at: 0 };
    for index in 0..count {
        scratch.clear();
        scratch.extend_from_slice(&transmit.header);
        rest.take(size, scratch);
        patch_ip(scratch, index);
        let transport = &mut scratch[usize::from(transmit.transport_offset)..];
        let len = transport.len() as u32;
        let pseudo_header = field(transport, transmit.checksum_offset).add_u32(!whole_len).add_u32(len).fold();
        match transmit.checksum_offset {
            TCP_CHECKSUM => patch_tcp(transport, (index * size) as u32, index == 0, index + 1 == count),
            _ => transport[UDP_LENGTH..UDP_LENGTH + 2].copy_from_slice(&(len as u16).to_be_bytes()),
        }
        finish(transport, transmit.checksum_offset, pseudo_header);
        f(scratch);
    }
}

/// Puts `transmit` together in `out` as one packet with its checksum complete, whatever its segment
/// size. The former content of `out` is lost.
///
/// # Panics
/// If the offsets in `transmit` point beyond its header.
pub fn complete(transmit: &Transmit, out: &mut Vec<u8>) {
    out.clear();
    out.reserve(transmit.len());
    out.extend_from_slice(&transmit.header);
    for slice in &transmit.payload {
        out.extend_from_slice(slice);
    }
    let transport = &mut out[usize::from(transmit.transport_offset)..];
    let pseudo_header = field(transport, transmit.checksum_offset).fold();
    finish(transport, transmit.checksum_offset, pseudo_header);
}

/// Bytes of transport header and payload.
fn transport_len(transmit: &Transmit) -> u32 {
    (transmit.len() - usize::from(transmit.transport_offset)) as u32
}

/// What stands in the checksum field: the sum of the pseudo-header.
fn field(transport: &[u8], at: u8) -> Sum {
    let at = usize::from(at);
    Sum::new().add(&transport[at..at + 2])
}

/// Replaces the sum of the pseudo-header by the checksum of all.
fn finish(transport: &mut [u8], at: u8, pseudo_header: u16) {
    let udp = at == UDP_CHECKSUM;
    let at = usize::from(at);
    transport[at..at + 2].copy_from_slice(&pseudo_header.to_be_bytes());
    let checksum = match Sum::new().add(transport).finish() {
        // Zero would mean that there is none (RFC 768).
        0 if udp => 0xffff,
        checksum => checksum,
    };
    transport[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Makes length, identification and header checksum those of the segment with this index.
fn patch_ip(packet: &mut [u8], index: usize) {
    let len = packet.len();
    if packet[0] >> 4 == 6 {
        packet[4..6].copy_from_slice(&((len - V6_HEADER) as u16).to_be_bytes());
        return;
    }
    let header_len = (usize::from(packet[0] & 0x0f) * 4).max(V4_HEADER_MIN);
    let header = &mut packet[..header_len];
    let id = u16::from_be_bytes([header[4], header[5]]).wrapping_add(index as u16);
    header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    header[4..6].copy_from_slice(&id.to_be_bytes());
    header[10..12].fill(0);
    let checksum = Sum::new().add(header).finish();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Advances the sequence number. FIN and PSH belong to the last byte; CWR is said once (RFC 3168 §6.1.2).
fn patch_tcp(tcp: &mut [u8], offset: u32, first: bool, last: bool) {
    let seq = u32::from_be_bytes([tcp[TCP_SEQ], tcp[TCP_SEQ + 1], tcp[TCP_SEQ + 2], tcp[TCP_SEQ + 3]]);
    tcp[TCP_SEQ..TCP_SEQ + 4].copy_from_slice(&seq.wrapping_add(offset).to_be_bytes());
    if !first {
        tcp[TCP_FLAGS] &= !CWR;
    }
    if !last {
        tcp[TCP_FLAGS] &= !(FIN | PSH);
    }
}

/// What is left of a scatter list.
struct Cursor<'a> {
    slices: &'a [Payload],
    /// Bytes of the first slice that are gone.
    at: usize,
}

impl Cursor<'_> {
    /// Moves up to `n` bytes to the end of `out`.
    fn take(&mut self, mut n: usize, out: &mut Vec<u8>) {
        while let [slice, rest @ ..] = self.slices {
            let left = &slice[self.at..];
            if left.len() > n {
                out.extend_from_slice(&left[..n]);
                self.at += n;
                return;
            }
            out.extend_from_slice(left);
            n -= left.len();
            (self.slices, self.at) = (rest, 0);
        }
    }
}

#[cfg(test)]
mod tests;
