//! ICMP errors about segments of a connection.

use crate::sched::SubflowId;
use crate::shard::Pmtu;
use crate::wire::{IcmpError, IcmpKind};

use super::conn::{Conn, Cx};

impl Conn {
    /// An ICMP error about a segment of one of our subflows. It is believed if it names something that is under way,
    /// which nobody knows who does not see it (RFC 5927 §4.1). `waits`: the connection was not accepted yet.
    pub(crate) fn on_icmp(&mut self, cx: &mut Cx<'_>, id: SubflowId, error: &IcmpError, waits: bool) {
        if let Some(at) = self.openings.iter().position(|opening| opening.id == id) {
            return self.on_opening_icmp(cx, at, error);
        }
        let Some(at) = self.index_of(id) else { return };
        let subflow = &mut self.subflows[at];
        let first = if subflow.synack.is_some() { 0 } else { subflow.snd.una() };
        let Some(pos) = subflow.ack_pos(error.seq).filter(|pos| (first..=subflow.snd.nxt()).contains(pos)) else {
            cx.counters.out_of_window_icmps += 1;
            return;
        };
        match error.kind {
            IcmpKind::TooBig { mtu } => {
                if let Some(pmtu) = subflow.on_too_big(cx.now, mtu, &cx.config.pmtu) {
                    cx.pmtus.learn(error.tuple.remote.ip(), pmtu);
                }
            }
            // A handshake that nobody knows of yet ends (RFC 5461 §4.1); what came with the SYN may still be read.
            IcmpKind::Problem { cause, .. } if waits && subflow.synack.is_some() => {
                cx.counters.tcp_attempt_fails += 1;
                return self.fail(cx, cause.into(), None);
            }
            // RFC 1122 §4.2.3.9, RFC 5461: none of them ends a connection that was established, but when it times out
            // the application is told why.
            IcmpKind::Problem { cause, disrupted } => {
                subflow.soft_error = Some(cause);
                if disrupted {
                    subflow.snd.revert_backoff(cx.now, pos);
                }
            }
        }
        self.settle(cx);
    }

    /// In SYN-SENT and SYN-RECEIVED an error ends the attempt: there may be another address to try (RFC 5461 §4.1,
    /// and so does the kernel).
    fn on_opening_icmp(&mut self, cx: &mut Cx<'_>, at: usize, error: &IcmpError) {
        if !self.openings[at].is_under_way(error.seq) {
            cx.counters.out_of_window_icmps += 1;
            return;
        }
        match error.kind {
            IcmpKind::TooBig { mtu } => {
                let opening = &mut self.openings[at];
                if let Some(pmtu) = Pmtu::told(cx.now, mtu, &opening.tuple, (opening.link.mtu, false), &cx.config.pmtu)
                {
                    cx.pmtus.learn(error.tuple.remote.ip(), pmtu);
                    opening.on_too_big(pmtu.mtu);
                }
            }
            IcmpKind::Problem { cause, .. } => {
                self.opening_failed(cx, at, cause.into(), false);
                self.settle(cx);
            }
        }
    }
}
