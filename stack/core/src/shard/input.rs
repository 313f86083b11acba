//! Packets that came in: whose they are, and what becomes of those that belong to no connection.

use anabranch_frame::{Instant, RxPacket};

use crate::ResetReason;
use crate::mptcp::Cx;
use crate::tcp::reset_for;
use crate::wire::{Dropped, Flags, MptcpOption, Segment, Signature, ecn, is_icmp, peek_tuple};

use super::passive::join_syn;
use super::timewait::Waited;
use super::{Mail, Shard, Slot, WorkerId, cx};

/// Answers to segments of no connection that may wait to be sent; more of them are dropped.
pub(super) const LOOSE_MAX: usize = 4096;

impl Shard {
    /// A packet straight from a device may belong to any worker.
    pub(super) fn steer(&mut self, now: Instant, packet: RxPacket) {
        if is_icmp(&packet.data) {
            return self.receive_icmp(now, packet, false);
        }
        if self.crew.is_alone() {
            let Some(segment) = self.parse(packet) else { return };
            let slot = self.table.find(&segment.tuple);
            return self.receive(now, &segment, slot, None);
        }
        // What cannot be read is counted where it came in.
        let Some(tuple) = peek_tuple(&packet.data) else { return drop(self.parse(packet)) };
        match self.table.find(&tuple) {
            Some(Slot::Forward(worker)) => self.hand_over(worker, packet),
            None => match self.crew.home(&tuple) {
                home if home != self.crew.own() => self.hand_over(home, packet),
                _ => self.receive_one_of_many(now, packet, None),
            },
            slot => self.receive_one_of_many(now, packet, slot),
        }
    }

    /// Another worker says that a packet is ours, because we are at home there or own the token.
    pub(super) fn receive_mail(&mut self, now: Instant, packet: RxPacket) {
        self.counters.handed_over_rx += 1;
        if is_icmp(&packet.data) {
            return self.receive_icmp(now, packet, true);
        }
        let slot = peek_tuple(&packet.data).and_then(|tuple| self.table.find(&tuple));
        match slot {
            Some(Slot::Forward(worker)) => self.hand_over(worker, packet),
            slot => self.receive_one_of_many(now, packet, slot),
        }
    }

    pub(super) fn hand_over(&mut self, worker: WorkerId, packet: RxPacket) {
        self.counters.handed_over_tx += 1;
        self.mail.push_back((worker, Mail::Packet(packet)));
    }

    /// A packet that this worker deals with, one of several. What may turn out to be a join of another's connection
    /// is kept as it came.
    fn receive_one_of_many(&mut self, now: Instant, packet: RxPacket, slot: Option<Slot>) {
        let kept = matches!(slot, None | Some(Slot::TimeWait(_))).then(|| packet.clone());
        if let Some(segment) = self.parse(packet) {
            self.receive(now, &segment, slot, kept);
        }
    }

    /// The segment in a packet that is for us; counts what it is otherwise.
    fn parse(&mut self, packet: RxPacket) -> Option<Segment> {
        let segment = match Segment::parse(packet) {
            Ok(segment) => segment,
            Err(dropped) => {
                self.count_dropped(dropped);
                return None;
            }
        };
        self.counters.tcp_in_segs += 1;
        self.count_ecn(&segment);
        self.counters.tcp_malformed_options += u64::from(segment.options.malformed);
        if !self.paths.owns(segment.tuple.local.ip()) {
            self.counters.ip_in_addr_errors += 1;
            return None;
        }
        match segment.options.signature {
            None => {}
            // As in Linux, who has no key drops what is signed (RFC 2385 §2, RFC 5925 §7.3).
            Some(Signature::Md5) => {
                self.counters.tcp_md5_unexpected += 1;
                return None;
            }
            Some(Signature::Ao) => {
                self.counters.tcp_ao_key_not_found += 1;
                return None;
            }
        }
        Some(segment)
    }

    fn count_ecn(&mut self, segment: &Segment) {
        let packets = segment.segment_size.map_or(1, |size| segment.payload.len().div_ceil(usize::from(size).max(1)));
        let counter = match segment.ecn {
            ecn::NOT_ECT => &mut self.counters.ip_in_no_ect,
            ecn::ECT_0 => &mut self.counters.ip_in_ect0,
            ecn::CE => &mut self.counters.ip_in_ce,
            _ => &mut self.counters.ip_in_ect1,
        };
        *counter += packets as u64;
    }

    /// `slot` is what stands behind the segment's tuple.
    fn receive(&mut self, now: Instant, segment: &Segment, slot: Option<Slot>, kept: Option<RxPacket>) {
        match slot {
            Some(Slot::Conn(index, subflow)) => {
                if let Some(place) = self.conns.get_mut(index as usize) {
                    let conn = place.wake(&mut self.counters.conns_at_rest, self.memory.level());
                    conn.on_segment(&mut cx!(self, now), subflow, segment);
                    self.touch(index);
                }
            }
            Some(Slot::Syn(key)) => self.on_syn_segment(now, key, segment),
            Some(Slot::TimeWait(index)) => self.on_time_wait(now, index, segment, kept),
            // Sent on before.
            Some(Slot::Forward(_)) => {}
            None => self.on_stranger(now, segment, kept),
        }
    }

