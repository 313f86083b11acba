//! The rules of the kernel's own path manager, over the flags of `ip mptcp endpoint`.

use alloc::vec::Vec;
use core::cmp::Reverse;

use anabranch_frame::Instant;

use super::backoff::Rejoin;
use super::{Command, Opener, PathManager, PmEvent, PmView, RemoteAddr, announce, may_join, withdraw};
use crate::config::{Endpoint, IpCidr};

/// Announces `signal` endpoints; on the side that opened the connection, joins the peer's initial
/// address from `subflow` endpoints, every address of the peer from `fullmesh` ones, and an announced
/// address from a `laminar` endpoint that has no subflow yet, or, where there are none, from the endpoint that routing
/// would choose.
///
/// Beyond the kernel, a subflow that broke is opened again with back-off while both addresses are there, and at once when ours
/// comes back, and an endpoint that comes while no subflow is left opens one whatever its flags, so that a connection outlives the loss of all its
/// paths.
#[derive(Debug, Default)]
pub struct Endpoints {
    rejoin: Rejoin,
}

impl PathManager for Endpoints {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn on_event(&mut self, view: &PmView<'_>, event: &PmEvent, out: &mut Vec<Command>) {
        let signal = |endpoint: &Endpoint| endpoint.flags.signal;
        let wanted = |endpoint: &Endpoint, remote: &RemoteAddr| wanted(view, endpoint, remote);
        match event {
            PmEvent::FullyEstablished => {
                announce(view, view.endpoints, signal, out);
                Opener::new(view, out).open_all(view.endpoints, view.remotes, wanted);
            }
            PmEvent::AddAddr(new) => Opener::new(view, out).open_all(view.endpoints, &[*new], wanted),
            PmEvent::EndpointUp(new) => {
                announce(view, &[*new], signal, out);
                let mut opener = Opener::new(view, out);
                opener.open_all(&[*new], view.remotes, wanted);
                if view.subflows.is_empty() && !opener.opened {
                    opener.open_any(new);
                }
                self.rejoin.on_address(view, new, out);
            }
            PmEvent::EndpointDown(gone) => withdraw(view, gone, out),
            PmEvent::EndpointChanged { before, after } => {
                announce(view, &[*after], signal, out);
                if before.flags.fullmesh && !after.flags.fullmesh {
                    close_mesh(view, after, out);
                }
                Opener::new(view, out).open_all(&[*after], view.remotes, wanted);
            }
            PmEvent::SubflowUp(up) => self.rejoin.on_up(view, up),
            PmEvent::SubflowDown { subflow, broken: true } => self.rejoin.on_lost(view, subflow),
            PmEvent::Timer => self.rejoin.on_timer(view, out),
            PmEvent::SubflowDown { .. } | PmEvent::RemoveAddr(_) => {}
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.rejoin.deadline()
    }
}

/// Whether the flags ask for a subflow between the two.
fn wanted(view: &PmView<'_>, endpoint: &Endpoint, remote: &RemoteAddr) -> bool {
    if remote.id == 0 {
        return endpoint.flags.subflow || endpoint.flags.fullmesh;
    }
    let able = || view.endpoints.iter().filter(|other| may_join(view, other, remote));
    if able().any(|other| other.flags.fullmesh) {
        endpoint.flags.fullmesh
    } else if able().any(|other| other.flags.laminar) {
        let free = |other: &&Endpoint| other.flags.laminar && !in_use(view, other);
        able().find(free).is_some_and(|chosen| chosen.id == endpoint.id)
    } else if view.deny_join_initial && able().any(|other| other.flags.subflow) {
        // A server behind a load balancer: its own address is the one to spread the subflows to.
        endpoint.flags.subflow && !in_use(view, endpoint)
    } else {
        routed(view, able(), remote).is_some_and(|id| id == endpoint.id)
    }
}

/// Whether a subflow is on it, be it the first one.
fn in_use(view: &PmView<'_>, endpoint: &Endpoint) -> bool {
    view.subflows.iter().any(|subflow| subflow.local.ip() == endpoint.addr)
}

/// Closes what an endpoint had only because of `fullmesh`.
fn close_mesh(view: &PmView<'_>, endpoint: &Endpoint, out: &mut Vec<Command>) {
    let surplus = view.subflows.iter().filter(|subflow| {
        let kept = subflow.local_id == 0 || (subflow.remote == view.initial_remote && endpoint.flags.subflow);
        subflow.local.ip() == endpoint.addr && subflow.established && !kept
    });
    out.extend(surplus.map(|subflow| Command::Close(subflow.id)));
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
