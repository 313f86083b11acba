//! The active side of a handshake: SYN-SENT, and SYN-RECEIVED after a simultaneous open.
//!
//! The passive side is the SYN queue of the shard, which is lighter: see `shard::listen`.

use core::time::Duration;

use anabranch_frame::{Instant, Transmit};

use crate::config::Offers;
use crate::sched::SubflowId;
use crate::wire::{FastOpen, Flags, IpOut, Segment, SeqNum, Tuple, ecn};

use super::{BareAck, EcnWish, Guard, Half, HalfOpen, IpOptions, Link, flow_label};

/// First SYN timeout (RFC 6298 §2); doubled for each retransmission.
pub(crate) const SYN_TIMEOUT: Duration = Duration::from_secs(1);
/// The timeout is doubled so often at most.
const DOUBLED_MAX: u8 = 7;
/// MSS of a peer that does not say (RFC 9293 §3.7.1), by family.
pub(crate) const DEFAULT_MSS_V4: u16 = 536;
pub(crate) const DEFAULT_MSS_V6: u16 = 1220;
/// Window scales beyond this are read as this (RFC 7323 §2.3).
const SCALE_MAX: u8 = 14;

/// How often, and how soon, an unanswered SYN is sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Retries {
    /// Retransmissions a second apart (Linux: `tcp_syn_linear_timeouts`)…
    pub(crate) linear: u8,
    /// …before these, whose timeout doubles.
    pub(crate) doubling: u8,
}

impl Retries {
    fn most(self) -> u8 {
        self.linear.saturating_add(self.doubling)
    }

    /// Whether a peer was asked often enough, or for as long as the doubling ones alone would take (Linux:
    /// `tcp_write_timeout`).
    fn are_over(self, transmissions: u8, spent: Duration) -> bool {
        transmissions > self.most() || spent >= SYN_TIMEOUT * ((2 << self.doubling.min(30)) - 1)
    }

    /// How long the answer to a SYN is waited for that went out `before` times before.
    fn timeout(self, before: u8) -> Duration {
        SYN_TIMEOUT * (1 << before.saturating_sub(self.linear).min(DOUBLED_MAX))
    }
}

/// How long the answer to a SYN/ACK is waited for that went out `before` times before, `longest` at most.
pub(crate) fn synack_timeout(before: u8, longest: Duration) -> Duration {
    Retries { linear: 0, doubling: 0 }.timeout(before).min(longest)
}

/// Fast Open of an active open (RFC 7413 §4.2): what the first SYN carries, and no other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FastSyn {
    /// A cookie, or the request for one.
    pub(crate) option: Option<FastOpen>,
    /// Bytes of data that may go with it.
    pub(crate) room: u16,
    /// Bytes of data that went with it.
    pub(crate) data: u16,
}

/// What we put on a SYN or SYN/ACK.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local {
    pub(crate) mss: u16,
    pub(crate) scale: u8,
    /// We ask for ECN, or take part if asked.
    pub(crate) ecn: EcnWish,
    /// For the IP headers of all packets.
    pub(crate) ip: IpOptions,
    pub(crate) offers: Offers,
}

/// What the two SYNs settled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Negotiated {
    pub(crate) iss: SeqNum,
    pub(crate) irs: SeqNum,
    /// What we told the peer of our MSS, without options.
    pub(crate) own_mss: u16,
    /// The peer's MSS, without options.
    pub(crate) peer_mss: u16,
    pub(crate) snd_scale: u8,
    pub(crate) rcv_scale: u8,
    /// Both sides sent the window scale option.
    pub(crate) scaled: bool,
    pub(crate) sack: bool,
    /// Both sides take part in ECN.
    pub(crate) ecn: bool,
    /// The peer's timestamp, if both sides use the option.
    pub(crate) ts_recent: Option<u32>,
    /// The peer's window in bytes.
    pub(crate) window: u64,
    /// Round-trip time of the handshake, if nothing was retransmitted.
    pub(crate) rtt: Option<Duration>,
}

