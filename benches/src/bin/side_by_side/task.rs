//! What the processes of one measure are told, as JSON on their command line, and what they answer.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// What a process of this program does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Serves until standard input ends. Says so in one line when it is ready.
    Serve(Serve),
    /// Loads a server, prints a [`Sample`] and ends.
    Load(Load),
    /// Moves bytes between stacks in its own memory, prints a [`Sample`] and ends.
    Memory(Memory),
}

/// The services: on [`Service::port`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Service {
    /// Reads to the end (RFC 863).
    Discard,
    /// Writes until the other side closes (RFC 864).
    Chargen,
    /// Sends back what it gets (RFC 862).
    Echo,
}

impl Service {
    pub(crate) const ALL: [Self; 3] = [Self::Discard, Self::Chargen, Self::Echo];

    /// Where all peers serve it.
    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Discard => 5001,
            Self::Chargen => 5002,
            Self::Echo => 5003,
        }
    }
}

/// A server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Serve {
    /// Whose stack it is on.
    pub(crate) stack: ServerStack,
    /// Connections that each service can have at once.
    pub(crate) connections: usize,
    /// The processors it may use; empty: all.
    pub(crate) cpus: Vec<usize>,
}

/// Whose stack a server is on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ServerStack {
    /// The kernel's.
    Kernel {
        /// MPTCP sockets.
        mptcp: bool,
        /// `TCP_CONGESTION`.
        congestion: String,
    },
    /// Ours.
    Anabranch(Anabranch),
    /// smoltcp, on the TUN device `tun0`, which is there.
    Smoltcp {
        /// With virtio-net headers and segmentation offload.
        offload: bool,
    },
    /// No stack: as little of TCP as moves the bytes of one service over `tun0`.
    Bare {
        /// Reads (discard) instead of writing (chargen).
        reads: bool,
    },
}

/// How our stack is brought up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Anabranch {
    /// Specifications of its paths.
    pub(crate) paths: Vec<String>,
    /// Worker threads.
    pub(crate) workers: usize,
    /// How long a worker looks for work before it sleeps, in microseconds.
    pub(crate) busy_poll_us: u64,
    /// Speak MPTCP.
    pub(crate) mptcp: bool,
}

/// A client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    /// Whose sockets.
    pub(crate) stack: ClientStack,
    /// What it does.
    pub(crate) what: Traffic,
    /// On so many connections at once, or in so many loops.
    pub(crate) connections: usize,
    /// For how long, after a warm-up.
    pub(crate) seconds: f64,
    /// The server.
    pub(crate) remote: Ipv4Addr,
    /// The processors it may use; empty: all.
    pub(crate) cpus: Vec<usize>,
}

/// Whose sockets a client uses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ClientStack {
    /// The kernel's.
    Kernel {
        /// MPTCP sockets.
        mptcp: bool,
        /// `TCP_CONGESTION`.
        congestion: String,
    },
    /// Ours, with so many subflows to each connection.
    Anabranch(Anabranch, usize),
}

/// What a client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Traffic {
    /// Sends, then ends its stream and waits for the server's end.
    Send,
    /// Receives, then closes with data on its way.
    Receive,
    /// Sends so many bytes and waits until they are back, again and again.
    Echo(usize),
    /// Connects, ends its stream, waits for the server's end, closes, again and again.
    Connect,
}

/// A measure without the kernel.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Each thread has a worker of both stacks.
    pub(crate) threads: usize,
    /// Connections of each thread.
    pub(crate) connections: usize,
    /// Super-segments pass whole; otherwise every segment by itself, with a checksum.
    pub(crate) offload: bool,
    /// For how long.
    pub(crate) seconds: f64,
}

/// Something measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Quantity {
    /// Payload in Gbit/s.
    Gbps,
    /// Connections or round trips in a second.
    PerSecond,
    /// Median of the round trips, in microseconds.
    P50Us,
    /// 99th percentile of the round trips, in microseconds.
    P99Us,
    /// Processor time of the server for each connection or round trip, in microseconds.
    ServerUs,
    /// The part of it that was not spent in the kernel.
    ServerUserUs,
    /// Cores that the server used.
    ServerCores,
    /// Cores that the client used.
    ClientCores,
    /// Bytes of the heap for one end of a connection.
    HeapPerEnd,
    /// Bytes of the process's memory for it: what the allocator adds is in it.
    ResidentPerEnd,
    /// The part of the whole machine that others used.
    Others,
}

impl Quantity {
    /// Whether less of it is better.
    pub(crate) fn is_cost(self) -> bool {
        !matches!(self, Self::Gbps | Self::PerSecond)
    }
}

/// What one run gave.
pub(crate) type Sample = BTreeMap<Quantity, f64>;
