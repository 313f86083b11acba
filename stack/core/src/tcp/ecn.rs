//! Explicit congestion notification (RFC 3168): what one subflow has to remember of it.
//!
//! The handshake's part is in `handshake` and `shard::listen`, the reduction of the window in `snd::recovery`.

use super::Subflow;
use crate::cc;
use crate::options::{Ecn, SocketOptions};
use crate::wire::{Flags, Segment, ecn};

/// Segments that are acknowledged at once when the sender should hear of a mark (Linux).
const QUICK_ACKS: u8 = 2;

/// Changes of the echo that are told one by one; more of them at once are told together.
const EARLY_MAX: usize = 16;

/// What a side says of ECN in the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EcnWish {
    /// It takes no part.
    No,
    /// It asks, or agrees when asked.
    Yes,
    /// The same, for a congestion control that lives on marks (RFC 8257): everything it sends is ECN-capable.
    Accurate,
}

impl EcnWish {
    /// Of whoever opens a connection with these options.
    pub(crate) fn to_ask(options: &SocketOptions) -> Self {
        if lives_on_marks(options) {
            Self::Accurate
        } else if options.ecn == Ecn::Request {
            Self::Yes
        } else {
            Self::No
        }
    }

    /// Of whoever accepts with these options.
    pub(crate) fn to_agree(options: &SocketOptions) -> Self {
        if lives_on_marks(options) {
            Self::Accurate
        } else if options.ecn == Ecn::Off {
            Self::No
        } else {
            Self::Yes
        }
    }

    /// Codepoint of a SYN or SYN/ACK.
    pub(crate) fn codepoint(self) -> u8 {
        if self == Self::Accurate { ecn::ECT_0 } else { ecn::NOT_ECT }
    }
}

fn lives_on_marks(options: &SocketOptions) -> bool {
    cc::by_name(&options.congestion, 1).is_ok_and(|congestion| congestion.needs_ecn())
}

/// What data means to acknowledgements because of its codepoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Heard {
    Nothing,
    /// The sender should hear soon.
    Soon,
    /// From here on the echo is another one; before, it was this.
    Changed(bool),
}

/// ECN on one subflow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct EcnState {
    /// Both sides said in the handshake that they take part (§6.1.1).
    on: bool,
    /// The peer sent something ECN-capable.
    seen: bool,
    /// Each mark is echoed as it came, and no longer (RFC 8257 §3.2), and everything that is sent is ECN-capable.
    accurate: bool,
    /// Acknowledgements carry ECE: until CWR comes (§6.1.3), or, if accurate, until a segment without a mark does.
    echo: bool,
}

impl EcnState {
    pub(crate) fn new(on: bool, accurate: bool) -> Self {
        Self { on, accurate, ..Self::default() }
    }

    /// Congestion control is another one.
    pub(crate) fn set_accurate(&mut self, accurate: bool) {
        self.accurate = accurate;
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
    fn on_cwr(&mut self, flags: Flags) -> bool {
        let told = self.on && !self.accurate && flags.has(Flags::CWR);
        self.echo &= !told;
        told
    }

    /// New data came with this codepoint. The sender should hear at once of a mark, and of something that is not
    /// ECN-capable from a peer that was before, since that is probably a retransmission (Linux).
    fn on_data(&mut self, codepoint: u8) -> Heard {
        if !self.on {
            return Heard::Nothing;
        }
        let marked = codepoint == ecn::CE;
        let before = self.echo;
        let capable_before = self.seen;
        self.seen |= codepoint != ecn::NOT_ECT;
        if self.accurate {
            self.echo = marked;
            return if before == marked { Heard::Nothing } else { Heard::Changed(before) };
        }
        self.echo |= marked;
        if (marked && !before) || (codepoint == ecn::NOT_ECT && capable_before) { Heard::Soon } else { Heard::Nothing }
    }

    /// What a segment says of ECN: its flags, and the codepoint in its IP header. New data is ECN-capable; what is sent
    /// again, pure acknowledgements and probes are not (§6.1.4 to §6.1.6), unless congestion control lives on marks.
    /// `reduced`: tells the peer that the window was reduced, if this is new data (§6.1.2).
    pub(crate) fn mark(&self, new_data: bool, reduced: impl FnOnce() -> bool) -> (Flags, u8) {
        let mut flags = Flags::default();
        if !self.on {
            return (flags, ecn::NOT_ECT);
        }
        if self.echo {
            flags = flags.with(Flags::ECE);
        }
        if new_data && reduced() {
            flags = flags.with(Flags::CWR);
        }
        (flags, if new_data || self.accurate { ecn::ECT_0 } else { ecn::NOT_ECT })
    }
}

/// An acknowledgement of what came before the echo changed (RFC 8257 §3.2), not sent yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EarlyAck {
    /// Up to here.
    pub(crate) nxt: u64,
    /// With this echo.
    pub(crate) echo: bool,
}

