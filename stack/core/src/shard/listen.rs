//! Listeners and the SYN queue: the passive side of a handshake, lighter than a connection.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use core::net::SocketAddr;
use core::time::Duration;

use anabranch_frame::{Instant, Transmit};
use slab::Slab;

use crate::Error;
use crate::mptcp::Key;
use crate::options::SocketOptions;
use crate::tcp::{
    Backup, BareAck, Guard, Half, HalfOpen, Link, Local, Negotiated, flow_label, syn_options, synack_timeout,
};
use crate::wire::{FastOpen, Flags, IpOut, MpCapable, MpJoin, MptcpOption, Segment, SegmentOut, Tuple, ecn};

use super::{ConnId, Gone, ListenerId};

/// A listening socket of this worker.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) local: SocketAddr,
    pub(crate) backlog: usize,
    pub(crate) options: Arc<SocketOptions>,
    /// Established, not yet accepted.
    pub(crate) accepted: VecDeque<ConnId>,
}

impl Listener {
    /// Whether no more connections may wait to be accepted; as in Linux, one more than the backlog says.
    pub(crate) fn is_full(&self) -> bool {
        self.accepted.len() > self.backlog
    }
}

/// All listeners of this worker.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    entries: BTreeMap<u32, Listener>,
    next: u32,
}

impl Listeners {
    pub(crate) fn insert(&mut self, listener: Listener) -> Result<ListenerId, Error> {
        if self.entries.values().any(|known| known.local == listener.local) {
            return Err(Error::AddrInUse(listener.local));
        }
        let id = self.next;
        self.next += 1;
        self.entries.insert(id, listener);
        Ok(ListenerId(id))
    }

    pub(crate) fn get(&self, id: ListenerId) -> Option<&Listener> {
        self.entries.get(&id.0)
    }

    pub(crate) fn get_mut(&mut self, id: ListenerId) -> Option<&mut Listener> {
        self.entries.get_mut(&id.0)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = ListenerId> {
        self.entries.keys().map(|id| ListenerId(*id))
    }

    /// Whether a connection waits to be accepted.
    pub(crate) fn holds(&self, conn: ConnId) -> bool {
        self.entries.values().any(|listener| listener.accepted.contains(&conn))
    }

    pub(crate) fn remove(&mut self, id: ListenerId) -> Option<Listener> {
        self.entries.remove(&id.0)
    }

    /// The listener for a destination: an exact address goes before the unspecified one.
    pub(crate) fn find(&self, local: SocketAddr) -> Option<ListenerId> {
        let matching = |listener: &Listener| {
            let same_family = listener.local.is_ipv4() == local.is_ipv4();
            listener.local.port() == local.port()
                && same_family
                && (listener.local.ip() == local.ip() || listener.local.ip().is_unspecified())
        };
        self.entries
            .iter()
            .filter(|(_, listener)| matching(listener))
            .min_by_key(|(_, listener)| listener.local.ip().is_unspecified())
            .map(|(id, _)| ListenerId(*id))
    }
}

/// What a half-open connection will become.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SynKind {
    /// A connection of a listener; with our key if the peer offered MPTCP and we take it.
    New {
        listener: ListenerId,
        key: Option<Key>,
        deny_join_initial: bool,
        /// We say that joins may not come to this address and port.
        denies_join: bool,
        /// One of the two sides wants DSS checksums.
        checksum: bool,
    },
    /// A subflow of a connection.
    Join {
        conn: ConnId,
        /// Our HMAC on the SYN/ACK.
        hmac: u64,
        nonce: u32,
        peer_nonce: u32,
        local_id: u8,
        remote_id: u8,
        backup: Backup,
    },
}

/// A half-open connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SynEntry {
    pub(crate) tuple: Tuple,
    pub(crate) link: Link,
    pub(crate) local: Local,
    pub(crate) negotiated: Negotiated,
    pub(crate) ts_offset: u32,
    pub(crate) kind: SynKind,
    /// A cookie for the client.
    pub(crate) fast_open: Option<FastOpen>,
    /// What was taken of the SYN's data, in sequence numbers.
    pub(crate) taken: u16,
    pub(crate) window: u16,
    /// The peer reset it: it may never have asked.
    pub(crate) refused: bool,
    /// When a segment that did not fit was last answered.
    last_oow_ack: Option<Instant>,
    /// The third ACK came, but the listener waits for data.
    acked: bool,
    transmissions: u8,
    sent_at: Instant,
    deadline: Instant,
}

/// So many timeouts of the SYN/ACK a listener waits for data (Linux: `rskq_defer_accept`).
fn deferrals(defer_accept: Duration) -> u8 {
    let mut waited = Duration::ZERO;
    (0..u8::MAX)
        .find(|n| {
            let enough = waited >= defer_accept;
            waited += synack_timeout(*n, Duration::MAX);
            enough
        })
        .unwrap_or(u8::MAX)
}

