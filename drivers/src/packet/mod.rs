//! The wire of an Ethernet interface, by packet(7) sockets.
//!
//! [`Wire`] receives and sends Ethernet frames as they are, super-segments with their virtio header included.
//! [`Packet`] makes devices of it that have addresses of their own on that wire: others find them there, and they find
//! others, without the kernel of this host taking part.
//!
//! Frames come by `recvmmsg` unless a ring is asked for ([`Reception`]): a `TPACKET_V3` ring hands them over a
//! millisecond late, which is forty times as long as all the rest of a small request and its answer takes, and it costs a
//! second copy of each large one. docs/architecture.md has the figures.
//!
//! The kernel sees the frames, too. It must not own the addresses, or it would reset the connections, and it must
//! not forward them: where it forwards, the device takes an Ethernet address of its own, so that what is for it is
//! for nobody else. Elsewhere it has the interface's, as switches that filter, clouds and wireless networks demand.

mod error;
mod filter;
mod frame;
mod queue;
mod ring;
pub(crate) mod setup;
pub(crate) mod sys;
mod wire;

use std::net::IpAddr;

use anabranch_frame::PathId;

pub use crate::ether::{ETHERNET_HEADER, Mac};
pub use error::OpenError;
pub use frame::{VlanTag, WireFrame};
pub use queue::PacketQueue;
pub use wire::{Reception, Wire, WireConfig, WireCounters};

/// What a device on an interface's wire shall be.
#[derive(Clone, Debug)]
pub struct PacketConfig {
    /// The interface, which must be there.
    pub name: String,
    /// The path whose packets it carries.
    pub path: PathId,
    /// How many queues, one for each worker. At least 1.
    pub queues: usize,
    /// MTU in bytes, at most the interface's. `None`: what the interface has.
    pub mtu: Option<u16>,
    /// Our addresses on the wire, with the prefix lengths of their networks.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Neighbours that forward to everywhere else.
    pub gateways: Vec<IpAddr>,
    /// Other addresses of the stack, which a router may send here.
    pub also: Vec<IpAddr>,
    /// How packets come from the kernel.
    pub reception: Reception,
    /// Bytes that may wait in the kernel to be received, for each queue.
    pub buffer_bytes: usize,
    /// Super-segments and checksum offload, both ways. On unless the plain wire is to be tested.
    pub offload: bool,
    /// Send past the interface's queueing discipline. Who listens on this host, such as tcpdump, does not see then what
    /// is sent.
    pub qdisc_bypass: bool,
}

impl PacketConfig {
    /// A device with one queue, no address and everything else as usual.
    #[must_use]
    pub fn new(name: impl Into<String>, path: PathId) -> Self {
        let wire = WireConfig::new(name);
        Self {
            name: wire.interface,
            path,
            queues: 1,
            mtu: None,
            addresses: Vec::new(),
            gateways: Vec::new(),
            also: Vec::new(),
            reception: wire.reception,
            buffer_bytes: wire.buffer_bytes,
            offload: wire.offload,
            qdisc_bypass: wire.qdisc_bypass,
        }
    }
}

/// Makes devices on the wires of interfaces.
#[derive(Debug)]
pub struct Packet;

impl Packet {
    /// Opens the wire of an interface in the network namespace of the calling thread, and returns its queues: one for
    /// each worker. What comes in is shared among them by flow.
    ///
    /// Where the kernel refuses what only makes it faster, one warning is logged and the slower way taken.
    ///
    /// # Errors
    /// See [`OpenError`], each of which names the cure.
    pub fn open(config: &PacketConfig) -> Result<Vec<PacketQueue>, OpenError> {
        setup::open(config)
    }
}