impl Subflow {
    /// Data came, some of it `new`: what it says of congestion, and whether it is acknowledged at once for that. A mark
    /// on what is old may be anybody's.
    pub(crate) fn hear_ecn(&mut self, segment: &Segment, new: bool) {
        if self.ecn.on_cwr(segment.flags) {
            self.rcv.ack_now();
        }
        if !new {
            return;
        }
        match self.ecn.on_data(segment.ecn) {
            Heard::Nothing => {}
            Heard::Soon => self.rcv.quick_acks(QUICK_ACKS),
            Heard::Changed(echo) => {
                if self.rcv.owes_ack() && self.early_acks.len() < EARLY_MAX {
                    self.early_acks.push(EarlyAck { nxt: self.rcv.nxt(), echo });
                }
                self.rcv.ack_now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_echoed_until_the_sender_answers() {
        let mut ecn = EcnState::new(true, false);
        assert!(ecn.on_data(ecn::ECT_0) == Heard::Nothing && ecn.seen());
        assert_eq!(ecn.mark(false, || true), (Flags::default(), ecn::NOT_ECT));

        // A mark: the sender hears at once, and again and again.
        assert_eq!(ecn.on_data(ecn::CE), Heard::Soon);
        assert_eq!(ecn.on_data(ecn::CE), Heard::Nothing, "a second mark is no news");
        assert_eq!(ecn.mark(false, || false), (Flags::ECE, ecn::NOT_ECT));
        assert_eq!(ecn.mark(true, || true), (Flags::ECE.with(Flags::CWR), ecn::ECT_0));

        // It answers with a segment that is itself marked: that is a new one.
        assert!(ecn.on_cwr(Flags::CWR.with(Flags::ACK)));
        assert_eq!(ecn.mark(false, || false).0, Flags::default());
        assert_eq!(ecn.on_data(ecn::CE), Heard::Soon);
        assert_eq!(ecn.mark(false, || false).0, Flags::ECE);
    }

    #[test]
    fn without_consent_nothing_is_said_and_nothing_believed() {
        let mut ecn = EcnState::new(false, false);
        assert!(ecn.on_data(ecn::CE) == Heard::Nothing && !ecn.seen());
        assert!(!ecn.on_cwr(Flags::CWR));
        assert!(!ecn.echoed(Flags::ECE));
        assert_eq!(ecn.mark(true, || true), (Flags::default(), ecn::NOT_ECT));
    }

    #[test]
    fn something_not_capable_is_taken_for_a_retransmission() {
        let mut ecn = EcnState::new(true, false);
        assert_eq!(ecn.on_data(ecn::NOT_ECT), Heard::Nothing, "the peer may never be capable");
        assert_eq!(ecn.on_data(ecn::ECT_0), Heard::Nothing);
        assert_eq!(ecn.on_data(ecn::NOT_ECT), Heard::Soon);
    }

    #[test]
    fn who_lives_on_marks_hears_of_each() {
        let mut ecn = EcnState::new(true, true);
        assert_eq!(ecn.on_data(ecn::ECT_0), Heard::Nothing);
        assert_eq!(ecn.on_data(ecn::CE), Heard::Changed(false));
        assert_eq!(ecn.on_data(ecn::CE), Heard::Nothing);
        assert!(!ecn.on_cwr(Flags::CWR), "that is for who does not see each mark");
        assert_eq!(ecn.mark(false, || true), (Flags::ECE, ecn::ECT_0));
        assert_eq!(ecn.on_data(ecn::ECT_0), Heard::Changed(true));
        assert_eq!(ecn.mark(true, || false), (Flags::default(), ecn::ECT_0));
    }
}
