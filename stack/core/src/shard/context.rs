//! What a connection may ask of the shard while it is at work.

use core::net::{IpAddr, SocketAddr};

use crate::MtuProbing;
use crate::mptcp::Cx;
use crate::tcp::{Subflow, SubflowStart, initial_seq};
use crate::wire::{SeqNum, Tuple};

use super::{Capability, Mail, Slot, TimeWait, blackhole};

/// Ports are looked at one after the other, two apart, before another stretch is tried.
const STEP: u32 = 2;

impl Cx<'_> {
    /// A subflow whose handshake is done.
    pub(crate) fn subflow(&self, start: SubflowStart) -> Subflow {
        let mut subflow = Subflow::new(self.now, start, self.config);
        let remote = subflow.tuple.remote.ip();
        subflow.limit_mtu(self.pmtus.get(self.now, remote));
        if self.config.pmtu.mtu_probing == MtuProbing::Always {
            subflow.start_search(self.now, &self.config.pmtu);
        }
        if let Some(learnt) = self.destinations.get(self.now, remote) {
            subflow.snd.start_from(&learnt);
        }
        subflow
    }

    /// A subflow is gone: what it learnt is kept, if that is wanted.
    pub(crate) fn learn_from(&mut self, subflow: &Subflow) {
        if !self.config.no_metrics_save
            && let Some(learnt) = subflow.snd.learnt()
        {
            self.destinations.learn(self.now, subflow.tuple.remote.ip(), learnt);
        }
    }

    /// What became of MP_CAPABLE on the way to a destination; the other workers hear of it.
    pub(crate) fn note_capability(&mut self, destination: IpAddr, what: Capability) {
        if self.blackholes.note(self.now, destination, what) {
            self.counters.mp_blackhole += u64::from(what == Capability::Lost);
            self.mail.extend(blackhole::news(self.crew, destination, what));
        }
    }

    /// A tuple from `local` to `remote` with a free source port, at home here: RFC 6056's algorithm 4. The first port
    /// looked at is a keyed hash of the addresses plus a count that goes on with each connection, so that an outsider
    /// learns nothing of the next port, and one destination sees the same port only after all others. A port is free if
    /// its tuple is: other destinations may use it at the same time.
    pub(crate) fn free_tuple(&mut self, local: IpAddr, remote: SocketAddr) -> Option<Tuple> {
        let (first, last) = self.config.ephemeral_ports;
        let count = u32::from(last.saturating_sub(first)) + 1;
        let start = self.ports.start(&self.config.isn_key, local, remote, self.rng);
        // As in Linux: first every other port, then those between.
        for i in 0..count {
            let lap = if count % STEP == 0 { i * STEP / count } else { 0 };
            let port = first + (start.wrapping_add(i * STEP + lap) % count) as u16;
            let tuple = Tuple { local: SocketAddr::new(local, port), remote };
            if self.crew.home(&tuple) == self.crew.own() && self.is_free(&tuple) {
                self.ports.used(&self.config.isn_key, local, remote, i * STEP + lap + STEP);
                return Some(tuple);
            }
        }
        None
    }

    /// Whether a connection may be opened on the tuple.
    pub(crate) fn is_free(&self, tuple: &Tuple) -> bool {
        match self.table.find(tuple) {
            None => true,
            Some(Slot::TimeWait(index)) => self.reusable(index).is_some(),
            Some(_) => false,
        }
    }

    fn reusable(&self, index: u32) -> Option<SeqNum> {
        let handshake = &self.config.handshake;
        handshake.tw_reuse.then(|| self.time_waits.reuse(self.now, index, handshake.tw_reuse_delay)).flatten()
    }

    /// Takes the tuple for a connection that is opened on it. Returns where its sequence numbers start (RFC 6528), which
    /// is past those of an old connection in TIME-WAIT (RFC 6191).
    pub(crate) fn take_tuple(&mut self, tuple: Tuple, slot: Slot) -> SeqNum {
        let old = match self.table.find(&tuple) {
            Some(Slot::TimeWait(index)) => self.reusable(index).inspect(|_| {
                self.time_waits.remove(index);
                self.counters.tw_recycled += 1;
            }),
            _ => None,
        };
        self.table.insert(tuple, slot);
        old.unwrap_or_else(|| initial_seq(&self.config.isn_key, &tuple, self.now))
    }

    /// A tuple is no longer in use; its home is told.
    pub(crate) fn release_tuple(&mut self, tuple: &Tuple, slot: Slot) {
        if self.table.remove(tuple, slot) {
            self.tell_home(tuple, Mail::Forget(*tuple));
        }
    }

    /// A tuple that is at home elsewhere lives here from now on.
    pub(crate) fn claim_tuple(&mut self, tuple: &Tuple) {
        let worker = self.crew.own();
        self.tell_home(tuple, Mail::Forward { tuple: *tuple, worker });
    }

    fn tell_home(&mut self, tuple: &Tuple, mail: Mail) {
        let home = self.crew.home(tuple);
        if home != self.crew.own() {
            self.mail.push_back((home, mail));
        }
    }

    /// A subflow's tuple goes into TIME-WAIT.
    pub(crate) fn enter_time_wait(&mut self, slot: Slot, entry: TimeWait) {
        let tuple = entry.tuple;
        self.table.remove(&tuple, slot);
        let (index, evicted) = self.time_waits.insert(self.now + self.config.time_wait, entry);
        if let Some((old, entry)) = evicted {
            self.counters.tw_overflow += 1;
            self.release_tuple(&entry.tuple, Slot::TimeWait(old));
        }
        self.table.insert(tuple, Slot::TimeWait(index));
    }
}
