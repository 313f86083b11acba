//! Capture files: pcapng blocks as bytes (draft-ietf-opsawg-pcapng).
//!
//! [`Encoder`] appends blocks to a buffer; who calls it decides where the bytes go, and says what
//! time it is. A file that is cut off between two blocks is still a valid one.

use alloc::vec::Vec;
use core::fmt;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

/// Tells the reader our byte order, which is little-endian on every machine.
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// The length of the section is not known in advance.
const SECTION_LENGTH_UNKNOWN: u64 = u64::MAX;
/// `LINKTYPE_RAW`: packets start with their IP header.
const LINKTYPE_RAW: u16 = 101;

const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;

/// Timestamps count in units of 10^-9 s.
const NANOSECONDS: u8 = 9;

/// Which way a packet went, seen from the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// It came in.
    Inbound,
    /// It went out.
    Outbound,
}

/// An interface of the file, from [`Encoder::interface`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterfaceId(u32);

impl fmt::Display for InterfaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interface {}", self.0)
    }
}

/// One packet to be recorded.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Where it was seen.
    pub interface: InterfaceId,
    /// When, in nanoseconds since the Unix epoch.
    pub unix_nanos: u64,
    /// Which way it went.
    pub direction: Direction,
    /// A remark for the reader; of more than 65535 bytes, the first ones.
    pub comment: Option<&'a str>,
    /// The packet from its IP header on.
    pub data: &'a [u8],
}

/// Turns packets into the blocks of one section of a capture file.
#[derive(Debug)]
pub struct Encoder {
    snaplen: u32,
    interfaces: u32,
}

impl Encoder {
    /// Begins a section: appends its header to `out`. Of each packet `snaplen` bytes are recorded at
    /// most; 0 means all of them.
    #[must_use]
    pub fn new(snaplen: u32, out: &mut Vec<u8>) -> Self {
        block(out, SECTION_HEADER, |out| {
            out.extend_from_slice(&BYTE_ORDER_MAGIC.to_le_bytes());
            // Version 1.0 of the format.
            out.extend_from_slice(&1u16.to_le_bytes());
            out.extend_from_slice(&0u16.to_le_bytes());
            out.extend_from_slice(&SECTION_LENGTH_UNKNOWN.to_le_bytes());
            option(out, SHB_USERAPPL, concat!("anabranch ", env!("CARGO_PKG_VERSION")).as_bytes());
            option(out, OPTION_END, &[]);
        });
        Self { snaplen, interfaces: 0 }
    }

    /// Appends the description of one more interface. It may come at any time before its first packet.
    pub fn interface(&mut self, name: &str, out: &mut Vec<u8>) -> InterfaceId {
        block(out, INTERFACE_DESCRIPTION, |out| {
            out.extend_from_slice(&LINKTYPE_RAW.to_le_bytes());
            out.extend_from_slice(&0u16.to_le_bytes());
            out.extend_from_slice(&self.snaplen.to_le_bytes());
            option(out, IF_NAME, text(name));
            option(out, IF_TSRESOL, &[NANOSECONDS]);
            option(out, OPTION_END, &[]);
        });
        let id = InterfaceId(self.interfaces);
        self.interfaces += 1;
        id
    }

    /// Appends one packet.
    pub fn packet(&self, packet: &Packet<'_>, out: &mut Vec<u8>) {
        let recorded = match self.snaplen {
            0 => packet.data,
            snaplen => &packet.data[..packet.data.len().min(snaplen as usize)],
        };
        let flags: u32 = match packet.direction {
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        };
        block(out, ENHANCED_PACKET, |out| {
            out.extend_from_slice(&packet.interface.0.to_le_bytes());
            out.extend_from_slice(&((packet.unix_nanos >> 32) as u32).to_le_bytes());
            out.extend_from_slice(&(packet.unix_nanos as u32).to_le_bytes());
            out.extend_from_slice(&(recorded.len() as u32).to_le_bytes());
            out.extend_from_slice(&(packet.data.len() as u32).to_le_bytes());
            padded(out, recorded);
            option(out, EPB_FLAGS, &flags.to_le_bytes());
            if let Some(comment) = packet.comment {
                option(out, OPTION_COMMENT, text(comment));
            }
            option(out, OPTION_END, &[]);
        });
    }
}

/// A block: its type, its length before and behind, and what `body` appends.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    body(out);
    let len = (out.len() - start + 4) as u32;
    out.extend_from_slice(&len.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&len.to_le_bytes());
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(&(value.len() as u16).to_le_bytes());
    padded(out, value);
}

/// `bytes` and zeros up to a multiple of four.
fn padded(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.extend_from_slice(&[0; 3][..bytes.len().next_multiple_of(4) - bytes.len()]);
}

/// As much of `text` as an option can hold.
fn text(text: &str) -> &[u8] {
    &text.as_bytes()[..text.floor_char_boundary(usize::from(u16::MAX))]
}

#[cfg(test)]
mod tests;
