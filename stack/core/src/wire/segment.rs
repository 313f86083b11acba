use core::fmt;
use core::net::{IpAddr, SocketAddr};

use anabranch_frame::{Header, PathId, Payload, RxPacket};

use super::{OptionWriter, SeqNum, TcpOptions};

/// A connection's addresses, seen from here.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Ours.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} - {}", self.local, self.remote)
    }
}

/// TCP control bits, as they stand in byte 13 of the header.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// FIN.
    pub const FIN: Self = Self(0x01);
    /// SYN.
    pub const SYN: Self = Self(0x02);
    /// RST.
    pub const RST: Self = Self(0x04);
    /// PSH.
    pub const PSH: Self = Self(0x08);
    /// ACK.
    pub const ACK: Self = Self(0x10);
    /// URG.
    pub const URG: Self = Self(0x20);
    /// ECE.
    pub const ECE: Self = Self(0x40);
    /// CWR.
    pub const CWR: Self = Self(0x80);

    /// Whether all of `other`'s bits are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [
            (Self::SYN, 'S'),
            (Self::FIN, 'F'),
            (Self::RST, 'R'),
            (Self::PSH, 'P'),
            (Self::URG, 'U'),
            (Self::ECE, 'E'),
            (Self::CWR, 'W'),
            (Self::ACK, '.'),
        ] {
            if self.has(bit) {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// A received TCP segment, or super-segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The path it came in on.
    pub path: PathId,
    /// Local is its destination, remote its source.
    pub tuple: Tuple,
    /// Sequence number of its first byte (or SYN).
    pub seq: SeqNum,
    /// Acknowledgement number; meaningless without ACK.
    pub ack: SeqNum,
    /// Control bits.
    pub flags: Flags,
    /// Window field, unscaled.
    pub window: u16,
    /// ECN field of the IP header (0 to 3).
    pub ecn: u8,
    /// Options.
    pub options: TcpOptions,
    /// Payload.
    pub payload: Payload,
    /// For a super-segment, payload bytes of each segment it stands for.
    pub segment_size: Option<u16>,
}

/// Why a packet did not become a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dropped {
    /// Malformed IP header, wrong version, bad header checksum, lengths that do not fit.
    IpHeader,
    /// A fragment.
    Fragment,
    /// Not TCP.
    NotTcp,
    /// Malformed TCP header.
    TcpHeader,
    /// Bad TCP checksum.
    Checksum,
}

impl Segment {
    /// Sequence space it takes: payload, SYN and FIN.
    #[must_use]
    pub fn seq_len(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.flags.has(Flags::SYN)) + u32::from(self.flags.has(Flags::FIN))
    }
}

/// Everything of an outgoing segment but its payload.
#[derive(Clone, Copy, Debug)]
pub struct SegmentOut<'a> {
    /// Local is the source, remote the destination.
    pub tuple: Tuple,
    /// Sequence number of the first byte.
    pub seq: SeqNum,
    /// Acknowledgement number; 0 without ACK.
    pub ack: SeqNum,
    /// Control bits.
    pub flags: Flags,
    /// Window field.
    pub window: u16,
    /// IPv4 identification, or the low 16 bits of the IPv6 flow label.
    pub ip_id: u16,
    /// Options.
    pub options: &'a OptionWriter,
    /// Bytes of payload that follow.
    pub payload_len: u32,
}

impl Segment {
    /// Parses and checks one datagram; the TCP checksum is verified unless the device vouches for it.
    ///
    /// # Errors
    /// Why it is none of ours.
    pub fn parse(_packet: RxPacket) -> Result<Self, Dropped> {
        todo!()
    }
}
impl SegmentOut<'_> {
    /// IP and TCP header with the folded pseudo-header sum in the checksum field (see
    /// [`anabranch_frame::Transmit`]), and the offset of the TCP header.
    #[must_use]
    pub fn emit(&self) -> (Header, u8) {
        todo!()
    }
}
/// Addresses of a packet without parsing the rest, to find the worker that owns it. `None` if it is no TCP packet.
#[must_use]
pub fn peek_tuple(_datagram: &[u8]) -> Option<Tuple> {
    todo!()
}