impl SynEntry {
    #[allow(clippy::too_many_arguments)] // one call site, all of them plain values
    pub(crate) fn new(
        now: Instant,
        tuple: Tuple,
        link: Link,
        local: Local,
        negotiated: Negotiated,
        ts_offset: u32,
        kind: SynKind,
        window: u16,
    ) -> Self {
        Self {
            tuple,
            link,
            local,
            negotiated,
            ts_offset,
            kind,
            fast_open: None,
            taken: 0,
            window,
            refused: false,
            last_oow_ack: None,
            acked: false,
            transmissions: 0,
            sent_at: now,
            deadline: now,
        }
    }

    fn is_join(&self) -> bool {
        matches!(self.kind, SynKind::Join { .. })
    }

    /// Whether it shall become an MPTCP connection.
    pub(crate) fn is_mptcp(&self) -> bool {
        matches!(self.kind, SynKind::New { key: Some(_), .. })
    }

    /// The peer's SYN came again without MP_CAPABLE: our answers with it did not get through.
    pub(crate) fn forgo_mptcp(&mut self) {
        if let SynKind::New { key, .. } = &mut self.kind {
            *key = None;
        }
    }

    /// What a segment means here.
    pub(crate) fn check(&mut self, now: Instant, segment: &Segment, guard: &Guard) -> Half {
        let acked = segment.ack == self.negotiated.iss.add(1);
        let (negotiated, last_answer) = (&self.negotiated, &mut self.last_oow_ack);
        let half = HalfOpen { negotiated, window: self.window, acked, last_answer }.check(now, segment, guard);
        match half {
            // An ACK without MPTCP options would tell the peer that we do not speak it: the SYN/ACK's timer has to do.
            Half::Answer { .. } if self.is_mptcp() || self.is_join() => Half::Ignore,
            half => half,
        }
    }

    /// The IP header of the next SYN/ACK.
    fn ip_out(&self) -> IpOut {
        let codepoint = if self.negotiated.ecn { self.local.ecn.codepoint() } else { ecn::NOT_ECT };
        self.local.ip.out(flow_label(self.negotiated.iss, u32::from(self.transmissions)), codepoint)
    }

    /// An ACK that shows the peer where we stand.
    pub(crate) fn ack(&self, now: Instant) -> Transmit {
        let ack = BareAck {
            tuple: self.tuple,
            link: self.link,
            seq: self.negotiated.iss.add(1),
            ack: self.negotiated.irs.add(1),
            window: self.window >> self.negotiated.rcv_scale,
            timestamps: self.negotiated.ts_recent.map(|echo| (self.ts_offset, echo)),
            ip: self.ip_out(),
        };
        ack.transmit(now)
    }

    /// Whether the third ACK is to be dropped, since the listener waits for data that it does not have.
    pub(crate) fn defers(&mut self, defer_accept: Duration, segment: &Segment) -> bool {
        let waits = self.transmissions.saturating_sub(1) < deferrals(defer_accept);
        let defers = waits && segment.payload.is_empty() && !segment.flags.has(Flags::FIN);
        self.acked |= defers;
        defers
    }

    /// Time passed. Whether the SYN/ACK is to be sent once more: not while only data is waited for.
    pub(crate) fn repeats(&mut self, now: Instant, defer_accept: Duration, longest: Duration) -> bool {
        let again = !self.acked || self.transmissions >= deferrals(defer_accept);
        if !again {
            self.deadline = now + synack_timeout(self.transmissions, longest);
            self.transmissions = self.transmissions.saturating_add(1);
        }
        again
    }

    /// The SYN/ACK, counted as sent; its answer is waited for `longest` at most.
    pub(crate) fn synack(&mut self, now: Instant, longest: Duration) -> Transmit {
        let option = match self.kind {
            SynKind::New { key, checksum: checksum_required, denies_join: deny_join_initial, .. } => key.map(|key| {
                let offer = MpCapable::offer(Some(key.key), None, None);
                MptcpOption::Capable(MpCapable { checksum_required, deny_join_initial, ..offer })
            }),
            SynKind::Join { hmac, nonce, local_id, backup, .. } => {
                Some(MptcpOption::Join(MpJoin::SynAck { backup: backup.ours, addr_id: local_id, hmac, nonce }))
            }
        };
        // Only the first SYN/ACK has a cookie: what was lost may have been lost for the option.
        let fast_open = self.fast_open.as_ref().filter(|_| self.transmissions == 0);
        let options = syn_options(now, self.local, Some(&self.negotiated), self.ts_offset, fast_open, option.as_ref());
        let transmit = SegmentOut {
            tuple: self.tuple,
            seq: self.negotiated.iss,
            ack: self.negotiated.irs.add(1 + u32::from(self.taken)),
            flags: self.negotiated.synack_flags(),
            window: self.window,
            ip: self.ip_out(),
            options: &options,
            payload_len: 0,
        }
        .bare(self.link.path);

        self.sent_at = now;
        self.deadline = now + synack_timeout(self.transmissions, longest);
        self.transmissions = self.transmissions.saturating_add(1);
        transmit
    }

