//! Several subflows between one pair of addresses, each with a source port of its own: they may take different ways through
//! a network that spreads flows by their ports (Raiciu et al., SIGCOMM 2011, over equal-cost paths of data centres).

use alloc::vec::Vec;

use anabranch_frame::Instant;

use super::backoff::Backoff;
use super::{Command, PathManager, PmEvent, PmView, RemoteAddr, may_join};

/// Subflows if the name does not say how many.
const SUBFLOWS: u8 = 2;
/// A connection has no more than its first subflow and eight others.
pub(super) const SUBFLOWS_MAX: u8 = 9;

/// Keeps a number of subflows between the addresses of the first one, on the side that opened the connection.
#[derive(Debug)]
pub struct NDiffPorts {
    subflows: u8,
    backoff: Backoff,
}

impl Default for NDiffPorts {
    fn default() -> Self {
        Self::new(SUBFLOWS)
    }
}

impl NDiffPorts {
    /// So many subflows in all.
    #[must_use]
    pub fn new(subflows: u8) -> Self {
        Self { subflows, backoff: Backoff::default() }
    }

    /// Opens what is missing.
    fn fill(&self, view: &PmView<'_>, out: &mut Vec<Command>) {
        let remote = RemoteAddr { id: 0, addr: view.initial_remote };
        let from = |endpoint: &&crate::config::Endpoint| endpoint.addr == view.initial_local;
        let Some(endpoint) = view.endpoints.iter().find(from).filter(|endpoint| may_join(view, endpoint, &remote))
        else {
            return;
        };
        let open = Command::Open { endpoint: endpoint.id, remote, backup: endpoint.flags.backup };
        let missing = self.missing(view).min(view.subflows_left);
        out.extend(core::iter::repeat_n(open, usize::from(missing)));
    }

    fn missing(&self, view: &PmView<'_>) -> u8 {
        if view.server_side {
            return 0;
        }
        let between = (view.initial_local, view.initial_remote);
        let there = view.subflows.iter().filter(|subflow| (subflow.local.ip(), subflow.remote) == between).count();
        usize::from(self.subflows).saturating_sub(there) as u8
    }
}

impl PathManager for NDiffPorts {
    fn name(&self) -> &'static str {
        "ndiffports"
    }

    fn on_event(&mut self, view: &PmView<'_>, event: &PmEvent, out: &mut Vec<Command>) {
        match event {
            PmEvent::FullyEstablished | PmEvent::EndpointUp(_) => self.fill(view, out),
            PmEvent::SubflowDown { broken: true, .. } if self.missing(view) > 0 => self.backoff.on_lost(view.now),
            PmEvent::SubflowUp(_) if self.missing(view) == 0 => self.backoff.on_well(view.now),
            PmEvent::Timer if self.backoff.take_due(view.now) => self.fill(view, out),
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.backoff.due()
    }
}
