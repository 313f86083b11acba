//! What a subflow in a synchronised state checks of every segment (RFC 9293 §3.10.7.4, RFC 5961,
//! RFC 7323), up to and including its acknowledgement. Payload and MPTCP are the connection's.

use core::ops::Range;
use core::time::Duration;

use anabranch_frame::Instant;
use arrayvec::ArrayVec;

use crate::Counters;
use crate::cc::Group;
use crate::info::TcpState;
use crate::wire::{Flags, MptcpOption, Segment};

use super::snd::{AckIn, AckOut};
use super::{Guard, Subflow};

/// Acknowledgements that go at once after a sender sent again what had come (Linux: `TCP_MAX_QUICKACKS`).
const QUICK_ACKS: u8 = 16;

/// What became of a segment.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nothing of it counts, but an acknowledgement may be due.
    Drop,
    /// The peer reset this subflow.
    Reset,
    /// It counts: its payload begins at `pos`.
    Accept {
        /// Position of its first byte.
        pos: u64,
        /// What its acknowledgement brought.
        ack: AckOut,
    },
}

impl Subflow {
    /// Checks a segment and takes its acknowledgement.
    pub(crate) fn check(
        &mut self,
        now: Instant,
        segment: &Segment,
        group: Group<'_>,
        guard: &mut Guard,
        counters: &mut Counters,
    ) -> Verdict {
        // What lies before the peer's SYN has no position: it is out of the window, and old.
        let Some(pos) = self.rcv.pos(segment.seq) else {
            counters.tcp_out_of_window += 1;
            if !segment.flags.has(Flags::RST) && self.may_answer(now, segment, guard) {
                self.rcv.ack_now();
            }
            return Verdict::Drop;
        };
        if self.fails_paws(now, segment, pos) && !segment.flags.has(Flags::RST) {
            // RFC 7323 §5.3: an acknowledgement is the answer. A reset counts all the same (§5.2).
            return self.on_old_timestamp(now, segment, pos, guard, counters);
        }
        if !self.rcv.acceptable(pos, u64::from(segment.seq_len())) {
            return self.unacceptable(now, segment, pos, guard, counters);
        }
        if segment.flags.has(Flags::RST) {
            return self.check_reset(now, pos, guard, counters);
        }
        if segment.flags.has(Flags::SYN) {
            return self.challenge_syn(now, guard, counters);
        }
        if !segment.flags.has(Flags::ACK) {
            return Verdict::Drop;
        }
        match self.take_ack(now, segment, pos, group, guard, counters) {
            Some(ack) => {
                if let Some(ts) = segment.options.timestamps {
                    self.rcv.note_timestamp(pos, ts, now);
                    self.note_receiver_rtt(now, segment);
                }
                self.counts.received(segment);
                self.last_rx = now;
                self.keepalive_probes = 0;
                self.window_probes = 0;
                Verdict::Accept { pos, ack }
            }
            None => Verdict::Drop,
        }
    }

    /// Whether PAWS rejects the segment (RFC 7323 §5.3). A segment without timestamps where they were agreed on passes:
    /// §3.2 would have it dropped, but Linux takes it, and some middleboxes strip the option.
    fn fails_paws(&self, now: Instant, segment: &Segment, pos: u64) -> bool {
        let Some(ts) = segment.options.timestamps.filter(|_| self.uses_timestamps()) else { return false };
        if !self.rcv.paws_reject(ts, now) {
            return false;
        }
        // As in Linux, a pure ACK that says nothing new may have been overtaken by the segment with the newer timestamp.
        let bare = segment.seq_len() == 0 && pos == self.rcv.nxt() && self.ack_pos(segment.ack) == Some(self.snd.una());
        let age = Duration::from_millis(u64::from(self.rcv.ts_echo().wrapping_sub(ts.value)));
        !(bare && !segment.flags.has(Flags::SYN) && age <= self.snd.rto())
    }

    fn on_old_timestamp(
        &mut self,
        now: Instant,
        segment: &Segment,
        pos: u64,
        guard: &mut Guard,
        counters: &mut Counters,
    ) -> Verdict {
        if segment.flags.has(Flags::SYN) {
            return self.challenge_syn(now, guard, counters);
        }
        let overtaken = segment.seq_len() == 0 && self.ack_pos(segment.ack).is_none_or(|ack| ack < self.snd.una());
        if overtaken {
            // An old ACK is common, and asks for no answer.
            counters.paws_old_ack += 1;
            return Verdict::Drop;
        }
        counters.paws_estab += 1;
        if self.may_answer(now, segment, guard) {
            self.answer_unacceptable(segment, pos, counters);
        } else {
            counters.tcp_ack_skipped_paws += 1;
        }
        Verdict::Drop
    }

    /// RFC 9293 §3.10.7.4, first step: what lies outside the window is answered with an ACK.
    fn unacceptable(
        &mut self,
        now: Instant,
        segment: &Segment,
        pos: u64,
        guard: &mut Guard,
        counters: &mut Counters,
    ) -> Verdict {
        counters.tcp_out_of_window += 1;
        if segment.flags.has(Flags::RST) {
            // Some systems (macOS) forget their FIN when they reset.
            let closing = matches!(self.state, TcpState::CloseWait | TcpState::LastAck | TcpState::Closing);
            return if closing && pos + 1 == self.rcv.nxt() { Verdict::Reset } else { Verdict::Drop };
        }
        if segment.flags.has(Flags::SYN) {
            return self.challenge_syn(now, guard, counters);
        }
        if !self.may_answer(now, segment, guard) {
            counters.tcp_ack_skipped_seq += 1;
            return Verdict::Drop;
        }
        self.answer_unacceptable(segment, pos, counters);
        Verdict::Drop
    }