impl Negotiated {
    /// From the peer's SYN or SYN/ACK and what we offer.
    pub(crate) fn new(iss: SeqNum, local: Local, syn: &Segment, rtt: Option<Duration>) -> Self {
        let options = &syn.options;
        let scaled = options.window_scale.is_some() && local.offers.window_scaling;
        Self {
            iss,
            irs: syn.seq,
            own_mss: local.mss,
            peer_mss: told_mss(syn).max(64),
            snd_scale: options.window_scale.filter(|_| scaled).unwrap_or(0).min(SCALE_MAX),
            rcv_scale: if scaled { local.scale } else { 0 },
            scaled,
            sack: options.sack_permitted && local.offers.sack,
            ecn: takes_part(syn, local.ecn),
            ts_recent: options.timestamps.filter(|_| local.offers.timestamps).map(|ts| ts.value),
            window: u64::from(syn.window),
            rtt,
        }
    }

    /// Flags of the SYN/ACK.
    pub(crate) fn synack_flags(&self) -> Flags {
        let synack = Flags::SYN.with(Flags::ACK);
        if self.ecn { synack.with(Flags::ECE) } else { synack }
    }
}

/// The MSS that a SYN tells, or what holds without.
pub(crate) fn told_mss(syn: &Segment) -> u16 {
    let default = if syn.tuple.local.is_ipv4() { DEFAULT_MSS_V4 } else { DEFAULT_MSS_V6 };
    syn.options.mss.unwrap_or(default)
}

/// Whether a SYN asks for ECN, or a SYN/ACK agrees to it (RFC 3168 §6.1.1). One that reflects both flags is none that
/// agrees, and a SYN must not be ECN-capable itself: somebody in between writes what he likes.
fn takes_part(syn: &Segment, wish: EcnWish) -> bool {
    let (ece, cwr) = (syn.flags.has(Flags::ECE), syn.flags.has(Flags::CWR));
    let capable = syn.ecn != ecn::NOT_ECT && wish != EcnWish::Accurate;
    wish != EcnWish::No && if syn.flags.has(Flags::ACK) { ece && !cwr } else { ece && cwr && !capable }
}

/// What an active open asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Want {
    /// Plain TCP.
    Plain,
    /// A new MPTCP connection.
    Capable,
    /// A further subflow.
    Join {
        /// The peer's token.
        token: u32,
        /// Our random number.
        nonce: u32,
    },
}

#[derive(Clone, Copy, Debug)]
enum State {
    SynSent,
    SynReceived(Negotiated),
}

/// What a segment means to a subflow that is being opened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Disposition {
    /// Nothing.
    Ignore,
    /// Not for this incarnation: reset it. `paws` if its timestamps show that.
    Reset {
        /// It echoes a timestamp that we never sent.
        paws: bool,
    },
    /// The peer refused.
    Refused,
    /// Both sides opened at once: a SYN/ACK is to be sent.
    SynReceived,
    /// It does not fit: an [`ack`](Opening::ack) shows where we stand.
    Answer,
    /// Done; `simultaneous` if by crossing SYNs.
    Established {
        /// What was settled.
        negotiated: Negotiated,
        /// The segment was the peer's SYN/ACK, with the MPTCP options of one.
        synack: bool,
        /// Bytes in our SYN that it acknowledges.
        acked: u16,
    },
}

/// A subflow that we are opening.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) id: SubflowId,
    pub(crate) tuple: Tuple,
    pub(crate) link: Link,
    pub(crate) iss: SeqNum,
    pub(crate) ts_offset: u32,
    pub(crate) local: Local,
    pub(crate) want: Want,
    pub(crate) local_id: u8,
    pub(crate) remote_id: u8,
    pub(crate) backup: bool,
    pub(crate) fast: Option<FastSyn>,
    /// The window that our SYN told, in bytes.
    pub(crate) told_window: u16,
    was_deferred: bool,
    retries: Retries,
    state: State,
    transmissions: u8,
    first_sent: Option<Instant>,
    sent_at: Option<Instant>,
    /// When a segment that did not fit was last answered.
    last_oow_ack: Option<Instant>,
    deadline: Instant,
    due: bool,
}

impl Opening {
    #[allow(clippy::too_many_arguments)] // one call site a role, all of them plain values
    pub(crate) fn new(
        now: Instant,
        id: SubflowId,
        tuple: Tuple,
        link: Link,
        iss: SeqNum,
        ts_offset: u32,
        local: Local,
        want: Want,
        retries: Retries,
    ) -> Self {
        Self {
            id,
            tuple,
            link,
            iss,
            ts_offset,
            local,
            want,
            local_id: 0,
            remote_id: 0,
            backup: false,
            fast: None,
            told_window: 0,
            was_deferred: false,
            retries,
            state: State::SynSent,
            transmissions: 0,
            first_sent: None,
            last_oow_ack: None,
            sent_at: None,
            deadline: now,
            due: true,
        }
    }

