//! The wire of an Ethernet interface, by packet(7) sockets.
//!
//! [`Wire`] receives and sends Ethernet frames as they are, super-segments with their virtio header included.
mod error;
mod frame;
mod ring;
mod sys;
mod wire;

pub use error::OpenError;
pub use frame::{ETHERNET_HEADER, Mac, VlanTag, WireFrame};
pub use wire::{Reception, Wire, WireConfig, WireCounters};