    /// Whether a repeated SYN is answered now.
    pub(crate) fn may_repeat(&mut self, now: Instant, guard: &Guard) -> bool {
        guard.admits(now, &mut self.last_oow_ack)
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the SYN/ACK was repeated often enough.
    pub(crate) fn exhausted(&self, retries: u8) -> bool {
        self.transmissions > retries
    }

    /// Round-trip time of the handshake, if the SYN/ACK went out once.
    pub(crate) fn rtt(&self, now: Instant) -> Option<Duration> {
        (self.transmissions == 1).then(|| now.saturating_since(self.sent_at))
    }
}

/// Half-open connections of this worker, bounded: those of listeners and joins each by themselves, so that a flood of
/// SYNs keeps no subflow from being joined.
#[derive(Debug)]
pub(crate) struct SynQueue {
    entries: Slab<SynEntry>,
    joins: usize,
    /// How many joins each connection has, by its place.
    joins_of: BTreeMap<u32, u8>,
    /// Those of listeners whose SYN/ACK was sent once.
    young: usize,
    most: usize,
}

impl SynQueue {
    pub(crate) fn new(most: usize) -> Self {
        Self { entries: Slab::new(), joins: 0, joins_of: BTreeMap::new(), young: 0, most }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &SynEntry)> {
        self.entries.iter().map(|(key, entry)| (key as u32, entry))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn of_listeners(&self) -> usize {
        self.entries.len() - self.joins
    }

    pub(crate) fn is_full(&self) -> bool {
        self.of_listeners() >= self.most
    }

    pub(crate) fn has_no_room_for_joins(&self) -> bool {
        self.joins >= self.most
    }

    /// The joins of the connection at this place that wait for their third ACK.
    pub(crate) fn joins_of(&self, conn: u32) -> u8 {
        self.joins_of.get(&conn).copied().unwrap_or(0)
    }

    /// How often a SYN/ACK is repeated: `most` times, less while more than half of the queue is in use, most of it by
    /// those that do not answer. Those make room then for younger ones (as in Linux).
    pub(crate) fn retries(&self, most: u8) -> u8 {
        let (mut retries, mut young) = (most, 2 * self.young);
        if 2 * self.of_listeners() > self.most.max(8) {
            while retries > 2 && self.of_listeners() >= young {
                retries -= 1;
                young *= 2;
            }
        }
        retries
    }

    pub(crate) fn insert(&mut self, entry: SynEntry) -> u32 {
        let join = matches!(entry.kind, SynKind::Join { .. });
        self.joins += usize::from(join);
        self.young += usize::from(!join);
        if let SynKind::Join { conn, .. } = entry.kind {
            *self.joins_of.entry(conn.index()).or_default() += 1;
        }
        self.entries.insert(entry) as u32
    }

    /// The SYN/ACK was sent once more.
    pub(crate) fn note_repeated(&mut self, key: u32) {
        if self.entries.get(key as usize).is_some_and(|entry| !entry.is_join() && entry.transmissions == 2) {
            self.young -= 1;
        }
    }

    pub(crate) fn get_mut(&mut self, key: u32) -> Option<&mut SynEntry> {
        self.entries.get_mut(key as usize)
    }

    pub(crate) fn remove(&mut self, key: u32) -> Option<SynEntry> {
        let entry = self.entries.try_remove(key as usize)?;
        self.joins -= usize::from(entry.is_join());
        if let SynKind::Join { conn, .. } = entry.kind
            && let Some(count) = self.joins_of.get_mut(&conn.index())
        {
            *count -= 1;
            if *count == 0 {
                self.joins_of.remove(&conn.index());
            }
        }
        self.young -= usize::from(!entry.is_join() && entry.transmissions < 2);
        Some(entry)
    }

    /// The half-open connections on a path or an address that is gone.
    pub(crate) fn taken_by(&self, gone: &Gone<'_>) -> alloc::vec::Vec<u32> {
        let taken = |entry: &SynEntry| gone.takes(entry.link.path, entry.tuple.local.ip());
        self.entries.iter().filter(|(_, entry)| taken(entry)).map(|(key, _)| key as u32).collect()
    }

    /// The half-open connections of a listener.
    pub(crate) fn of_listener(&self, id: ListenerId) -> alloc::vec::Vec<u32> {
        self.entries
            .iter()
            .filter(|(_, entry)| matches!(entry.kind, SynKind::New { listener, .. } if listener == id))
            .map(|(key, _)| key as u32)
            .collect()
    }
}

/// The MP_CAPABLE of a SYN that we can speak.
pub(crate) fn capable_syn(segment: &Segment) -> Option<&MpCapable> {
    segment.options.mptcp.iter().find_map(|option| match option {
        MptcpOption::Capable(capable) => Some(capable),
        _ => None,
    })
}