    /// A segment of a tuple that nobody uses. A join goes on to the worker of its token.
    fn on_stranger(&mut self, now: Instant, segment: &Segment, kept: Option<RxPacket>) {
        let join = join_syn(segment).filter(|_| is_syn(segment));
        let owner = join.map(|join| self.crew.of_token(join.token));
        match (owner, kept) {
            (Some(owner), Some(packet)) if owner != self.crew.own() => self.hand_over(owner, packet),
            _ => self.on_unknown(now, segment),
        }
    }

    pub(super) fn count_dropped(&mut self, dropped: Dropped) {
        match dropped {
            Dropped::IpHeader => self.counters.ip_in_hdr_errors += 1,
            Dropped::Fragment => self.counters.ip_in_fragments += 1,
            Dropped::NotTcp => self.counters.ip_in_unknown_protos += 1,
            Dropped::TcpHeader => self.counters.tcp_in_errs += 1,
            Dropped::Checksum => self.counters.tcp_in_csum_errors += 1,
            Dropped::Icmp => self.counters.icmp_in_errors += 1,
            Dropped::IcmpChecksum => {
                self.counters.icmp_in_errors += 1;
                self.counters.icmp_in_csum_errors += 1;
            }
        }
    }

    /// A segment of no connection: a SYN for a listener, a join, or something to be reset.
    pub(super) fn on_unknown(&mut self, now: Instant, segment: &Segment) {
        if segment.flags.has(Flags::SYN) && segment.flags.has(Flags::FIN) && !segment.flags.has(Flags::ACK) {
            // Nobody means that (as in Linux).
            self.counters.tcp_in_errs += 1;
            return;
        }
        if is_syn(segment) {
            if !self.paths.may_be_peer(segment.tuple.remote.ip()) {
                // An answer would go to everybody.
                self.counters.ip_in_addr_errors += 1;
                return;
            }
            if let Some(join) = join_syn(segment) {
                return self.on_join_syn(now, segment, join);
            }
            if let Some(listener) = self.listeners.find(segment.tuple.local) {
                return self.on_syn(now, segment, listener);
            }
        } else if self.on_cookie(now, segment) {
            return;
        }
        let odd = !segment.flags.has(Flags::SYN) && !segment.flags.has(Flags::ACK);
        if odd && self.listeners.find(segment.tuple.local).is_some() {
            // RFC 9293 §3.10.7.2, fourth step.
            return;
        }
        self.reset(segment, None);
    }

    pub(super) fn reset(&mut self, segment: &Segment, reason: Option<ResetReason>) {
        if self.loose.len() >= LOOSE_MAX {
            return;
        }
        let option = reason.map(|reason| MptcpOption::Reset { transient: reason.is_transient(), reason });
        if let Some(reset) = reset_for(segment, option.as_ref()) {
            self.counters.tcp_out_rsts += 1;
            self.counters.mp_rst_tx += u64::from(option.is_some());
            self.loose.push_back(reset);
        }
    }

    fn on_time_wait(&mut self, now: Instant, index: u32, segment: &Segment, kept: Option<RxPacket>) {
        let until = now + self.config.time_wait;
        match self.time_waits.on_segment(index, segment, self.config.handshake.rfc1337) {
            Waited::Ignore => {}
            Waited::Prolong => self.time_waits.prolong(index, until),
            Waited::Kill => {
                self.remove_time_wait(now, index);
            }
            Waited::Answer { paws, prolong } => {
                self.counters.paws_estab += u64::from(paws);
                if prolong {
                    self.time_waits.prolong(index, until);
                }
                if !self.time_waits.may_answer(now, index, &self.guard) {
                    self.counters.tcp_ack_skipped_time_wait += 1;
                } else if self.loose.len() < LOOSE_MAX {
                    self.loose.extend(self.time_waits.ack(now, index, &self.paths));
                }
            }
            Waited::Reopen(isn) => {
                if self.remove_time_wait(now, index) {
                    self.counters.tw_recycled += 1;
                    self.next_isn = Some(isn);
                    self.on_stranger(now, segment, kept);
                    self.next_isn = None;
                }
            }
        }
    }

    fn remove_time_wait(&mut self, now: Instant, index: u32) -> bool {
        let entry = self.time_waits.remove(index);
        if let Some(entry) = entry {
            cx!(self, now).release_tuple(&entry.tuple, Slot::TimeWait(index));
        }
        entry.is_some()
    }
}

fn is_syn(segment: &Segment) -> bool {
    segment.flags.has(Flags::SYN) && !segment.flags.has(Flags::ACK) && !segment.flags.has(Flags::RST)
}
