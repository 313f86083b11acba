//! Data in the SYN, sent and received (RFC 7413; RFC 8684 appendix B).
//!
//! What the peer took of a SYN's data is the beginning of the stream. MPTCP does not number it: the initial data sequence
//! number is that of the first byte after it.

use anabranch_frame::{Instant, Payload, Transmit};

use crate::info::TcpState;
use crate::options::SocketOptions;
use crate::pm::RemoteAddr;
use crate::sched::SchedEvent;
use crate::shard::{Event, Heard, Offer, Slot, SynEntry, SynKind};
use crate::tcp::{FastOpened, FastSyn, Opening, Subflow, reset_for, told_mss};
use crate::wire::{Flags, MpCapable, MptcpOption, OPTIONS_MAX, OptionWriter, Segment};
use crate::{Error, FallbackReason};

use super::conn::{Conn, Cx, Stage};
use super::nagle::Follows;
use super::{Joined, Key, Mode, Mp};

/// Bytes of options on a SYN besides Fast Open and MPTCP.
const SYN_OPTIONS: usize = 20;

/// How an active open makes use of Fast Open.
#[derive(Debug)]
pub(crate) enum Fast {
    /// The SYN goes at once, with the first of these bytes.
    With(Payload),
    /// The SYN waits for the first bytes to be written.
    Deferred,
}

/// MPTCP of a passive Fast Open: the peer's key comes with the third ACK.
pub(crate) fn fast_mode(local: Key, deny_join_initial: bool) -> Mode {
    let mut mp = Mp::new(local, None);
    mp.deny_join_initial = deny_join_initial;
    Mode::Mptcp(mp)
}

impl Conn {
    // --- client -----------------------------------------------------------------------------------

    /// Decides what the first SYN carries. Returns how many bytes of data it took.
    pub(super) fn prepare_fast(&mut self, cx: &mut Cx<'_>, fast: Fast, options: &SocketOptions) -> usize {
        let mptcp = self.mp().map_or(0, |_| OptionWriter::mptcp_len(&capable_offer()));
        let Some(opening) = self.openings.first_mut() else { return 0 };
        let config = &cx.config.handshake.fastopen;
        let offer = cx.fastopens.offer(cx.now, config, options.fastopen_no_cookie, &opening.tuple);
        let (Offer::Data(option, _) | Offer::Request(option)) = offer;
        if SYN_OPTIONS + mptcp + option.map_or(0, |option| option.wire_len()) > OPTIONS_MAX {
            return 0;
        }
        let room = match offer {
            // Middleboxes may add options: room for all of them is left (as Linux does).
            Offer::Data(_, mss) => {
                let mss = mss.unwrap_or(u16::MAX).min(opening.local.mss).min(opening.link.mss(&opening.tuple));
                mss.saturating_sub(OPTIONS_MAX as u16)
            }
            Offer::Request(_) => 0,
        };
        opening.fast = Some(FastSyn { option, room, data: 0 });
        match fast {
            Fast::Deferred if matches!(offer, Offer::Data(..)) => {
                opening.defer();
                self.tell(cx, Event::Connected(self.id));
                0
            }
            Fast::Deferred => 0,
            Fast::With(data) => {
                let taken = data.len().min(usize::from(room));
                self.stats.bytes_written += taken as u64;
                self.tx.push(data.slice(0..taken), cx.copies);
                self.nagle.on_write(Follows::Nothing, self.tx.end());
                taken
            }
        }
    }

    /// Bytes that may be written before there is a connection: what goes with the SYN.
    pub(super) fn deferred_room(&self) -> u64 {
        let deferred = self.openings.first().filter(|opening| opening.is_deferred());
        let room = deferred.and_then(|opening| opening.fast).map_or(0, |fast| u64::from(fast.room));
        room.saturating_sub(self.tx.queued())
    }

    /// The application writes before there is a connection: a SYN that waited for that goes now.
    ///
    /// # Errors
    /// [`Error::InProgress`] if no data may be written yet.
    pub(super) fn begin_deferred(&mut self, now: Instant) -> Result<(), Error> {
        let opening = self.openings.first_mut().ok_or(Error::InProgress)?;
        if opening.is_deferred() {
            opening.begin(now);
        }
        if opening.fast.is_some_and(|fast| fast.room > 0) { Ok(()) } else { Err(Error::InProgress) }
    }

