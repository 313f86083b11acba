//! What is said on a control socket: one JSON object a line, a request and its answer in turn.

use std::net::SocketAddr;
use std::num::NonZeroU16;

use anabranch::pm::{Notice, Report};
use anabranch::{Connection, Endpoint, EndpointFlags, IpCidr, Limits, PathInfo, SubflowInfo, pm};
use serde::{Deserialize, Serialize};

/// A request.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// The endpoints.
    EndpointShow,
    /// A new address on a path.
    EndpointAdd {
        addr: String,
        path: String,
        #[serde(default)]
        id: u8,
        #[serde(default)]
        port: Option<NonZeroU16>,
        #[serde(default)]
        flags: Vec<String>,
    },
    /// What may be done with an address, from now on.
    EndpointChange {
        id: u8,
        #[serde(default)]
        port: Option<NonZeroU16>,
        #[serde(default)]
        flags: Vec<String>,
    },
    /// An address goes.
    EndpointDelete { id: u8 },
    /// The paths.
    PathShow,
    /// A new path, as after `--path`.
    PathAdd { path: String },
    /// A path goes.
    PathDelete { path: String },
    /// The limits.
    LimitsShow,
    /// Other limits, for all connections.
    LimitsSet { subflows: u8, add_addr_accepted: u8 },
    /// The connections and their subflows.
    Connections,
    /// Announces an address to a peer.
    Announce {
        token: u32,
        id: u8,
        #[serde(default)]
        port: Option<NonZeroU16>,
    },
    /// Withdraws it.
    Remove { token: u32, id: u8 },
    /// Opens a subflow.
    SubflowCreate {
        token: u32,
        /// Our endpoint.
        id: u8,
        remote: SocketAddr,
        #[serde(default)]
        remote_id: u8,
        #[serde(default)]
        backup: bool,
    },
    /// Closes one.
    SubflowDestroy { token: u32, subflow: u8 },
    /// Asks the peer to use one as a backup, or no longer.
    SetFlags { token: u32, subflow: u8, backup: bool },
    /// Events from now on, a line each, until either side hangs up.
    Monitor,
}

impl Request {
    /// The stack's command and whom it is for, if it is one.
    pub(super) fn path_command(&self) -> Option<(u32, pm::Command)> {
        Some(match *self {
            Self::Announce { token, id, port } => (token, pm::Command::Announce { endpoint: id, port }),
            Self::Remove { token, id } => (token, pm::Command::Withdraw(id)),
            Self::SubflowCreate { token, id, remote, remote_id, backup } => {
                let remote = pm::RemoteAddr { id: remote_id, addr: remote };
                (token, pm::Command::Open { endpoint: id, remote, backup })
            }
            Self::SubflowDestroy { token, subflow } => (token, pm::Command::Close(subflow)),
            Self::SetFlags { token, subflow, backup } => (token, pm::Command::SetBackup { subflow, backup }),
            _ => return None,
        })
    }
}

/// The flags that these words of `ip mptcp endpoint` mean.
pub(super) fn flags_of(words: &[String]) -> Result<EndpointFlags, String> {
    let mut flags = EndpointFlags::default();
    match words.iter().find(|word| !flags.set(word, true)) {
        Some(word) => Err(format!("unknown flag '{word}'; known are signal, subflow, backup, fullmesh, laminar")),
        None => Ok(flags),
    }
}

/// An answer.
#[derive(Serialize, Deserialize, PartialEq, Debug, Default)]
pub(crate) struct Answer {
    /// Whether it was done.
    pub(crate) ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Identifier of an endpoint that was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) endpoints: Option<Vec<EndpointLine>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) paths: Option<Vec<PathLine>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<LimitsLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<Vec<ConnectionLine>>,
}

impl Answer {
    pub(super) fn done() -> Self {
        Self { ok: true, ..Self::default() }
    }

    pub(super) fn failed(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::default() }
    }
}

/// An endpoint.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
pub(crate) struct EndpointLine {
    pub(crate) id: u8,
    pub(crate) addr: String,
    pub(crate) path: String,
    pub(crate) port: Option<u16>,
    pub(crate) flags: Vec<String>,
    pub(crate) up: bool,
}

impl EndpointLine {
    pub(super) fn new(endpoint: &Endpoint, path: String) -> Self {
        let Endpoint { id, addr, prefix, flags, port, up, .. } = *endpoint;
        let addr = IpCidr { addr, prefix }.to_string();
        let flags = flags.words().map(Into::into).collect();
        Self { id, addr, path, port: port.map(NonZeroU16::get), flags, up }
    }
}

/// A path.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
pub(crate) struct PathLine {
    pub(crate) path: String,
    pub(crate) addrs: Vec<String>,
    pub(crate) mtu: u16,
    /// `up`, `down` or `gone`.
    pub(crate) state: String,
    /// How often its interface came back.
    pub(crate) reopened: u32,
    /// Why it cannot be opened, though it is back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
}

