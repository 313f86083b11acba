//! Who owns a tuple, and who owns a token.

use core::hash::Hasher;
use core::net::IpAddr;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::sched::SubflowId;
use crate::wire::Tuple;

use super::WorkerId;

/// What stands behind a tuple.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slot {
    /// A subflow of a connection: its index and the subflow.
    Conn(u32, SubflowId),
    /// A half-open connection of the SYN queue.
    Syn(u32),
    /// A subflow in TIME-WAIT.
    TimeWait(u32),
    /// A subflow that lives on another worker.
    Forward(WorkerId),
}

impl Slot {
    fn is_forward(self) -> bool {
        matches!(self, Self::Forward(_))
    }
}

/// Tuples of this worker. The hash is keyed: a peer cannot choose collisions.
#[derive(Debug)]
pub(crate) struct Table {
    entries: HashTable<(Tuple, Slot)>,
    forwards: usize,
    key: [u8; 16],
}

impl Table {
    pub(crate) fn new(key: [u8; 16]) -> Self {
        Self { entries: HashTable::new(), forwards: 0, key }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many entries stand for subflows of other workers.
    pub(crate) fn forwards(&self) -> usize {
        self.forwards
    }

    /// The tuples of what lives on this worker.
    pub(crate) fn living_here(&self) -> impl Iterator<Item = Tuple> {
        self.entries.iter().filter(|(_, slot)| !slot.is_forward()).map(|(tuple, _)| *tuple)
    }

    /// Removes what stands for subflows of a worker that is gone.
    pub(crate) fn forget_forwards_to(&mut self, worker: WorkerId) {
        self.entries.retain(|(_, slot)| *slot != Slot::Forward(worker));
        self.forwards = self.entries.iter().filter(|(_, slot)| slot.is_forward()).count();
    }

    fn hash(key: &[u8; 16], tuple: &Tuple) -> u64 {
        let mut hasher = SipHasher13::new_with_key(key);
        for addr in [tuple.local, tuple.remote] {
            match addr.ip() {
                IpAddr::V4(ip) => hasher.write_u32(ip.to_bits()),
                IpAddr::V6(ip) => hasher.write_u128(ip.to_bits()),
            }
            hasher.write_u16(addr.port());
        }
        hasher.finish()
    }

    pub(crate) fn find(&self, tuple: &Tuple) -> Option<Slot> {
        self.entries.find(Self::hash(&self.key, tuple), |(known, _)| known == tuple).map(|(_, slot)| *slot)
    }

    pub(crate) fn insert(&mut self, tuple: Tuple, slot: Slot) {
        let key = self.key;
        let hash = Self::hash(&key, &tuple);
        self.forwards += usize::from(slot.is_forward());
        match self.entries.find_mut(hash, |(known, _)| *known == tuple) {
            Some(entry) => {
                self.forwards -= usize::from(entry.1.is_forward());
                entry.1 = slot;
            }
            None => {
                self.entries.insert_unique(hash, (tuple, slot), |(tuple, _)| Self::hash(&key, tuple));
            }
        }
    }

    /// Removes a tuple if it still stands for `slot`.
    pub(crate) fn remove(&mut self, tuple: &Tuple, slot: Slot) -> bool {
        let hash = Self::hash(&self.key, tuple);
        match self.entries.find_entry(hash, |(known, owner)| known == tuple && *owner == slot) {
            Ok(entry) => {
                entry.remove();
                self.forwards -= usize::from(slot.is_forward());
                true
            }
            Err(_) => false,
        }
    }
}

/// MPTCP tokens of this worker.
#[derive(Debug)]
pub(crate) struct Tokens {
    entries: HashTable<(u32, u32)>,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self { entries: HashTable::new() }
    }

    /// A token is the hash of a random key: it needs no further hashing, only spreading.
    fn hash(token: u32) -> u64 {
        u64::from(token).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The connection's index.
    pub(crate) fn find(&self, token: u32) -> Option<u32> {
        self.entries.find(Self::hash(token), |(known, _)| *known == token).map(|(_, index)| *index)
    }

    pub(crate) fn insert(&mut self, token: u32, index: u32) {
        self.entries.insert_unique(Self::hash(token), (token, index), |(token, _)| Self::hash(*token));
    }

    pub(crate) fn remove(&mut self, token: u32) {
        if let Ok(entry) = self.entries.find_entry(Self::hash(token), |(known, _)| *known == token) {
            entry.remove();
        }
    }
}
