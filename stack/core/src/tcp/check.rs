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

use super::Subflow;
use super::snd::{AckIn, AckOut};

/// Challenge ACKs a second on one subflow (RFC 5961 §7).
const CHALLENGES_PER_SECOND: u32 = 10;

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
        counters: &mut Counters,
    ) -> Verdict {
        let Some(pos) = self.rcv.pos(segment.seq) else {
            counters.tcp_out_of_window += 1;
            return Verdict::Drop;
        };
        if let Some(verdict) = self.check_timestamps(now, segment, counters) {
            return verdict;
        }
        if !self.rcv.acceptable(pos, u64::from(segment.seq_len())) {
            return self.unacceptable(now, segment, pos, counters);
        }
        if segment.flags.has(Flags::RST) {
            return self.check_reset(now, pos, counters);
        }
        if segment.flags.has(Flags::SYN) {
            // RFC 5961 §4: never believed, always challenged.
            counters.tcp_syn_challenge += 1;
            self.challenge(now, counters);
            return Verdict::Drop;
        }
        if !segment.flags.has(Flags::ACK) {
            return Verdict::Drop;
        }
        match self.take_ack(now, segment, pos, group, counters) {
            Some(ack) => {
                if let Some(ts) = segment.options.timestamps {
                    self.rcv.note_timestamp(pos, ts, now);
                    self.note_receiver_rtt(now, segment);
                }
                self.counts.received(segment);
                self.last_rx = now;
                self.keepalive_probes = 0;
                Verdict::Accept { pos, ack }
            }
            None => Verdict::Drop,
        }
    }

    fn check_timestamps(&mut self, now: Instant, segment: &Segment, counters: &mut Counters) -> Option<Verdict> {
        let ts = segment.options.timestamps.filter(|_| self.uses_timestamps())?;
        if segment.flags.has(Flags::RST) || !self.rcv.paws_reject(ts, now) {
            return None;
        }
        counters.paws_estab += 1;
        self.challenge(now, counters);
        Some(Verdict::Drop)
    }

    fn unacceptable(&mut self, now: Instant, segment: &Segment, pos: u64, counters: &mut Counters) -> Verdict {
        counters.tcp_out_of_window += 1;
        if segment.flags.has(Flags::RST) {
            return Verdict::Drop;
        }
        let len = segment.payload.len() as u64;
        if len > 0 && pos + len <= self.rcv.nxt() {
            // A retransmission of what we have: DSACK it, at once.
            counters.tcp_dsack_old_sent += 1;
            let _ = self.rcv.missing(&(pos..pos + len));
            // Its acknowledgement and window are as good as any (RFC 9293 §3.10.7.4, last note).
        } else if segment.flags.has(Flags::FIN) && self.rcv.fin_received() {
            self.rcv.ack_now();
        } else {
            self.challenge(now, counters);
        }
        Verdict::Drop
    }

    /// RFC 5961 §3.2: exactly the next byte resets, elsewhere in the window is challenged.
    fn check_reset(&mut self, now: Instant, pos: u64, counters: &mut Counters) -> Verdict {
        if pos == self.rcv.nxt() {
            return Verdict::Reset;
        }
        self.challenge(now, counters);
        Verdict::Drop
    }

    fn take_ack(
        &mut self,
        now: Instant,
        segment: &Segment,
        pos: u64,
        group: Group<'_>,
        counters: &mut Counters,
    ) -> Option<AckOut> {
        let ack = self.ack_pos(segment.ack)?;
        if ack > self.snd.nxt() {
            counters.tcp_ack_unsent += 1;
            self.challenge(now, counters);
            return None;
        }
        // RFC 5961 §5.2: older than the largest window ago is an attack or a very old duplicate.
        if ack + (u64::from(u16::MAX) << self.snd_scale) < self.snd.una() {
            counters.tcp_ack_unsent += 1;
            self.challenge(now, counters);
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
        // Something works.
        self.soft_error = None;
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

    /// An ACK that shows a doubtful sender where we stand, not too many a second.
    fn challenge(&mut self, now: Instant, counters: &mut Counters) {
        if now.saturating_since(self.challenges.0) >= Duration::from_secs(1) {
            self.challenges = (now, 0);
        }
        if self.challenges.1 < CHALLENGES_PER_SECOND && self.state != TcpState::Closed {
            self.challenges.1 += 1;
            counters.tcp_challenge_ack += 1;
            self.rcv.ack_now();
        }
    }
}
