//! SYN-RECEIVED: what it makes of segments, whoever opened the connection (RFC 9293 §3.10.7.4).

use anabranch_frame::{Instant, Transmit};

use crate::wire::{Flags, IpOut, OptionWriter, Segment, SegmentOut, SeqNum, Timestamps, Tuple};

use super::{Guard, Link, Negotiated};

/// What a segment means to a half-open connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Half {
    /// It may be the third ACK.
    Finish,
    /// Nothing.
    Ignore,
    /// It would be answered, had not another one been just before.
    Skip,
    /// The SYN again: the SYN/ACK got lost.
    Repeat,
    /// It does not fit, and is answered with an ACK; `paws` if it is too old.
    Answer {
        /// Its timestamp is too old.
        paws: bool,
    },
    /// It acknowledges what was never sent.
    Reset,
    /// The peer wants no connection.
    Refused,
    /// The peer begins another one.
    Restart,
}

/// A half-open connection, as far as the checks go.
#[derive(Debug)]
pub(crate) struct HalfOpen<'a> {
    pub(crate) negotiated: &'a Negotiated,
    /// The window that we told, in bytes.
    pub(crate) window: u16,
    /// The segment acknowledges something that we sent.
    pub(crate) acked: bool,
    /// When a segment that did not fit was last answered.
    pub(crate) last_answer: &'a mut Option<Instant>,
}

impl HalfOpen<'_> {
    /// RFC 9293 §3.10.7.4 in SYN-RECEIVED, RFC 5961 §3.2, RFC 7323 §5.3.
    pub(crate) fn check(self, now: Instant, segment: &Segment, guard: &Guard) -> Half {
        let (syn, acks) = (segment.flags.has(Flags::SYN), segment.flags.has(Flags::ACK));
        let first = self.negotiated.irs.add(1);
        let recent = self.negotiated.ts_recent.zip(segment.options.timestamps);
        let paws = recent.is_some_and(|(recent, ts)| recent.wrapping_sub(ts.value) as i32 > 0);
        if segment.flags.has(Flags::RST) {
            return match segment.seq.distance(first) {
                0 => Half::Refused,
                within if within > 0 && within < i32::from(self.window) => self.answer(now, false, guard),
                _ => Half::Ignore,
            };
        }
        // Of two SYNs the older one may come last.
        if syn && !acks && segment.seq == self.negotiated.irs {
            return if guard.admits(now, self.last_answer) { Half::Repeat } else { Half::Skip };
        }
        if acks && !self.acked {
            return Half::Reset;
        }
        let (offset, len) = (i64::from(segment.seq.distance(first)), i64::from(segment.seq_len()));
        let window = i64::from(self.window);
        // The SYN of a SYN/ACK that crosses ours has come before, by itself.
        let repeated = syn && segment.seq == self.negotiated.irs;
        let inside = offset == 0 || (offset + len > 0 && offset < window) || (offset == window && len == 0);
        if paws || !(inside || repeated) {
            return self.answer(now, paws, guard);
        }
        match (syn && !repeated, acks) {
            (true, _) => Half::Restart,
            (false, true) => Half::Finish,
            (false, false) => Half::Ignore,
        }
    }

    fn answer(self, now: Instant, paws: bool, guard: &Guard) -> Half {
        if guard.admits(now, self.last_answer) { Half::Answer { paws } } else { Half::Skip }
    }
}

/// An ACK without data that shows the peer where we stand, while there is no [`Subflow`](super::Subflow) to send it.
#[derive(Debug)]
pub(crate) struct BareAck {
    pub(crate) tuple: Tuple,
    pub(crate) link: Link,
    pub(crate) seq: SeqNum,
    pub(crate) ack: SeqNum,
    /// The window field.
    pub(crate) window: u16,
    /// Offset of our timestamp clock, and what is echoed.
    pub(crate) timestamps: Option<(u32, u32)>,
    pub(crate) ip: IpOut,
}

impl BareAck {
    pub(crate) fn transmit(self, now: Instant) -> Transmit {
        let mut options = OptionWriter::new();
        if let Some((offset, echo)) = self.timestamps {
            options.timestamps(Timestamps { value: (now.as_millis() as u32).wrapping_add(offset), echo });
        }
        SegmentOut {
            tuple: self.tuple,
            seq: self.seq,
            ack: self.ack,
            flags: Flags::ACK,
            window: self.window,
            ip: self.ip,
            options: &options,
            payload_len: 0,
        }
        .bare(self.link.path)
    }
}
