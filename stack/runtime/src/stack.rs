use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anabranch_core::{ConnInfo, Counters, IpCidr, SocketOptions, SubflowInfo, WorkerId};
use anabranch_frame::PathId;

use crate::{Builder, TcpListener, TcpStream};

/// A running stack: its paths and its workers. A handle; clones are cheap and mean the same stack.
#[derive(Clone, Debug)]
pub struct Stack {
    _todo: (),
}

/// How [`Stack::connect_with`] opens a connection.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Our address, our port or both; an unspecified address or port 0 leaves that part to the stack.
    pub local: Option<SocketAddr>,
    /// Give up after this long; `None` for the retransmission limit of the SYN.
    pub timeout: Option<Duration>,
    /// `None` for the stack's defaults.
    pub options: Option<SocketOptions>,
}

/// A connection in a list of them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Connection {
    /// The worker that it lives on.
    pub worker: WorkerId,
    /// What is known of it.
    pub info: ConnInfo,
    /// What is known of its subflows.
    pub subflows: Vec<SubflowInfo>,
}

/// A path as it is now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PathInfo {
    /// What packets and subflows call it.
    pub id: PathId,
    /// The interface.
    pub name: String,
    /// Our addresses on it.
    pub addrs: Vec<IpCidr>,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Whether it carries packets: its device is up, and nobody [took it down](Stack::set_path_up).
    pub up: bool,
    /// What passed and what was lost, over all workers.
    pub counters: PathCounters,
}

/// What passed a path's devices and what was lost there.
pub type PathCounters = anabranch_drivers::Counters;

impl Stack {
    /// Says what a stack shall be.
    #[must_use]
    pub fn builder() -> Builder {
        todo!()
    }

    /// Listens with the stack's options and a backlog of 128, as `std::net::TcpListener::bind` does.
    ///
    /// Port 0 chooses a free one. An unspecified address means all addresses of the stack: `0.0.0.0` those of
    /// IPv4, `[::]` those of both families (an IPv4 peer is shown with its IPv4 address).
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, `NotConnected` when the stack was shut down, and those of name
    /// resolution.
    pub fn listen(&self, addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        todo!()
    }

    /// Listens. `backlog` connections may wait to be accepted; `options` are those of the accepted connections.
    ///
    /// # Errors
    /// Those of [`listen`](Self::listen), and `InvalidInput` for an unknown name in `options`.
    pub fn listen_with(
        &self,
        addr: impl ToSocketAddrs,
        backlog: usize,
        options: SocketOptions,
    ) -> io::Result<TcpListener> {
        todo!()
    }

    /// Opens a connection with the stack's options, trying the addresses of a name one after the other.
    ///
    /// # Errors
    /// `ConnectionRefused`, `TimedOut`, `NetworkUnreachable`, `AddrNotAvailable` when no port is free,
    /// `NotConnected` when the stack was shut down, and those of name resolution.
    pub fn connect(&self, addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        todo!()
    }

    /// Like [`connect`](Self::connect), for one address, giving up after `timeout`.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect), `TimedOut` after `timeout`, `InvalidInput` if it is zero.
    pub fn connect_timeout(&self, addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        todo!()
    }

    /// Opens a connection to one address.
    ///
    /// # Errors
    /// Those of [`connect_timeout`](Self::connect_timeout); `AddrInUse` and `AddrNotAvailable` for
    /// `connect.local`, `InvalidInput` for an unknown name in `connect.options`.
    pub fn connect_with(&self, addr: SocketAddr, connect: ConnectOptions) -> io::Result<TcpStream> {
        todo!()
    }

    /// What sockets are opened with unless they say otherwise.
    #[must_use]
    pub fn socket_options(&self) -> SocketOptions {
        todo!()
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        todo!()
    }

    /// Counts since the start, over all workers.
    #[must_use]
    pub fn counters(&self) -> Counters {
        todo!()
    }

    /// The connections that sockets of this process hold, at one moment for each worker.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        todo!()
    }

    /// The paths, in the order in which they were added.
    #[must_use]
    pub fn paths(&self) -> Vec<PathInfo> {
        todo!()
    }

    /// Takes a path down for all connections, or lets it be used again, whatever its device does.
    ///
    /// # Errors
    /// `NotFound` if there is no such path, `NotConnected` when the stack was shut down.
    pub fn set_path_up(&self, path: PathId, up: bool) -> io::Result<()> {
        todo!()
    }

    /// Shuts the stack down. Listeners close and nothing new is opened; connections go on until their
    /// sockets are dropped and they have closed in good order. What is left after `timeout` is
    /// aborted (MP_FASTCLOSE, RST). Returns when the workers have ended: `true` if nothing
    /// had to be aborted. Sockets that still exist give errors from then on.
    pub fn shutdown(&self, timeout: Duration) -> bool {
        todo!()
    }
}
