//! A connection's place in the shard.

use alloc::boxed::Box;

use super::{ConnId, Level};
use crate::mptcp::{Conn, Holdings, RestingConn};

/// A connection, at work or at rest.
#[derive(Debug)]
pub(super) enum Place {
    /// At work.
    Awake {
        /// It, in a block of its own: the slab grows without moving connections.
        conn: Box<Conn>,
        /// It stands in the queue of connections that may have something to send.
        queued: bool,
    },
    /// At rest. Empty only while it is woken.
    Resting(Option<Box<RestingConn>>),
}

impl Place {
    pub(super) fn new(conn: Conn) -> Self {
        Self::Awake { conn: Box::new(conn), queued: false }
    }

    /// What it holds of the worker's tables.
    pub(super) fn holdings(&self) -> Holdings {
        match self {
            Self::Awake { conn, .. } => conn.holdings(),
            Self::Resting(resting) => resting.as_ref().map(|resting| resting.holdings()).unwrap_or_default(),
        }
    }

    /// Whether it is at rest.
    pub(super) fn rests(&self) -> bool {
        matches!(self, Self::Resting(_))
    }

    /// Whether the application let go of it and it is not over.
    pub(super) fn is_orphan(&self) -> bool {
        matches!(self, Self::Awake { conn, .. } if conn.orphan)
    }

    pub(super) fn id(&self) -> Option<ConnId> {
        match self {
            Self::Awake { conn, .. } => Some(conn.id),
            Self::Resting(resting) => resting.as_ref().map(|resting| resting.id),
        }
    }

    /// The connection, woken if it rests. `at_rest` counts those that do,
    /// `level` is how short memory is.
    pub(super) fn wake(&mut self, at_rest: &mut u64, level: Level) -> &mut Conn {
        if let Self::Resting(resting) = self
            && let Some(resting) = resting.take()
        {
            *at_rest -= 1;
            *self = Self::new(resting.resume());
        }
        match self {
            Self::Awake { conn, .. } => {
                conn.heed(level);
                conn
            }
            Self::Resting(_) => unreachable!("it was woken just now"),
        }
    }

    /// Bytes of memory that the connection was last found to hold.
    pub(super) fn charged(&self) -> u64 {
        match self {
            Self::Awake { conn, .. } => conn.charged(),
            Self::Resting(resting) => resting.as_ref().map_or(0, |resting| resting.memory()),
        }
    }

    /// Bytes of memory that the connection holds.
    pub(super) fn memory(&self) -> u64 {
        match self {
            Self::Awake { conn, .. } => conn.memory(),
            Self::Resting(resting) => resting.as_ref().map_or(0, |resting| resting.memory()),
        }
    }

    /// Puts the connection to rest if it has nothing to do or to say. Returns whether it rests.
    pub(super) fn rest(&mut self, at_rest: &mut u64) -> bool {
        match self {
            Self::Awake { queued: true, .. } => return false,
            Self::Awake { conn, .. } if !conn.may_rest() => return false,
            Self::Awake { .. } => {}
            Self::Resting(_) => return true,
        }
        if let Self::Awake { conn, .. } = core::mem::replace(self, Self::Resting(None)) {
            *self = Self::Resting(Some(Box::new(conn.rest())));
            *at_rest += 1;
        }
        true
    }
}
