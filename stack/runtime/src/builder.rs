use std::path::PathBuf;
use std::time::Duration;

use anabranch_core::{Limits, PathConfig, SocketOptions};
use anabranch_drivers::Device;

use crate::{Error, PathSpec, Stack};

/// Says what a [`Stack`] shall be. Made by [`Stack::builder`].
///
/// Everything has a default but the paths.
#[derive(Debug)]
pub struct Builder {
    _todo: (),
}

impl Builder {
    /// Adds a path. Paths get the identifiers 0, 1, 2… in the order of these calls.
    #[must_use]
    pub fn path(self, spec: PathSpec) -> Self {
        todo!()
    }

    /// Adds a path of devices that the caller made: one for each worker, in their order. Of `config` the
    /// name, the addresses, the gateways, the endpoint identifier, the flags and the cost count; the
    /// identifier, MTU and offload are taken from the devices, whose [`Device::path`] must be the
    /// number of paths added before.
    #[must_use]
    pub fn devices(self, config: PathConfig, queues: Vec<Box<dyn Device>>) -> Self {
        todo!()
    }

    /// How many worker threads, 1 to 64. Default 1.
    #[must_use]
    pub fn workers(self, workers: usize) -> Self {
        todo!()
    }

    /// What sockets are opened with unless they say otherwise.
    #[must_use]
    pub fn socket_options(self, options: SocketOptions) -> Self {
        todo!()
    }

    /// Packet scheduler of sockets that do not say otherwise, by name. Default `minrtt`.
    #[must_use]
    pub fn scheduler(self, name: impl Into<String>) -> Self {
        todo!()
    }

    /// Congestion control of sockets that do not say otherwise, by name. Default `cubic`.
    #[must_use]
    pub fn congestion(self, name: impl Into<String>) -> Self {
        todo!()
    }

    /// Path manager of sockets that do not say otherwise, by name. Default `endpoints`.
    #[must_use]
    pub fn path_manager(self, name: impl Into<String>) -> Self {
        todo!()
    }

    /// Whether sockets speak MPTCP with peers that do, unless they say otherwise. Default on.
    #[must_use]
    pub fn mptcp(self, on: bool) -> Self {
        todo!()
    }

    /// Limits for extra subflows, of sockets that do not say otherwise.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        todo!()
    }

    /// Writes every packet of every path to a capture file, in the pcapng format.
    #[must_use]
    pub fn pcap(self, file: impl Into<PathBuf>) -> Self {
        todo!()
    }

    /// Seed for keys, ports, nonces and sequence numbers. Without one they come from the system's
    /// generator, as they must outside of tests: with a known seed they can be guessed.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        todo!()
    }

    /// How long a worker keeps looking for work before it sleeps. Default zero: it sleeps at once. Some tens
    /// of microseconds shorten the reaction to the next packet and cost a busy core.
    #[must_use]
    pub fn busy_poll(self, budget: Duration) -> Self {
        todo!()
    }

    /// Connections that may exist at once on each worker. Default 1,048,576.
    #[must_use]
    pub fn max_connections(self, connections: usize) -> Self {
        todo!()
    }

    /// How long TIME-WAIT lasts. Default 60 s.
    #[must_use]
    pub fn time_wait(self, time: Duration) -> Self {
        todo!()
    }

    /// How long, after the last handle of the stack and its sockets was dropped, connections may go on
    /// closing in good order before they are reset. Default 5 s.
    #[must_use]
    pub fn linger(self, time: Duration) -> Self {
        todo!()
    }

    /// Opens the devices and starts the workers. Must be called on a thread that is in the network
    /// namespace in which TUN devices are to be.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn build(self) -> Result<Stack, Error> {
        todo!()
    }
}
