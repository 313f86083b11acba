//! TUN devices: a network interface of the kernel whose other end is this process.

mod error;
mod queue;
pub(crate) mod setup;
mod sys;

use std::net::IpAddr;

use anabranch_frame::PathId;

pub use error::OpenError;
pub use queue::TunQueue;

/// What a TUN device shall be.
#[derive(Clone, Debug)]
pub struct TunConfig {
    /// The interface's name, at most 15 bytes. One that exists is adopted, otherwise it is made.
    pub name: String,
    /// The path whose packets it carries.
    pub path: PathId,
    /// How many queues, one for each worker. At least 1.
    pub queues: usize,
    /// MTU in bytes. `None`: 1500 for an interface that is made, what it has for one that is adopted.
    pub mtu: Option<u16>,
    /// Our networks, and the kernel's addresses in them.
    pub networks: Vec<Network>,
    /// Super-segments and checksum offload, both ways. On unless the plain device is to be tested.
    pub offload: bool,
}

impl TunConfig {
    /// An interface with one queue, no address and everything else as usual.
    #[must_use]
    pub fn new(name: impl Into<String>, path: PathId) -> Self {
        Self { name: name.into(), path, queues: 1, mtu: None, networks: Vec::new(), offload: true }
    }
}

/// An address of the stack's on the far side of an interface, and the kernel's address on the near side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// The stack's address: the kernel routes it to the interface.
    pub address: IpAddr,
    /// Length of the network's prefix in bits.
    pub prefix: u8,
    /// The address that the kernel's side gets, with the same prefix. `None`: only a route is made.
    pub host: Option<IpAddr>,
}

/// Makes TUN devices.
#[derive(Debug)]
pub struct Tun;

impl Tun {
    /// Makes the interface, or adopts one that is there, in the network namespace of the calling thread, and
    /// returns its queues: one for each worker.
    ///
    /// An interface that is made gets MTU, addresses and routes, a transmit queue of 1000 packets and no
    /// link-local address, and is set up. It vanishes with the last of its queues.
    ///
    /// One that is adopted (`ip tuntap add dev ab0 mode tun user $USER multi_queue vnet_hdr`) needs no privilege
    /// if it is as it should be: up, with the addresses given as `host`. What is missing is set where that is
    /// allowed. Its other settings stay, and it stays when the queues are dropped.
    ///
    /// # Errors
    /// See [`OpenError`], each of which names the cure.
    pub fn open(config: &TunConfig) -> Result<Vec<TunQueue>, OpenError> {
        setup::open(config)
    }
}
