//! Packet buffers and metadata that the anabranch stack, its drivers and its simulator share.
//!
//! Nothing in here does I/O or reads a clock: [`Instant`] is a number that somebody hands in,
//! [`Payload`] is a refcounted range of a pooled buffer, [`Transmit`] and [`RxPacket`] are what
//! crosses the line between a protocol and a device, and [`pcapng`] turns packets into bytes of a
//! capture file.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod checksum;
pub mod gso;
mod packet;
mod payload;
pub mod pcapng;
mod pools;
mod shelf;
mod time;

pub use packet::{HEADER_MAX, Header, PathId, RxChecksum, RxPacket, Slices, Transmit};
pub use payload::{BufferMut, BufferPool, Payload};
pub use pools::Pools;
pub use time::Instant;
