//! Whether a segment that is not full goes, or waits for more to go with it.
//!
//! Nagle (RFC 9293 §3.7.4): not while anything is unacknowledged. Minshall's change: not while a segment that was
//! itself not full is unacknowledged, so that the end of a large write does not wait (Linux: `tcp_minshall_check`). The
//! application may switch that off (`TCP_NODELAY`), hold back partial segments altogether (`TCP_CORK`), or say of a single
//! write that more follows (`MSG_MORE`).

/// What comes after a write, for [`Shard::write_with`](crate::Shard::write_with).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Follows {
    /// Perhaps nothing: what is written goes as soon as it may.
    #[default]
    Nothing,
    /// More, soon: a partial segment waits for it (`MSG_MORE`).
    More,
    /// Nothing that may share a segment with it (`MSG_EOR`).
    Boundary,
    /// More, soon, that may not share a segment with it.
    Apart,
}

/// What the application wants, and what was sent. Offsets are those of the stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nagle {
    pub(super) nodelay: bool,
    pub(super) cork: bool,
    /// The last write said that more follows.
    more: bool,
    /// The next partial segment goes whatever is wanted.
    forced: bool,
    /// Everything before this goes.
    pushed: u64,
    /// End of the last partial segment that was sent.
    small: u64,
    /// End of the last write that more was not to follow.
    mark: u64,
    /// What lies before went with the SYN, to no avail: not by choice in a partial segment.
    with_syn: u64,
}

/// What is remembered while everything is acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct RestingNagle {
    pub(super) nodelay: bool,
    pub(super) cork: bool,
}

impl RestingNagle {
    pub(super) fn resume(self) -> Nagle {
        Nagle::new(self.nodelay, self.cork)
    }
}

impl Nagle {
    pub(super) fn new(nodelay: bool, cork: bool) -> Self {
        Self { nodelay, cork, more: false, forced: false, pushed: 0, small: 0, mark: 0, with_syn: 0 }
    }

    /// What has to be remembered.
    pub(super) fn rest(self) -> RestingNagle {
        RestingNagle { nodelay: self.nodelay, cork: self.cork }
    }

    /// Switching Nagle's algorithm off sends what waits, up to `end`.
    pub(super) fn set_nodelay(&mut self, nodelay: bool, end: u64) {
        self.nodelay = nodelay;
        if nodelay {
            self.pushed = end;
        }
    }

    /// So does pulling the cork out, as far as Nagle allows.
    pub(super) fn set_cork(&mut self, cork: bool, end: u64) {
        self.cork = cork;
        if !cork && self.nodelay {
            self.pushed = end;
        }
    }

    /// Something was written, up to `end`.
    pub(super) fn on_write(&mut self, follows: Follows, end: u64) {
        self.more = matches!(follows, Follows::More | Follows::Apart);
        if !self.more {
            self.mark = end;
        }
    }

    /// Everything up to `end` went with the SYN and goes once more.
    pub(super) fn on_syn_data_refused(&mut self, end: u64) {
        self.with_syn = end;
    }

    /// An acknowledgement came: that more follows holds no longer.
    pub(super) fn on_ack(&mut self) {
        self.more = false;
    }

    /// The next partial segment goes.
    pub(super) fn force(&mut self) {
        self.forced = true;
    }

    /// Whether the next segment goes as it is.
    pub(super) fn is_forced(&self) -> bool {
        self.forced
    }

    /// Whether a partial segment that ends at `end` may go while `una` is the first offset not acknowledged.
    pub(super) fn admits(&self, end: u64, una: u64) -> bool {
        if self.forced || end <= self.pushed {
            return true;
        }
        !self.cork && !self.more && (self.nodelay || self.small <= una)
    }

    /// Data went from `start` to `end`, with a `partial` segment at the end, or not. Returns whether the sender has
    /// nothing in a hurry behind it: PSH (RFC 9293 §3.9.1.2).
    pub(super) fn on_sent(&mut self, start: u64, end: u64, partial: bool) -> bool {
        if partial && end > self.with_syn {
            self.small = end;
        }
        core::mem::take(&mut self.forced) || (start < self.mark && self.mark <= end)
    }
}
