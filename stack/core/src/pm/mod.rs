//! Path managers: which addresses are announced and which subflows are opened. Made by name.

mod backoff;
mod endpoints;
mod external;
mod fullmesh;
mod ndiffports;
mod none;
mod notice;
mod opener;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use anabranch_frame::Instant;

use crate::Error;
use crate::config::{Endpoint, Limits};
use crate::sched::SubflowId;

pub use endpoints::Endpoints;
pub use external::External;
pub use fullmesh::FullMesh;
pub use ndiffports::NDiffPorts;
pub use none::NoPathManager;
pub use notice::{Command, Notice, Report};

pub(crate) use notice::Reports;
use opener::{Opener, announce, may_join, withdraw};

/// The names that [`by_name`] knows; N is a number of subflows from 2 to 9.
pub const NAMES: &str = "endpoints, fullmesh, ndiffports, ndiffports=N, none, external";

/// An address of the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemoteAddr {
    /// Its MPTCP address identifier; 0 is the initial subflow's.
    pub id: u8,
    /// Address and port to join.
    pub addr: SocketAddr,
}

/// A subflow as the path manager sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubflowEntry {
    /// Its identifier.
    pub id: SubflowId,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Our address identifier; 0 is the initial subflow's.
    pub local_id: u8,
    /// The peer's address identifier.
    pub remote_id: u8,
    /// Whether it finished its handshake.
    pub established: bool,
}

/// What a path manager decides over.
#[derive(Clone, Copy, Debug)]
pub struct PmView<'a> {
    /// The time.
    pub now: Instant,
    /// Our addresses, those of paths that are down included.
    pub endpoints: &'a [Endpoint],
    /// The connection's subflows, those in their handshake included.
    pub subflows: &'a [SubflowEntry],
    /// The peer's addresses that are known: the initial one (id 0) and those it announced.
    pub remotes: &'a [RemoteAddr],
    /// Identifiers of our addresses that were announced already.
    pub announced: &'a [u8],
    /// The connection's limits. The connection enforces them whatever a path manager says.
    pub limits: Limits,
    /// Extra subflows that may still be opened.
    pub subflows_left: u8,
    /// The connection was accepted, not opened.
    pub server_side: bool,
    /// The peer asked for no joins to its initial address (the C flag of MP_CAPABLE).
    pub deny_join_initial: bool,
    /// Our address of the initial subflow.
    pub initial_local: IpAddr,
    /// It was withdrawn, and may be announced again, under its endpoint's identifier.
    pub initial_withdrawn: bool,
    /// The peer's address of the initial subflow.
    pub initial_remote: SocketAddr,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PmEvent {
    /// The connection is fully established: the peer is known to have understood MP_CAPABLE.
    FullyEstablished,
    /// The peer announced an address, within the limits, and it is in `remotes` now.
    AddAddr(RemoteAddr),
    /// The peer withdrew an address; its subflows are gone.
    RemoveAddr(u8),
    /// A subflow finished its handshake.
    SubflowUp(SubflowEntry),
    /// A subflow is gone, or could not be opened; it is no longer in `subflows`.
    SubflowDown {
        /// Which it was.
        subflow: SubflowEntry,
        /// It was reset, timed out or got no answer; nobody closed it.
        broken: bool,
    },
    /// The [`deadline`](PathManager::deadline) has come.
    Timer,
    /// A local address came: its path was added or came up.
    EndpointUp(Endpoint),
    /// A local address went: its path was removed or went down.
    EndpointDown(Endpoint),
    /// What may be done with a local address is something else now.
    EndpointChanged {
        /// What it was before.
        before: Endpoint,
        /// What it is now.
        after: Endpoint,
    },
}

/// A path manager of one connection: events in, commands out.
pub trait PathManager: fmt::Debug + Send {
    /// Its name in the registry.
    fn name(&self) -> &'static str;
    /// Something happened: append what is to be done to `out`.
    fn on_event(&mut self, view: &PmView<'_>, event: &PmEvent, out: &mut Vec<Command>);
    /// When it wants a [`PmEvent::Timer`], if ever.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// Makes a path manager by name.
///
/// # Errors
/// [`Error::UnknownName`] with the known names.
pub fn by_name(name: &str) -> Result<Box<dyn PathManager>, Error> {
    match name {
        "endpoints" => Ok(Box::new(Endpoints::default())),
        "fullmesh" => Ok(Box::new(FullMesh::default())),
        "ndiffports" => Ok(Box::new(NDiffPorts::default())),
        "external" => Ok(Box::new(External::default())),
        "none" => Ok(Box::new(NoPathManager::default())),
        _ => {
            let subflows = name.strip_prefix("ndiffports=").and_then(|number| number.parse().ok());
            match subflows.filter(|subflows| (2..=ndiffports::SUBFLOWS_MAX).contains(subflows)) {
                Some(subflows) => Ok(Box::new(NDiffPorts::new(subflows))),
                None => Err(Error::UnknownName { kind: "path manager", known: NAMES }),
            }
        }
    }
}

#[cfg(test)]
mod tests;