    /// At once. Data that we have had before is reported (RFC 2883), also if its timestamp is too old: a segment that
    /// others overtook by so much that it was sent again comes after the one that was sent for it, and nothing else tells the sender
    /// that it did so in vain.
    fn answer_unacceptable(&mut self, segment: &Segment, pos: u64, counters: &mut Counters) {
        let had = pos..self.rcv.nxt().min(pos + segment.payload.len() as u64);
        if had.is_empty() {
            self.rcv.ack_now();
        } else {
            counters.tcp_dsack_old_sent += 1;
            counters.delayed_ack_lost += 1;
            let _ = self.rcv.missing(&had);
            self.rcv.quick_acks(QUICK_ACKS);
        }
    }

    /// RFC 5961 §3.2: exactly the next byte resets, elsewhere in the window is challenged. A peer that resets behind a
    /// hole, which its SACK blocks told it of, is believed, too (as in Linux).
    fn check_reset(&mut self, now: Instant, pos: u64, guard: &mut Guard, counters: &mut Counters) -> Verdict {
        if pos == self.rcv.nxt() || self.rcv.sacked_to() == Some(pos) {
            return Verdict::Reset;
        }
        self.challenge(now, guard, counters);
        Verdict::Drop
    }

    /// RFC 5961 §4.2: a SYN is never believed, always challenged. A peer that restarted resets then, and so does a
    /// connection that is open only half (RFC 9293 §3.5.1).
    fn challenge_syn(&mut self, now: Instant, guard: &mut Guard, counters: &mut Counters) -> Verdict {
        counters.tcp_syn_challenge += 1;
        self.challenge(now, guard, counters);
        Verdict::Drop
    }

    fn take_ack(
        &mut self,
        now: Instant,
        segment: &Segment,
        pos: u64,
        group: Group<'_>,
        guard: &mut Guard,
        counters: &mut Counters,
    ) -> Option<AckOut> {
        // What lies before our SYN has no position: it is as old as can be.
        let Some(ack) = self.ack_pos(segment.ack) else {
            counters.tcp_ack_unsent += 1;
            self.challenge(now, guard, counters);
            return None;
        };
        if ack > self.snd.nxt() {
            counters.tcp_ack_unsent += 1;
            self.challenge(now, guard, counters);
            return None;
        }
        // RFC 5961 §5.2: older than the largest window ago is an attack or a very old duplicate.
        if ack + self.snd.widest_window() < self.snd.una() {
            counters.tcp_ack_unsent += 1;
            self.challenge(now, guard, counters);
            return None;
        }
        let una = self.snd.una();
        let sack: ArrayVec<Range<u64>, 4> = segment
            .options
            .sack
            .iter()
            .filter_map(|&(start, end)| {
                let start = self.seq(0).unwrap(start, una)?;
                let end = self.seq(0).unwrap(end, una)?;
                (start < end).then_some(start..end)
            })
            .collect();
        let signal = segment.options.mptcp.iter().any(|option| !matches!(option, MptcpOption::Dss(_)));
        let out = self.snd.on_ack(
            now,
            &AckIn {
                ack,
                window: u64::from(segment.window) << self.snd_scale,
                seq: pos,
                sack: &sack,
                ts_rtt: segment.options.timestamps.and_then(|ts| self.echo_age(now, ts)),
                ece: self.ecn.echoed(segment.flags),
                pure: segment.seq_len() == 0 && ack == una,
                signal,
            },
            group,
            counters,
        );
        counters.tcp_sack_discard += u64::from(out.sack_discarded);
        counters.tcp_dsack_recv += u64::from(out.dsack);
        let mss = self.snd.mss();
        self.counts.acked(&out, mss);
        if self.ecn.echoed(segment.flags) {
            counters.tcp_delivered_ce += out.delivered.div_ceil(u64::from(self.snd.mss()));
        }
        self.judge_mtu_probe(counters);
        // Something works.
        self.soft_error = None;
        if out.delivered > 0 || out.acked > 0 {
            self.silence.begin(now);
        }
        if out.acked > 0 {
            self.persist_backoff = 0;
            self.stale = false;
            self.on_progress();
        }
        Some(out)
    }

    /// A pure receiver's round-trip time (Linux's `rcv_rtt_est` by timestamps).
    fn note_receiver_rtt(&mut self, now: Instant, segment: &Segment) {
        if segment.payload.is_empty() {
            return;
        }
        if let Some(age) = segment.options.timestamps.and_then(|ts| self.echo_age(now, ts)) {
            let age = age.max(Duration::from_millis(1));
            self.rcv_rtt =
                if self.rcv_rtt.is_zero() || age < self.rcv_rtt { age } else { (self.rcv_rtt * 7 + age) / 8 };
        }
    }

    /// An ACK that shows a doubtful sender where we stand (RFC 5961 §3.2), not too often.
    fn challenge(&mut self, now: Instant, guard: &mut Guard, counters: &mut Counters) {
        if !guard.admits(now, &mut self.last_oow_ack) {
            counters.tcp_ack_skipped_challenge += 1;
        } else if guard.take() && self.state != TcpState::Closed {
            counters.tcp_challenge_ack += 1;
            self.rcv.ack_now();
        }
    }

    /// Whether a segment that does not fit is answered now. Data is always: two sides that answer each other's ACKs
    /// never send any.
    fn may_answer(&mut self, now: Instant, segment: &Segment, guard: &Guard) -> bool {
        !segment.payload.is_empty() || segment.flags.has(Flags::FIN) || guard.admits(now, &mut self.last_oow_ack)
    }
}
