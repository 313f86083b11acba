//! A subflow between every pair of addresses, as the path manager of that name of multipath-tcp.org had it.

use alloc::vec::Vec;

use anabranch_frame::Instant;

use super::backoff::Rejoin;
use super::{Command, Opener, PathManager, PmEvent, PmView, announce, withdraw};

/// Announces every address, and on the side that opened the connection joins every address of the peer from every one
/// of ours, whatever the flags of the endpoints; `backup` is kept. What breaks is opened again with back-off.
#[derive(Debug, Default)]
pub struct FullMesh {
    rejoin: Rejoin,
}

impl PathManager for FullMesh {
    fn name(&self) -> &'static str {
        "fullmesh"
    }

    fn on_event(&mut self, view: &PmView<'_>, event: &PmEvent, out: &mut Vec<Command>) {
        match event {
            PmEvent::FullyEstablished => {
                announce(view, view.endpoints, |_| true, out);
                Opener::new(view, out).open_all(view.endpoints, view.remotes, |_, _| true);
            }
            PmEvent::AddAddr(new) => Opener::new(view, out).open_all(view.endpoints, &[*new], |_, _| true),
            PmEvent::EndpointUp(new) => {
                announce(view, &[*new], |_| true, out);
                Opener::new(view, out).open_all(&[*new], view.remotes, |_, _| true);
            }
            PmEvent::EndpointDown(gone) => withdraw(view, gone, out),
            PmEvent::SubflowUp(up) => self.rejoin.on_up(view, up),
            PmEvent::SubflowDown { subflow, broken: true } => self.rejoin.on_lost(view, subflow),
            PmEvent::Timer => self.rejoin.on_timer(view, out),
            PmEvent::SubflowDown { .. } | PmEvent::RemoveAddr(_) | PmEvent::EndpointChanged { .. } => {}
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.rejoin.deadline()
    }
}
