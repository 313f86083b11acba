//! A library that packetdrill loads to test the anabranch stack in place of the kernel.
//!
//! `packetdrill --so_filename=libanabranch_packetdrill.so …`, with the same library in `LD_PRELOAD`; the runner
//! `packetdrill-suite` does both. The tool gets a table of functions in the shape of system calls
//! ([`packetdrill_interface_init`]) and a device to send packets into and take packets out of. Behind it is one
//! `Shard` in virtual time.

mod address;
mod buffers;
mod calls;
mod control;
mod epoll;
mod errno;
mod errqueue;
mod handle;
mod info;
mod interface;
mod netlink;
mod network;
mod pipe;
mod plugin;
mod preload;
mod sendbuf;
mod settings;
mod socket;
mod value;
mod world;

pub use interface::{Interface, packetdrill_interface_init};
