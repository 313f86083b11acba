//! What a connection says of itself to an [audit](crate::Shard::audit).

use alloc::vec::Vec;

use crate::sched::SubflowId;
use crate::tcp::{Opening, Subflow};
use crate::wire::Tuple;

use super::conn::{Conn, Stage};
use super::{Mode, RestingConn};

/// What the worker's tables and counters must know of a connection.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    /// Its subflows, half-open ones included.
    pub(crate) tuples: Vec<(SubflowId, Tuple)>,
    /// Subflows beyond their handshake.
    pub(crate) established: u64,
    /// Its token, while it speaks MPTCP.
    pub(crate) token: Option<u32>,
    /// It counts as an established MPTCP connection.
    pub(crate) counted: bool,
    /// Something is under way or waits, so time has to bring it on.
    pub(crate) needs_timer: bool,
}

impl Holdings {
    fn of_mode(&mut self, mode: &Mode) {
        if let Mode::Mptcp(mp) = mode {
            self.token = Some(mp.local.token);
            self.counted = mp.fully_established;
        }
    }
}

impl Conn {
    pub(crate) fn holdings(&self) -> Holdings {
        let closed = matches!(self.stage, Stage::Closed(_));
        let mut holdings = Holdings {
            tuples: self
                .subflows
                .iter()
                .map(|subflow| (subflow.id, subflow.tuple))
                .chain(self.openings.iter().map(|opening| (opening.id, opening.tuple)))
                .collect(),
            established: self.subflows.iter().filter(|subflow| subflow.synack.is_none()).count() as u64,
            needs_timer: self.needs_timer(),
            ..Holdings::default()
        };
        if !closed {
            holdings.of_mode(&self.mode);
        }
        holdings
    }

    fn needs_timer(&self) -> bool {
        let unfinished = self.tx.queued() > 0 || self.tx.fin() && !self.tx.fin_acked();
        let stream = self.stage == Stage::Open && unfinished;
        let flying = |subflow: &Subflow| !subflow.snd.everything_acked();
        let opening = |opening: &Opening| !opening.is_deferred();
        stream || self.subflows.iter().any(flying) || self.openings.iter().any(opening)
    }
}

impl RestingConn {
    pub(crate) fn holdings(&self) -> Holdings {
        let mut holdings = Holdings {
            tuples: self.subflows.iter().map(|subflow| (subflow.id(), subflow.tuple())).collect(),
            established: self.subflows.len() as u64,
            ..Holdings::default()
        };
        holdings.of_mode(&self.mode);
        holdings
    }
}
