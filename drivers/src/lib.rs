//! Packet I/O for the anabranch stack: devices that carry IP datagrams, and wrappers around them.
//!
//! * [`Device`]: what every device can do, and what a worker that drives one must do;
//! * [`memory`]: two devices back to back in one process.
//!
//! Nothing in here knows TCP or MPTCP, and nothing blocks.

mod buffers;
mod device;
pub mod memory;
mod tun;

pub use device::{Capabilities, Counters, Device, Readiness, State, TransmitError};
pub use tun::{Network, TunConfig};