    /// Changes how often the SYN is repeated.
    pub(crate) fn set_syn_retries(&mut self, retries: u8) {
        for opening in &mut self.openings {
            opening.set_retries(retries);
        }
    }

    /// The peer's SYN/ACK came, and acknowledges `acked` bytes of our SYN: what that means for this connection and the
    /// next ones (RFC 7413 §4.2.1). What is not acknowledged goes out as if it had never been sent.
    pub(super) fn finish_fast_syn(
        &mut self,
        cx: &mut Cx<'_>,
        opening: &Opening,
        acked: u16,
        segment: &Segment,
    ) -> FastOpened {
        let Some(FastSyn { option, data, .. }) = opening.fast else { return FastOpened::default() };
        if option.is_none() && data == 0 {
            return FastOpened::default();
        }
        let heard = Heard {
            mss: told_mss(segment),
            cookie: segment.options.fast_open,
            asked: option,
            data: data > 0,
            unacked: acked < data,
            repeated: opening.transmissions() > 1,
        };
        cx.fastopens.learn(cx.now, &opening.tuple, &heard);
        let syn_data = data > 0 && acked == data;
        self.stats.syn_data = syn_data;
        cx.counters.tcp_fastopen_active += u64::from(syn_data);
        cx.counters.tcp_fastopen_active_fail += u64::from(acked < data);
        if acked < data {
            self.nagle.on_syn_data_refused(data.into());
        }
        let bytes = u64::from(acked);
        self.tx.assign(0..bytes);
        self.tx.ack(bytes);
        self.stats.bytes_sent += bytes;
        if let Some(mp) = self.mp_mut() {
            mp.local.idsn = mp.local.idsn.wrapping_sub(bytes);
        }
        FastOpened { asked: option.is_some(), syn_data, sent: acked, received: 0, refused: data - acked }
    }

    // --- server -----------------------------------------------------------------------------------

    /// The first subflow of a passive open, by its SYN alone. Returns the SYN/ACK.
    pub(crate) fn accept_fast(
        &mut self,
        cx: &mut Cx<'_>,
        joined: &Joined,
        mut entry: SynEntry,
        segment: &Segment,
    ) -> Transmit {
        let start = self.passive_start(joined);
        let id = start.id;
        let mut subflow = cx.subflow(start);
        subflow.state = TcpState::SynReceived;
        self.peer_edge = joined.negotiated.window;
        self.peer_window = self.peer_edge;
        self.subflows.push(subflow);
        self.stage = Stage::Open;
        cx.table.insert(joined.tuple, Slot::Conn(self.id.index(), id));
        self.scheduler.on_event(&SchedEvent::Up(id));
        self.tune_send_buffer();
        if !segment.payload.is_empty() {
            self.on_syn_payload(cx, 0, segment);
        }
        let subflow = &mut self.subflows[0];
        let taken = (subflow.rcv.nxt() - 1) as u16;
        subflow.fast.received = taken;
        subflow.fast.syn_data = taken > 0 && usize::from(taken) == segment.payload.len();
        self.stats.syn_data = subflow.fast.syn_data;
        entry.taken = taken;
        let answer = entry.synack(cx.now, cx.config.recovery.rto_max);
        subflow.rcv.on_ack_sent(u64::from(entry.window));
        subflow.synack = alloc::boxed::Box::new(entry).into();
        self.settle(cx);
        answer
    }

    /// SYN-RECEIVED of a connection that exists already: what RFC 9293 §3.10.7.4 wants checked there and nowhere else.
    /// False if the segment is dealt with.
    pub(super) fn in_syn_received(&mut self, cx: &mut Cx<'_>, at: usize, segment: &Segment) -> bool {
        let subflow = &mut self.subflows[at];
        let Some(synack) = &mut subflow.synack else { return true };
        if segment.flags.has(Flags::RST) {
            synack.refused = true;
            return true;
        }
        if segment.flags.has(Flags::SYN) && !segment.flags.has(Flags::ACK) && segment.seq == synack.negotiated.irs {
            if synack.may_repeat(cx.now, cx.guard) {
                self.parting.push_back(synack.synack(cx.now, cx.config.recovery.rto_max));
                cx.counters.tcp_retrans_segs += 1;
            }
            return false;
        }
        let is_mptcp = synack.is_mptcp();
        if !segment.flags.has(Flags::ACK) {
            return true;
        }
        if subflow.ack_pos(segment.ack).is_none_or(|pos| pos < 1 || pos > subflow.snd.nxt()) {
            cx.counters.tcp_out_rsts += 1;
            self.parting.extend(reset_for(segment, None));
            return false;
        }
        let overtook = is_mptcp && sender_key(segment).is_none() && has_dss(segment);
        // The third ACK got lost or late, and only it has the client's key. It comes again with our next SYN/ACK.
        cx.counters.tcp_out_of_window += u64::from(overtook);
        !overtook
    }

