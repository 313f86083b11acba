//! What programs are told of connections and their paths, in the words of the kernel's `mptcp_pm` events.

use alloc::collections::VecDeque;
use core::net::SocketAddr;

use crate::Error;
use crate::sched::SubflowId;

use super::{RemoteAddr, SubflowEntry};

/// Reports that may wait to be polled. When there are more the oldest are dropped, and counted.
const WAITING_MAX: usize = 65_536;

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// An MPTCP connection came to be: both keys are known (`MPTCP_EVENT_CREATED`).
    Created {
        /// Our address and port of the first subflow.
        local: SocketAddr,
        /// The peer's.
        remote: SocketAddr,
        /// It was accepted, not opened.
        server_side: bool,
        /// The peer wants no joins to its initial address and port (the C flag).
        deny_join_initial: bool,
    },
    /// It is known that the peer understood: subflows may be opened and addresses announced (`MPTCP_EVENT_ESTABLISHED`).
    Established,
    /// It is over, or goes on as plain TCP (`MPTCP_EVENT_CLOSED`).
    Closed {
        /// It goes on as plain TCP.
        fallback: bool,
    },
    /// The peer announced an address (`MPTCP_EVENT_ANNOUNCED`).
    Announced(RemoteAddr),
    /// The peer withdrew the address of this identifier (`MPTCP_EVENT_REMOVED`).
    Removed(u8),
    /// A subflow came up (`MPTCP_EVENT_SUB_ESTABLISHED`).
    SubflowUp {
        /// Which.
        subflow: SubflowEntry,
        /// It is to be used only when no other works.
        backup: bool,
    },
    /// A subflow is gone, or did not come up (`MPTCP_EVENT_SUB_CLOSED`).
    SubflowDown {
        /// Which.
        subflow: SubflowEntry,
        /// It was reset, timed out or got no answer; nobody closed it.
        broken: bool,
        /// Why it did not come up, if that is known.
        error: Option<Error>,
    },
    /// The peer wants a subflow used as a backup, or no longer (`MPTCP_EVENT_SUB_PRIORITY`).
    Priority {
        /// Which.
        subflow: SubflowEntry,
        /// What it wants.
        backup: bool,
    },
    /// A listener takes connections (`MPTCP_EVENT_LISTENER_CREATED`). It has no token.
    ListenerCreated(SocketAddr),
    /// It takes none any more (`MPTCP_EVENT_LISTENER_CLOSED`). It has no token.
    ListenerClosed(SocketAddr),
}

/// What happened to which connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// Our token of the connection, by which commands name it; 0 if it is about none.
    pub token: u32,
    /// What happened.
    pub notice: Notice,
}

/// Reports on their way out, as long as somebody wants them.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    wanted: bool,
    waiting: VecDeque<Report>,
    dropped: u64,
}

impl Reports {
    /// From now on reports are kept, or no longer.
    pub(crate) fn want(&mut self, wanted: bool) {
        self.wanted = wanted;
        if !wanted {
            self.waiting = VecDeque::new();
        }
    }

    pub(crate) fn tell(&mut self, token: u32, notice: impl FnOnce() -> Notice) {
        if !self.wanted {
            return;
        }
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        self.waiting.push_back(Report { token, notice: notice() });
    }

    pub(crate) fn next(&mut self) -> Option<Report> {
        self.waiting.pop_front()
    }

    /// How many were dropped since the last call.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        core::mem::take(&mut self.dropped)
    }
}

/// What a path manager wants done with a connection, or a program (the commands of the kernel's `userspace` path manager).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Announce an endpoint of ours (`MPTCP_PM_CMD_ANNOUNCE`), again if it was before.
    Announce {
        /// Its identifier.
        endpoint: u8,
        /// A port other than its own, on which joins are to be taken.
        port: Option<core::num::NonZeroU16>,
    },
    /// Withdraw an address of ours (`MPTCP_PM_CMD_REMOVE`), 0 for that of the first subflow. Its subflows stay.
    Withdraw(u8),
    /// Open a subflow (`MPTCP_PM_CMD_SUBFLOW_CREATE`).
    Open {
        /// Identifier of our endpoint.
        endpoint: u8,
        /// Where to.
        remote: RemoteAddr,
        /// To be used only when no other works.
        backup: bool,
    },
    /// Close a subflow (`MPTCP_PM_CMD_SUBFLOW_DESTROY`).
    Close(SubflowId),
    /// Ask the peer with MP_PRIO to use a subflow as a backup, or no longer (`MPTCP_PM_CMD_SET_FLAGS`).
    SetBackup {
        /// Which subflow.
        subflow: SubflowId,
        /// As a backup.
        backup: bool,
    },
}
