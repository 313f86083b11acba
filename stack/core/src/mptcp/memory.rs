//! What a connection holds, and what it does without when memory is short.

use anabranch_frame::Payload;

use crate::shard::Level;
use crate::tcp::Subflow;

use super::Copies;
use super::conn::{Conn, Cx};

/// What every connection costs beside itself: entries of tables, its place, its timer, state of scheduler and path
/// manager, MPTCP's keys and addresses.
pub(super) const BESIDE: usize = 400;
/// No more than this waits to be sent while memory is tight.
const TIGHT: u64 = 32 * 1024;

/// Size of the send buffer when it has grown to `limit`.
pub(super) fn send_limit(limit: u64, level: Level) -> u64 {
    if level == Level::Plenty { limit } else { limit.min(TIGHT) }
}

impl Conn {
    /// Bytes of memory that it holds. Storage that several pieces share is counted for each.
    pub(crate) fn memory(&self) -> u64 {
        let subflows: usize = self.subflows.iter().map(Subflow::memory).sum();
        let state = size_of::<Self>() + BESIDE + subflows;
        // What was sent stays in the send queue until it is acknowledged at data level. On its subflow it may have to
        // stay longer, and what was sent on two subflows is under way on both.
        let outstanding: u64 = self.subflows.iter().map(|subflow| subflow.snd.outstanding()).sum();
        let twice = outstanding.saturating_sub(self.tx.assigned_end() - self.tx.una());
        state as u64 + self.tx.memory() + twice + self.rx.memory()
    }

    /// What waits for the rest of its mapping to be verified.
    pub(super) fn held_memory(&self) -> usize {
        self.subflows.iter().map(|subflow| subflow.mappings.held_memory()).sum()
    }

    /// What it was last found to hold, and from now on does.
    pub(crate) fn recharge(&mut self) -> (u64, u64) {
        let now = self.memory();
        (core::mem::replace(&mut self.charged, now), now)
    }

    /// What it was last found to hold.
    pub(crate) fn charged(&self) -> u64 {
        self.charged
    }

    /// How short memory is.
    pub(crate) fn heed(&mut self, level: Level) {
        self.level = level;
        self.rx.set_tight(level != Level::Plenty);
    }

    /// Nobody reads it any more, and it holds memory: the first to go (Linux: `tcp_check_oom`).
    pub(crate) fn is_dispensable(&self) -> bool {
        self.released && self.tx.memory() + self.rx.memory() > 0
    }

    pub(super) fn send_limit_now(&self) -> u64 {
        send_limit(self.send_limit, self.level)
    }

    /// Whether data is taken in now. When memory is used up, nothing out of order is, and in order only what
    /// an application that has read everything waits for. What is not taken is not acknowledged and comes again.
    pub(super) fn admits(&mut self, cx: &mut Cx<'_>, in_order: bool) -> bool {
        if self.level != Level::Exhausted {
            return true;
        }
        if let Some(copied) = self.rx.collapse() {
            cx.counters.prune_called += 1;
            cx.counters.tcp_rcv_collapsed += copied;
        }
        if !in_order {
            cx.counters.tcp_ofo_drop += 1;
            return false;
        }
        let full = self.rx.unread() > 0;
        cx.counters.tcp_rcvq_drop += u64::from(full);
        !full
    }

    /// The payload in storage of its own, if memory is tight and it would pin more.
    pub(super) fn thrifty(&self, payload: Payload, copies: &Copies) -> Payload {
        if self.level == Level::Plenty || payload.len() >= payload.storage_len() / 2 {
            return payload;
        }
        copies.copy_tight(&payload)
    }
}