    /// The SYN/ACK is acknowledged: the client is where it says it is.
    pub(super) fn finish_fast(&mut self, cx: &mut Cx<'_>, at: usize, segment: &Segment) {
        let subflow = &mut self.subflows[at];
        let Some(synack) = subflow.synack.take() else { return };
        if let Some(rtt) = synack.rtt(cx.now) {
            subflow.snd.seed_rtt(rtt);
        }
        subflow.transition();
        let received = subflow.fast.received;
        let remote = subflow.tuple.remote;
        let SynKind::New { listener, .. } = synack.kind else { return };
        cx.fastopens.settled(cx.now, listener.number(), false);
        cx.counters.tcp_curr_estab += 1;
        cx.counters.tcp_passive_opens += 1;
        let Some(mp) = self.mp_mut() else { return };
        match sender_key(segment) {
            Some(capable) if capable.receiver_key == Some(mp.local.key) => {
                mp.remote = capable.sender_key.map(|key| {
                    let key = Key::new(key);
                    Key { idsn: key.idsn.wrapping_sub(u64::from(received)), ..key }
                });
                mp.remotes.push(RemoteAddr { id: 0, addr: remote });
                mp.deny_join_initial |= capable.deny_join_initial;
                self.report_created(cx);
                cx.counters.mp_capable_ack_rx += 1;
                self.become_fully_established(cx);
            }
            _ => {
                cx.counters.mp_capable_fallback_ack += 1;
                self.fall_back(cx, FallbackReason::AckNoCapable);
            }
        }
    }

    /// Repeats the SYN/ACK when it is due. False if the connection has been given up.
    pub(super) fn on_synack_timer(&mut self, cx: &mut Cx<'_>, at: usize) -> bool {
        let Some(synack) = &mut self.subflows[at].synack else { return true };
        if synack.deadline() > cx.now {
            return true;
        }
        // Linux: one more than for others, since there is an application that waits.
        if synack.exhausted(cx.config.handshake.synack_retries.saturating_add(1)) {
            cx.counters.tcp_abort_on_timeout += 1;
            self.fail(cx, Error::TimedOut, None);
            return false;
        }
        self.parting.push_back(synack.synack(cx.now, cx.config.recovery.rto_max));
        cx.counters.tcp_retrans_segs += 1;
        true
    }

    // --- both -------------------------------------------------------------------------------------

    /// What a subflow's end tells about Fast Open.
    pub(super) fn note_fast_end(&self, cx: &mut Cx<'_>, subflow: &Subflow) {
        if let Some(synack) = &subflow.synack
            && let SynKind::New { listener, .. } = synack.kind
        {
            cx.fastopens.settled(cx.now, listener.number(), synack.refused);
        }
        if subflow.fast.asked {
            // Nothing but the end arrived: what stood before it was swallowed.
            if subflow.bytes_received == 0 && subflow.rcv.fin_waits() {
                cx.fastopens.note_swallowed(cx.now, &cx.config.handshake.fastopen, cx.counters);
            } else if subflow.bytes_received > 0 {
                cx.fastopens.note_well();
            }
        }
    }
}

fn capable_offer() -> MptcpOption {
    MptcpOption::Capable(MpCapable::offer(None, None, None))
}

/// The MP_CAPABLE with the client's key.
fn sender_key(segment: &Segment) -> Option<&MpCapable> {
    segment.options.mptcp.iter().find_map(|option| match option {
        MptcpOption::Capable(capable) if capable.sender_key.is_some() => Some(capable),
        _ => None,
    })
}

fn has_dss(segment: &Segment) -> bool {
    segment.options.mptcp.iter().any(|option| matches!(option, MptcpOption::Dss(_)))
}
