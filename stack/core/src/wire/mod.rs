//! Segments as bytes: IPv4 and IPv6 headers, the TCP header, TCP options, the MPTCP options.
//!
//! Parsing never fails a segment for one odd option: what is malformed is counted and left out, what
//! is unknown is passed over. Emission goes through an [`OptionWriter`] with a budget of 40 bytes.

mod bytes;
mod icmp;
mod ip;
mod mptcp;
mod options;
mod packed;
mod segment;
mod seq;

pub use icmp::{IcmpError, IcmpKind, is_icmp};
pub use ip::IpOut;
pub(crate) use ip::ecn;
pub use mptcp::{AddAddr, DataAck, Dss, Mapping, MpCapable, MpJoin, MptcpOption, RemoveAddr};
pub use options::{FastOpen, OPTIONS_MAX, OptionWriter, SackBlock, Signature, TcpOptions, Timestamps};
pub(crate) use packed::PackedTuple;
pub use segment::{Dropped, Flags, Segment, SegmentOut, Tuple, peek_tuple};
pub use seq::SeqNum;

#[cfg(test)]
mod tests;
