use core::fmt;
use core::ops::{Deref, DerefMut};

use smallvec::SmallVec;

use crate::Payload;

/// Longest header chain that the stack emits: IPv6 (40) and TCP with 40 bytes of options (60), and room to spare.
pub const HEADER_MAX: usize = 120;

/// Which of a stack's paths a packet came in on or leaves by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PathId(pub u16);

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "path {}", self.0)
    }
}

/// The scatter list of a packet's payload. Four ranges are inline, more are on the heap.
pub type Slices = SmallVec<[Payload; 4]>;

/// IP and transport header of an outgoing packet, inline.
#[derive(Clone, Copy)]
pub struct Header {
    bytes: [u8; HEADER_MAX],
    len: u8,
}

impl Header {
    /// `len` zero bytes.
    ///
    /// # Panics
    /// If `len` is more than [`HEADER_MAX`].
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        assert!(len <= HEADER_MAX, "a header of {len} bytes; the limit is {HEADER_MAX}");
        Self { bytes: [0; HEADER_MAX], len: len as u8 }
    }
}

impl Deref for Header {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl DerefMut for Header {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Header({} bytes)", self.len)
    }
}

/// One packet on its way out: an IP datagram, or a TCP super-segment that the device cuts up.
///
/// The transport checksum field holds the folded sum of the pseudo-header, *not* complemented, as
/// Linux's `VIRTIO_NET_HDR_F_NEEDS_CSUM` wants it: a device without checksum offload completes it,
/// see [`crate::gso`]. The IPv4 header checksum is complete.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// Which path it leaves by.
    pub path: PathId,
    /// IP header and transport header with its options.
    pub header: Header,
    /// Where in `header` the transport header starts, in bytes.
    pub transport_offset: u8,
    /// Where in the transport header the checksum field is (16 for TCP).
    pub checksum_offset: u8,
    /// What follows the header.
    pub payload: Slices,
    /// For a super-segment, payload bytes of each wire segment; the last one may be shorter.
    /// `None` or a value at least as large as the payload: one packet as it stands.
    pub segment_size: Option<u16>,
}

impl Transmit {
    /// Bytes of payload.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.payload.iter().map(Payload::len).sum()
    }

    /// Bytes of header and payload.
    #[must_use]
    pub fn len(&self) -> usize {
        self.header.len() + self.payload_len()
    }

    /// Never: a packet has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.header.is_empty()
    }

    /// How many packets this is on the wire.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        match self.segment_size {
            Some(size) if size > 0 => self.payload_len().div_ceil(usize::from(size)).max(1),
            _ => 1,
        }
    }
}

/// What the device knows of a received packet's transport checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RxChecksum {
    /// Nothing: the receiver must verify it.
    #[default]
    Unverified,
    /// It was verified, or the packet never crossed a wire (a local peer's offloaded checksum).
    Trusted,
}

/// One packet that came in: an IP datagram, or a TCP super-segment (GRO, TSO from a local peer).
#[derive(Clone, Debug)]
pub struct RxPacket {
    /// Which path it came in on.
    pub path: PathId,
    /// The datagram from its IP header on.
    pub data: Payload,
    /// What is known of the transport checksum.
    pub checksum: RxChecksum,
    /// For a super-segment, payload bytes of each segment it stands for.
    pub segment_size: Option<u16>,
}

impl RxPacket {
    /// A packet of which nothing is known but its bytes.
    #[must_use]
    pub fn new(path: PathId, data: Payload) -> Self {
        Self { path, data, checksum: RxChecksum::Unverified, segment_size: None }
    }
}
