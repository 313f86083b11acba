//! What path managers have in common: announcing, and opening no more than is allowed and nothing twice.

use alloc::vec::Vec;

use super::{Command, PmView, RemoteAddr};
use crate::config::Endpoint;

/// Announces those of the endpoints that are `meant` to be and were not, but not the address that the peer knows anyway.
pub(super) fn announce(
    view: &PmView<'_>,
    endpoints: &[Endpoint],
    meant: impl Fn(&Endpoint) -> bool,
    out: &mut Vec<Command>,
) {
    let new = |endpoint: &&Endpoint| {
        let initial = endpoint.addr == view.initial_local && endpoint.port.is_none();
        let known = (initial && !view.initial_withdrawn) || view.announced.contains(&endpoint.id);
        endpoint.up && meant(endpoint) && !known
    };
    out.extend(endpoints.iter().filter(new).map(|endpoint| Command::Announce { endpoint: endpoint.id, port: None }));
}

/// Withdraws an endpoint that was announced.
pub(super) fn withdraw(view: &PmView<'_>, gone: &Endpoint, out: &mut Vec<Command>) {
    if view.announced.contains(&gone.id) {
        out.push(Command::Withdraw(gone.id));
    }
}

/// Opens subflows while the limit lasts, and none that exists.
pub(super) struct Opener<'a> {
    view: &'a PmView<'a>,
    left: u8,
    pub(super) opened: bool,
    out: &'a mut Vec<Command>,
}

impl<'a> Opener<'a> {
    pub(super) fn new(view: &'a PmView<'a>, out: &'a mut Vec<Command>) -> Self {
        // A client may be behind a NAT or a firewall: only it opens subflows (RFC 8684 §3.2).
        let left = if view.server_side { 0 } else { view.subflows_left };
        Self { view, left, opened: false, out }
    }

    /// Opens what is `wanted` and possible between these endpoints and these addresses of the peer.
    pub(super) fn open_all(
        &mut self,
        endpoints: &[Endpoint],
        remotes: &[RemoteAddr],
        wanted: impl Fn(&Endpoint, &RemoteAddr) -> bool,
    ) {
        for endpoint in endpoints {
            for remote in remotes {
                if may_join(self.view, endpoint, remote) && wanted(endpoint, remote) {
                    self.open(endpoint, *remote);
                }
            }
        }
    }

    /// Opens one subflow from `endpoint`, to whatever address can be reached.
    pub(super) fn open_any(&mut self, endpoint: &Endpoint) {
        let view = self.view;
        for remote in view.remotes.iter().filter(|remote| may_join(view, endpoint, remote)) {
            if !self.opened {
                self.open(endpoint, *remote);
            }
        }
    }

    pub(super) fn open(&mut self, endpoint: &Endpoint, remote: RemoteAddr) {
        let exists = |local, addr| local == endpoint.addr && addr == remote.addr;
        let ordered = |command: &Command| match command {
            Command::Open { endpoint: id, remote: other, .. } => *id == endpoint.id && other.addr == remote.addr,
            _ => false,
        };
        let duplicate = self.view.subflows.iter().any(|subflow| exists(subflow.local.ip(), subflow.remote))
            || self.out.iter().any(ordered);
        if self.left == 0 || duplicate {
            return;
        }
        self.left -= 1;
        self.opened = true;
        self.out.push(Command::Open { endpoint: endpoint.id, remote, backup: endpoint.flags.backup });
    }
}

/// Whether a subflow between the two is possible and allowed.
pub(super) fn may_join(view: &PmView<'_>, endpoint: &Endpoint, remote: &RemoteAddr) -> bool {
    let allowed = remote.id != 0 || !view.deny_join_initial;
    allowed && endpoint.up && endpoint.addr.is_ipv4() == remote.addr.is_ipv4()
}
