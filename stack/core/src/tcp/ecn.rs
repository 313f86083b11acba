//! Explicit congestion notification (RFC 3168): what one subflow has to remember of it.
//!
//! The handshake's part is in `handshake` and `shard::listen`, the reduction of the window in `snd::recovery`.

use super::Subflow;
use crate::wire::{Flags, Segment, ecn};

/// Segments that are acknowledged at once when the sender should hear of a mark (Linux).
const QUICK_ACKS: u8 = 2;

/// ECN on one subflow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct EcnState {
    /// Both sides said in the handshake that they take part (§6.1.1).
    on: bool,
    /// The peer sent something ECN-capable.
    seen: bool,
    /// A mark came: acknowledgements carry ECE until CWR comes (§6.1.3).
    echo: bool,
}

impl EcnState {
    pub(crate) fn new(on: bool) -> Self {
        Self { on, ..Self::default() }
    }

    /// Whether both sides take part.
    pub(crate) fn on(&self) -> bool {
        self.on
    }

    /// Whether the peer sent something ECN-capable (`TCPI_OPT_ECN_SEEN`).
    pub(crate) fn seen(&self) -> bool {
        self.seen
    }

    /// Whether a segment's flags echo congestion (§6.1.2).
    pub(crate) fn echoed(&self, flags: Flags) -> bool {
        self.on && flags.has(Flags::ECE) && !flags.has(Flags::SYN)
    }

    /// The sender says that it reduced its window (§6.1.3). Whether that was news: it may have very little in flight
    /// now, and should hear from us at once.
    pub(crate) fn on_cwr(&mut self, flags: Flags) -> bool {
        let told = self.on && flags.has(Flags::CWR);
        self.echo &= !told;
        told
    }

    /// New data came with this codepoint. Whether the sender should hear at once: of a mark, or since something that
    /// is not ECN-capable from a peer that was before is probably a retransmission (Linux).
    pub(crate) fn on_data(&mut self, codepoint: u8) -> bool {
        if !self.on {
            return false;
        }
        match codepoint {
            ecn::NOT_ECT => return self.seen,
            ecn::CE if !self.echo => {
                self.echo = true;
                self.seen = true;
                return true;
            }
            _ => self.seen = true,
        }
        false
    }

    /// What a segment says of ECN: its flags, and the codepoint in its IP header. New data is ECN-capable; what is sent
    /// again, pure acknowledgements and probes are not (§6.1.4 to §6.1.6). `reduced`: tells the peer that the window
    /// was reduced, if this is new data (§6.1.2).
    pub(crate) fn mark(&self, new_data: bool, reduced: impl FnOnce() -> bool) -> (Flags, u8) {
        let mut flags = Flags::default();
        if !self.on {
            return (flags, ecn::NOT_ECT);
        }
        if self.echo {
            flags = flags.with(Flags::ECE);
        }
        if !new_data {
            return (flags, ecn::NOT_ECT);
        }
        if reduced() {
            flags = flags.with(Flags::CWR);
        }
        (flags, ecn::ECT_0)
    }
}

impl Subflow {
    /// Data came, some of it `new`: what it says of congestion, and whether it is acknowledged at once for that. A mark
    /// on what is old may be anybody's.
    pub(crate) fn hear_ecn(&mut self, segment: &Segment, new: bool) {
        if self.ecn.on_cwr(segment.flags) {
            self.rcv.ack_now();
        }
        if new && self.ecn.on_data(segment.ecn) {
            self.rcv.quick_acks(QUICK_ACKS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_echoed_until_the_sender_answers() {
        let mut ecn = EcnState::new(true);
        assert!(!ecn.on_data(ecn::ECT_0) && ecn.seen());
        assert_eq!(ecn.mark(false, || true), (Flags::default(), ecn::NOT_ECT));

        // A mark: the sender hears at once, and again and again.
        assert!(ecn.on_data(ecn::CE));
        assert!(!ecn.on_data(ecn::CE), "a second mark is no news");
        assert_eq!(ecn.mark(false, || false), (Flags::ECE, ecn::NOT_ECT));
        assert_eq!(ecn.mark(true, || true), (Flags::ECE.with(Flags::CWR), ecn::ECT_0));

        // It answers with a segment that is itself marked: that is a new one.
        assert!(ecn.on_cwr(Flags::CWR.with(Flags::ACK)));
        assert_eq!(ecn.mark(false, || false).0, Flags::default());
        assert!(ecn.on_data(ecn::CE));
        assert_eq!(ecn.mark(false, || false).0, Flags::ECE);
    }

    #[test]
    fn without_consent_nothing_is_said_and_nothing_believed() {
        let mut ecn = EcnState::new(false);
        assert!(!ecn.on_data(ecn::CE) && !ecn.seen());
        assert!(!ecn.on_cwr(Flags::CWR));
        assert!(!ecn.echoed(Flags::ECE));
        assert_eq!(ecn.mark(true, || true), (Flags::default(), ecn::NOT_ECT));
    }

    #[test]
    fn something_not_capable_is_taken_for_a_retransmission() {
        let mut ecn = EcnState::new(true);
        assert!(!ecn.on_data(ecn::NOT_ECT), "the peer may never be capable");
        assert!(!ecn.on_data(ecn::ECT_0));
        assert!(ecn.on_data(ecn::NOT_ECT));
    }
}
