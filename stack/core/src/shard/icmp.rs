//! ICMP errors that came in: whose segments they are about.

use anabranch_frame::{Instant, RxPacket};

use crate::mptcp::Cx;
use crate::wire::{IcmpError, IcmpKind};

use super::{Shard, Slot, cx};

impl Shard {
    /// An ICMP message came in, from a device or from another worker (`forwarded`). It goes where the connection
    /// lives that it is about.
    pub(super) fn receive_icmp(&mut self, now: Instant, packet: RxPacket, forwarded: bool) {
        let error = match IcmpError::parse(&packet) {
            Ok(Some(error)) => error,
            Ok(None) => {
                self.counters.icmp_in_msgs += 1;
                return;
            }
            Err(dropped) => {
                self.counters.icmp_in_msgs += 1;
                self.count_dropped(dropped);
                return;
            }
        };
        let home = self.crew.home(&error.tuple);
        match self.table.find(&error.tuple) {
            Some(Slot::Forward(worker)) => self.hand_over(worker, packet),
            None if !forwarded && home != self.crew.own() => self.hand_over(home, packet),
            slot => {
                self.counters.icmp_in_msgs += 1;
                match error.kind {
                    IcmpKind::TooBig { .. } => self.counters.icmp_in_pkt_too_bigs += 1,
                    IcmpKind::Problem { .. } => self.counters.icmp_in_dest_unreachs += 1,
                }
                self.on_icmp(now, &error, slot);
            }
        }
    }

    fn on_icmp(&mut self, now: Instant, error: &IcmpError, slot: Option<Slot>) {
        match slot {
            Some(Slot::Conn(index, subflow)) => {
                if let Some(place) = self.conns.get_mut(index as usize) {
                    let waits = place.id().is_some_and(|id| self.listeners.holds(id));
                    let conn = place.wake(&mut self.counters.conns_at_rest, self.memory.level());
                    conn.on_icmp(&mut cx!(self, now), subflow, error, waits);
                    self.touch(index);
                }
            }
            Some(Slot::Syn(key)) => self.on_syn_icmp(now, key, error),
            // Nothing is under way that could be repaired.
            Some(Slot::TimeWait(_)) => {}
            Some(Slot::Forward(_)) | None => self.counters.icmp_in_errors += 1,
        }
    }

    /// About our SYN/ACK: whoever asked for it cannot be reached (RFC 5461 §4.1, Linux: `tcp_req_err`).
    fn on_syn_icmp(&mut self, now: Instant, key: u32, error: &IcmpError) {
        let Some(entry) = self.syns.get_mut(key) else { return };
        if error.seq != entry.negotiated.iss {
            self.counters.out_of_window_icmps += 1;
        } else if matches!(error.kind, IcmpKind::Problem { .. }) {
            self.counters.tcp_attempt_fails += 1;
            self.remove_syn(now, key);
        }
    }
}
