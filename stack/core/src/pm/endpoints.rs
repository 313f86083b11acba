//! The rules of the kernel's own path manager, over the flags of `ip mptcp endpoint`.

use alloc::vec::Vec;
use core::cmp::Reverse;

use super::{PathManager, PmCommand, PmEvent, PmView, RemoteAddr};
use crate::config::{Endpoint, IpCidr};

/// Announces `signal` endpoints; on the side that opened the connection, joins the peer's initial
/// address from `subflow` endpoints, every address of the peer from `fullmesh` ones, and an announced
/// address from the endpoint that routing would choose.
///
/// As in the kernel a subflow that is gone is not opened again until its endpoint comes anew. Beyond
/// the kernel, an endpoint that comes while no subflow is left opens one whatever its flags, so that
/// a connection outlives the loss of all its paths.
#[derive(Debug, Default)]
pub struct Endpoints {}

impl PathManager for Endpoints {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn on_event(&mut self, view: &PmView<'_>, event: &PmEvent, out: &mut Vec<PmCommand>) {
        match event {
            PmEvent::FullyEstablished => {
                announce(view, view.endpoints, out);
                Opener::new(view, out).open_wanted(view.endpoints, view.remotes);
            }
            PmEvent::AddAddr(new) => Opener::new(view, out).open_wanted(view.endpoints, &[*new]),
            PmEvent::EndpointUp(new) => {
                announce(view, &[*new], out);
                let mut opener = Opener::new(view, out);
                opener.open_wanted(&[*new], view.remotes);
                if view.subflows.is_empty() && !opener.opened {
                    opener.open_any(new);
                }
            }
            PmEvent::EndpointDown(gone) => {
                if view.announced.contains(&gone.id) {
                    out.push(PmCommand::Withdraw(gone.id));
                }
            }
            PmEvent::RemoveAddr(_) | PmEvent::SubflowUp(_) | PmEvent::SubflowDown(_) => {}
        }
    }
}

/// Announces what is to be announced and was not, but never the address that the peer knows anyway.
fn announce(view: &PmView<'_>, endpoints: &[Endpoint], out: &mut Vec<PmCommand>) {
    let new = |endpoint: &&Endpoint| {
        let known = endpoint.addr == view.initial_local || view.announced.contains(&endpoint.id);
        endpoint.up && endpoint.flags.signal && !known
    };
    out.extend(endpoints.iter().filter(new).map(|endpoint| PmCommand::Announce(endpoint.id)));
}

/// Opens subflows while the limit lasts, and none that exists.
struct Opener<'a> {
    view: &'a PmView<'a>,
    left: u8,
    opened: bool,
    out: &'a mut Vec<PmCommand>,
}

impl<'a> Opener<'a> {
    fn new(view: &'a PmView<'a>, out: &'a mut Vec<PmCommand>) -> Self {
        // A client may be behind a NAT or a firewall: only it opens subflows (RFC 8684 §3.2).
        let left = if view.server_side { 0 } else { view.subflows_left };
        Self { view, left, opened: false, out }
    }

    /// Opens whatever the flags ask for between these endpoints and these addresses of the peer.
    fn open_wanted(&mut self, endpoints: &[Endpoint], remotes: &[RemoteAddr]) {
        for endpoint in endpoints {
            for remote in remotes {
                if wanted(self.view, endpoint, remote) {
                    self.open(endpoint, *remote);
                }
            }
        }
    }

    /// Opens one subflow from `endpoint`, to whatever address can be reached.
    fn open_any(&mut self, endpoint: &Endpoint) {
        let view = self.view;
        for remote in view.remotes.iter().filter(|remote| may_join(view, endpoint, remote)) {
            if !self.opened {
                self.open(endpoint, *remote);
            }
        }
    }

    fn open(&mut self, endpoint: &Endpoint, remote: RemoteAddr) {
        let exists = |local, addr| local == endpoint.addr && addr == remote.addr;
        let ordered = |command: &PmCommand| match command {
            PmCommand::Open { endpoint: id, remote: other, .. } => *id == endpoint.id && other.addr == remote.addr,
            _ => false,
        };
        let duplicate = self.view.subflows.iter().any(|subflow| exists(subflow.local.ip(), subflow.remote))
            || self.out.iter().any(ordered);
        if self.left == 0 || duplicate {
            return;
        }
        self.left -= 1;
        self.opened = true;
        self.out.push(PmCommand::Open { endpoint: endpoint.id, remote, backup: endpoint.flags.backup });
    }
}

/// Whether a subflow between the two is possible and allowed.
fn may_join(view: &PmView<'_>, endpoint: &Endpoint, remote: &RemoteAddr) -> bool {
    let allowed = remote.id != 0 || !view.deny_join_initial;
    allowed && endpoint.up && endpoint.addr.is_ipv4() == remote.addr.is_ipv4()
}

/// Whether there should be a subflow between the two.
fn wanted(view: &PmView<'_>, endpoint: &Endpoint, remote: &RemoteAddr) -> bool {
    if !may_join(view, endpoint, remote) {
        return false;
    }
    if remote.id == 0 {
        return endpoint.flags.subflow || endpoint.flags.fullmesh;
    }
    let able = || view.endpoints.iter().filter(|other| may_join(view, other, remote));
    if able().any(|other| other.flags.fullmesh) {
        endpoint.flags.fullmesh
    } else if view.deny_join_initial && able().any(|other| other.flags.subflow) {
        // A server behind a load balancer: its own address is the one to spread the subflows to.
        endpoint.flags.subflow
    } else {
        routed(view, able(), remote).is_some_and(|id| id == endpoint.id)
    }
}

/// The endpoint whose source address routing would choose: that of the longest matching network, the
/// initial subflow's, or any.
fn routed<'a>(view: &PmView<'_>, able: impl Iterator<Item = &'a Endpoint>, remote: &RemoteAddr) -> Option<u8> {
    let distance = |endpoint: &&Endpoint| {
        let network = IpCidr::new(endpoint.addr, endpoint.prefix);
        let matching = network.filter(|network| network.contains(remote.addr.ip())).map(|network| network.prefix);
        (Reverse(matching), endpoint.addr != view.initial_local, endpoint.flags.backup)
    };
    able.min_by_key(distance).map(|endpoint| endpoint.id)
}

#[cfg(test)]
mod tests;