impl From<PathInfo> for PathLine {
    fn from(info: PathInfo) -> Self {
        let state = if info.gone {
            "gone"
        } else if info.up {
            "up"
        } else {
            "down"
        };
        Self {
            path: info.name,
            addrs: info.addrs.iter().map(IpCidr::to_string).collect(),
            mtu: info.mtu,
            state: state.into(),
            reopened: info.reopened,
            problem: info.problem,
            rx_bytes: info.counters.rx_bytes,
            tx_bytes: info.counters.tx_bytes,
        }
    }
}

/// The limits.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
pub(crate) struct LimitsLine {
    pub(crate) subflows: u8,
    pub(crate) add_addr_accepted: u8,
}

impl From<Limits> for LimitsLine {
    fn from(Limits { subflows, add_addr_accepted }: Limits) -> Self {
        Self { subflows, add_addr_accepted }
    }
}

/// A connection.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
pub(crate) struct ConnectionLine {
    pub(crate) token: u32,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) mptcp: bool,
    pub(crate) fallback: Option<String>,
    pub(crate) path_manager: String,
    pub(crate) subflows: Vec<SubflowLine>,
}

/// A subflow.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
pub(crate) struct SubflowLine {
    pub(crate) subflow: u8,
    pub(crate) loc_id: u8,
    pub(crate) rem_id: u8,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) backup: bool,
    pub(crate) stale: bool,
}

impl From<Connection> for ConnectionLine {
    fn from(Connection { info, subflows, .. }: Connection) -> Self {
        let subflow = |subflow: &SubflowInfo| SubflowLine {
            subflow: subflow.id,
            loc_id: subflow.local_id,
            rem_id: subflow.remote_id,
            local: subflow.local,
            remote: subflow.remote,
            backup: subflow.backup,
            stale: subflow.stale,
        };
        Self {
            token: info.token,
            local: info.local,
            remote: info.remote,
            mptcp: info.mptcp,
            fallback: info.fallback.map(|reason| reason.as_str().into()),
            path_manager: info.path_manager.into(),
            subflows: subflows.iter().map(subflow).collect(),
        }
    }
}

/// An event, with the names of the kernel's `mptcp_pm` family where it has them.
#[derive(Serialize, Deserialize, PartialEq, Debug, Default)]
pub(crate) struct Event {
    pub(crate) event: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subflow: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) loc_id: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rem_id: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) local: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) remote: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server_side: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deny_join_id0: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) backup: Option<bool>,
    /// A subflow was reset, timed out or got no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) broken: Option<bool>,
    /// The connection goes on as plain TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fallback: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Events that were dropped because they were not read in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<u64>,
}

impl Event {
    fn named(event: &str) -> Self {
        Self { event: event.into(), ..Self::default() }
    }

    pub(super) fn lost(count: u64) -> Self {
        Self { count: Some(count), ..Self::named("lost") }
    }

    fn of_subflow(event: &str, subflow: pm::SubflowEntry) -> Self {
        Self {
            subflow: Some(subflow.id),
            loc_id: Some(subflow.local_id),
            rem_id: Some(subflow.remote_id),
            local: Some(subflow.local),
            remote: Some(subflow.remote),
            ..Self::named(event)
        }
    }

    /// `None` for what this version has no name for.
    pub(super) fn new(report: &Report) -> Option<Self> {
        let event = match report.notice {
            Notice::Created { local, remote, server_side, deny_join_initial } => Self {
                local: Some(local),
                remote: Some(remote),
                server_side: Some(server_side),
                deny_join_id0: Some(deny_join_initial),
                ..Self::named("created")
            },
            Notice::Established => Self::named("established"),
            Notice::Closed { fallback } => Self { fallback: Some(fallback), ..Self::named("closed") },
            Notice::Announced(remote) => {
                Self { rem_id: Some(remote.id), remote: Some(remote.addr), ..Self::named("announced") }
            }
            Notice::Removed(id) => Self { rem_id: Some(id), ..Self::named("removed") },
            Notice::SubflowUp { subflow, backup } => {
                Self { backup: Some(backup), ..Self::of_subflow("sub-established", subflow) }
            }
            Notice::SubflowDown { subflow, broken, error } => Self {
                broken: Some(broken),
                error: error.map(|error| error.to_string()),
                ..Self::of_subflow("sub-closed", subflow)
            },
            Notice::Priority { subflow, backup } => {
                Self { backup: Some(backup), ..Self::of_subflow("sub-priority", subflow) }
            }
            Notice::ListenerCreated(local) => Self { local: Some(local), ..Self::named("listener-created") },
            Notice::ListenerClosed(local) => Self { local: Some(local), ..Self::named("listener-closed") },
            _ => return None,
        };
        Some(Self { token: Some(report.token).filter(|token| *token != 0), ..event })
    }
}
