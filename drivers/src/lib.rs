//! Packet I/O for the anabranch stack: devices that carry IP datagrams, and wrappers around them.
//!
//! * [`Device`]: what every device can do, and what a worker that drives one must do;
//! * [`Tun`]: a network interface of the kernel whose other end is this process;
//! * [`packet`]: an existing interface's wire, with addresses of our own on it;
//! * `tun_tap` and `pnet`, with the features of these names: the same two through well-known crates, without any
//!   offload, to compare with;
//! * [`memory`]: two devices back to back in one process;
//! * [`LinkMonitor`]: hears of interfaces that go down, come back or vanish;
//! * [`pcap`]: records what passes any device in a capture file;
//! * [`faults`]: loses, repeats, swaps and damages what passes any device;
//! * [`echo`]: answers pings.
//!
//! Nothing in here knows TCP or MPTCP, and nothing blocks.

#![deny(unsafe_code)]

mod buffers;
mod device;
pub mod echo;
mod ether;
pub mod faults;
mod gro;
pub mod memory;
mod netlink;
pub mod packet;
pub mod pcap;
#[cfg(feature = "pnet")]
pub mod pnet;
mod segments;
#[cfg(test)]
mod testing;
mod tun;
#[cfg(feature = "tun-tap")]
pub mod tun_tap;
mod vnet;

pub use device::{Capabilities, Counters, Device, Readiness, State, TransmitError};
pub use netlink::{LinkChange, LinkEvent, LinkMonitor};
pub use tun::{Network, OpenError, Tun, TunConfig, TunQueue};