    /// Whether a SYN (or SYN/ACK) is to be sent now.
    pub(crate) fn due(&self) -> bool {
        self.due
    }

    /// The SYN waits for the application's first data.
    pub(crate) fn defer(&mut self) {
        self.due = false;
        self.was_deferred = true;
    }

    /// Whether the SYN waited for data: the application was told that it is connected then.
    pub(crate) fn was_deferred(&self) -> bool {
        self.was_deferred
    }

    /// Whether nothing was sent, nor is to be sent before the application says so.
    pub(crate) fn is_deferred(&self) -> bool {
        !self.due && self.transmissions == 0
    }

    /// The SYN goes now.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.due = true;
        self.deadline = now;
    }

    /// The path's MTU is another one. A SYN whose data does not fit any more goes once more, without it, at once.
    pub(crate) fn on_mtu(&mut self) {
        self.local.mss = self.local.mss.min(self.link.mss(&self.tuple));
        let data = self.fast.map_or(0, |fast| fast.data);
        self.due |= matches!(self.state, State::SynSent) && self.transmissions == 1 && data > self.local.mss;
    }

    /// A router says that the path takes no more than `mtu` bytes. A SYN with data goes once more at once, without it: it
    /// cannot have arrived (Linux: `tcp_simple_retransmit`).
    pub(crate) fn on_too_big(&mut self, mtu: u16) {
        let mtu = mtu.min(self.link.mtu);
        self.local.mss = self.local.mss.min(Link { mtu, ..self.link }.mss(&self.tuple));
        let data = self.fast.is_some_and(|fast| fast.data > 0);
        self.due |= matches!(self.state, State::SynSent) && self.transmissions == 1 && data;
    }

    /// Changes how often the SYN is repeated with a doubling timeout.
    pub(crate) fn set_retries(&mut self, doubling: u8) {
        self.retries.doubling = doubling;
    }

    /// What stands on the segment to send: a SYN, or a SYN/ACK with the peer's sequence number.
    pub(crate) fn answers(&self) -> Option<Negotiated> {
        match self.state {
            State::SynSent => None,
            State::SynReceived(negotiated) => Some(negotiated),
        }
    }

    /// Flags of the segment to send. A SYN that was not answered is repeated without ECN where `fallback` says so: a
    /// middlebox may drop those that ask for it (RFC 3168 §6.1.1.1).
    pub(crate) fn flags(&self, fallback: bool) -> Flags {
        match self.state {
            State::SynSent if self.local.ecn != EcnWish::No && !(fallback && self.transmissions > 0) => {
                Flags::SYN.with(Flags::ECE).with(Flags::CWR)
            }
            State::SynSent => Flags::SYN,
            State::SynReceived(negotiated) => negotiated.synack_flags(),
        }
    }

    /// The IP header of the next SYN. Each has another flow label: the path of the last one may not work.
    pub(crate) fn ip_out(&self) -> IpOut {
        self.local.ip.out(flow_label(self.iss, u32::from(self.transmissions)), self.local.ecn.codepoint())
    }

    /// Whether `seq` is that of our SYN, and that went out.
    pub(crate) fn is_under_way(&self, seq: SeqNum) -> bool {
        self.transmissions > 0 && seq == self.iss
    }

    /// How often the SYN went out.
    pub(crate) fn transmissions(&self) -> u8 {
        self.transmissions
    }

    /// When to look again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (!self.is_deferred()).then_some(self.deadline)
    }

    /// It was sent.
    pub(crate) fn on_sent(&mut self, now: Instant) {
        self.due = false;
        self.sent_at = Some(now);
        self.first_sent.get_or_insert(now);
        self.deadline = now + self.retries.timeout(self.transmissions);
        self.transmissions = self.transmissions.saturating_add(1);
    }

    /// Time passed. Returns false when the peer was asked often enough.
    pub(crate) fn on_timer(&mut self, now: Instant) -> bool {
        if self.due || self.is_deferred() || now < self.deadline {
            return true;
        }
        self.due = true;
        let spent = self.first_sent.map_or(Duration::ZERO, |first| now.saturating_since(first));
        !self.retries.are_over(self.transmissions, spent)
    }

    /// Bytes in our SYN that an acknowledgement covers; `None` if it acknowledges what was never sent, or nothing.
    fn acked(&self, ack: SeqNum) -> Option<u16> {
        let data = self.fast.map_or(0, |fast| fast.data);
        let acked = u16::try_from(ack.distance(self.iss.add(1))).ok()?;
        (acked <= data).then_some(acked)
    }

    /// Whether the SYN/ACK echoes a timestamp that was on none of our SYNs: it answers those of another connection.
    fn echoes_another(&self, now: Instant, segment: &Segment) -> bool {
        let (Some(ts), Some(first)) = (segment.options.timestamps, self.first_sent) else { return false };
        let clock = |at: Instant| (at.as_millis() as u32).wrapping_add(self.ts_offset);
        let most = clock(now).wrapping_sub(clock(first));
        ts.echo != 0 && ts.echo.wrapping_sub(clock(first)) > most
    }

    /// RFC 9293 §3.10.7.3 (SYN-SENT) and §3.10.7.4 (SYN-RECEIVED).
    pub(crate) fn on_segment(&mut self, now: Instant, segment: &Segment, guard: &Guard) -> Disposition {
        match self.state {
            State::SynSent => self.in_syn_sent(now, segment),
            State::SynReceived(negotiated) => self.in_syn_received(now, negotiated, segment, guard),
        }
    }

    fn in_syn_sent(&mut self, now: Instant, segment: &Segment) -> Disposition {
        let acks = segment.flags.has(Flags::ACK);
        if self.transmissions == 0 {
            // Nothing was sent yet: whatever this is, it does not answer us.
            return Disposition::Ignore;
        }
        let acked = if acks { self.acked(segment.ack) } else { Some(0) };
        let Some(acked) = acked else {
            let rst = segment.flags.has(Flags::RST);
            return if rst { Disposition::Ignore } else { Disposition::Reset { paws: false } };
        };
        if acks && self.echoes_another(now, segment) {
            return Disposition::Reset { paws: true };
        }
        if segment.flags.has(Flags::RST) {
            return if acks { Disposition::Refused } else { Disposition::Ignore };
        }
        if !segment.flags.has(Flags::SYN) {
            return Disposition::Ignore;
        }
        let rtt = (self.transmissions == 1).then(|| self.sent_at.map(|at| now.saturating_since(at))).flatten();
        let negotiated = Negotiated::new(self.iss, self.local, segment, rtt);
        if acks {
            return Disposition::Established { negotiated, synack: true, acked };
        }
        self.state = State::SynReceived(negotiated);
        self.due = true;
        Disposition::SynReceived
    }

    fn in_syn_received(
        &mut self,
        now: Instant,
        negotiated: Negotiated,
        segment: &Segment,
        guard: &Guard,
    ) -> Disposition {
        let acked = self.acked(segment.ack);
        let half = HalfOpen {
            negotiated: &negotiated,
            window: self.told_window,
            acked: acked.is_some(),
            last_answer: &mut self.last_oow_ack,
        };
        match half.check(now, segment, guard) {
            Half::Ignore | Half::Skip => Disposition::Ignore,
            Half::Repeat => {
                self.due = true;
                Disposition::Ignore
            }
            // An active open has no LISTEN to return to: the SYN is questioned (RFC 5961 §4.2).
            Half::Answer { .. } | Half::Restart => Disposition::Answer,
            Half::Reset => Disposition::Reset { paws: false },
            Half::Refused => Disposition::Refused,
            Half::Finish => {
                let scale = if segment.flags.has(Flags::SYN) { 0 } else { negotiated.snd_scale };
                let negotiated = Negotiated { window: u64::from(segment.window) << scale, ..negotiated };
                Disposition::Established { negotiated, synack: false, acked: acked.unwrap_or(0) }
            }
        }
    }

    /// An ACK that shows the peer where we stand, in SYN-RECEIVED.
    pub(crate) fn ack(&self, now: Instant) -> Option<Transmit> {
        let negotiated = self.answers()?;
        let ack = BareAck {
            tuple: self.tuple,
            link: self.link,
            seq: self.iss.add(1),
            ack: negotiated.irs.add(1),
            window: self.told_window >> negotiated.rcv_scale,
            timestamps: negotiated.ts_recent.map(|echo| (self.ts_offset, echo)),
            ip: self.ip_out(),
        };
        Some(ack.transmit(now))
    }
}
