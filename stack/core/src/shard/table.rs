//! Who owns a tuple, and who owns a token.

use core::hash::{Hash, Hasher};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
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

/// A tuple of IPv4 addresses: what most entries are, in a fifth of the bytes of a [`Tuple`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Tuple4 {
    local: u32,
    remote: u32,
    ports: u32,
}

/// Any other tuple.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Tuple6 {
    local: u128,
    remote: u128,
    ports: u32,
}

impl Tuple4 {
    fn whole(&self) -> Tuple {
        let addr = |bits, port| SocketAddr::new(Ipv4Addr::from_bits(bits).into(), port);
        Tuple { local: addr(self.local, (self.ports >> 16) as u16), remote: addr(self.remote, self.ports as u16) }
    }
}

impl Tuple6 {
    fn whole(&self) -> Tuple {
        let addr = |bits, port| SocketAddr::new(Ipv6Addr::from_bits(bits).into(), port);
        Tuple { local: addr(self.local, (self.ports >> 16) as u16), remote: addr(self.remote, self.ports as u16) }
    }
}

enum Key {
    V4(Tuple4),
    V6(Tuple6),
}

impl Key {
    fn of(tuple: &Tuple) -> Self {
        let ports = u32::from(tuple.local.port()) << 16 | u32::from(tuple.remote.port());
        match (tuple.local.ip(), tuple.remote.ip()) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                Self::V4(Tuple4 { local: local.to_bits(), remote: remote.to_bits(), ports })
            }
            (local, remote) => {
                let bits = |ip: IpAddr| match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
                    IpAddr::V6(ip) => ip.to_bits(),
                };
                Self::V6(Tuple6 { local: bits(local), remote: bits(remote), ports })
            }
        }
    }
}

/// Tuples of this worker. The hash is keyed: a peer cannot choose collisions.
#[derive(Debug)]
pub(crate) struct Table {
    v4: HashTable<(Tuple4, Slot)>,
    v6: HashTable<(Tuple6, Slot)>,
    forwards: usize,
    key: [u8; 16],
}

impl Table {
    pub(crate) fn new(key: [u8; 16]) -> Self {
        Self { v4: HashTable::new(), v6: HashTable::new(), forwards: 0, key }
    }

    pub(crate) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// How many entries stand for subflows of other workers.
    pub(crate) fn forwards(&self) -> usize {
        self.forwards
    }

    /// The tuples of what lives on this worker.
    pub(crate) fn living_here(&self) -> impl Iterator<Item = Tuple> {
        let v4 = self.v4.iter().filter(|(_, slot)| !slot.is_forward()).map(|(tuple, _)| tuple.whole());
        v4.chain(self.v6.iter().filter(|(_, slot)| !slot.is_forward()).map(|(tuple, _)| tuple.whole()))
    }

    /// Removes what stands for subflows of a worker that is gone.
    pub(crate) fn forget_forwards_to(&mut self, worker: WorkerId) {
        self.v4.retain(|(_, slot)| *slot != Slot::Forward(worker));
        self.v6.retain(|(_, slot)| *slot != Slot::Forward(worker));
        let v4 = self.v4.iter().filter(|(_, slot)| slot.is_forward()).count();
        self.forwards = v4 + self.v6.iter().filter(|(_, slot)| slot.is_forward()).count();
    }

    pub(crate) fn find(&self, tuple: &Tuple) -> Option<Slot> {
        match Key::of(tuple) {
            Key::V4(tuple) => find(&self.v4, &self.key, &tuple),
            Key::V6(tuple) => find(&self.v6, &self.key, &tuple),
        }
    }

    pub(crate) fn insert(&mut self, tuple: Tuple, slot: Slot) {
        let before = match Key::of(&tuple) {
            Key::V4(tuple) => insert(&mut self.v4, &self.key, tuple, slot),
            Key::V6(tuple) => insert(&mut self.v6, &self.key, tuple, slot),
        };
        self.forwards += usize::from(slot.is_forward());
        self.forwards -= usize::from(before.is_some_and(Slot::is_forward));
    }

    /// Removes a tuple if it still stands for `slot`.
    pub(crate) fn remove(&mut self, tuple: &Tuple, slot: Slot) -> bool {
        let removed = match Key::of(tuple) {
            Key::V4(tuple) => remove(&mut self.v4, &self.key, &tuple, slot),
            Key::V6(tuple) => remove(&mut self.v6, &self.key, &tuple, slot),
        };
        self.forwards -= usize::from(removed && slot.is_forward());
        removed
    }
}

fn hash(key: &[u8; 16], tuple: &impl Hash) -> u64 {
    let mut hasher = SipHasher13::new_with_key(key);
    tuple.hash(&mut hasher);
    hasher.finish()
}

fn find<T: Hash + Eq>(entries: &HashTable<(T, Slot)>, key: &[u8; 16], tuple: &T) -> Option<Slot> {
    entries.find(hash(key, tuple), |(known, _)| known == tuple).map(|(_, slot)| *slot)
}

fn insert<T: Hash + Eq>(entries: &mut HashTable<(T, Slot)>, key: &[u8; 16], tuple: T, slot: Slot) -> Option<Slot> {
    match entries.entry(hash(key, &tuple), |(known, _)| *known == tuple, |(tuple, _)| hash(key, tuple)) {
        Entry::Occupied(mut entry) => Some(core::mem::replace(&mut entry.get_mut().1, slot)),
        Entry::Vacant(entry) => {
            entry.insert((tuple, slot));
            None
        }
    }
}

fn remove<T: Hash + Eq>(entries: &mut HashTable<(T, Slot)>, key: &[u8; 16], tuple: &T, slot: Slot) -> bool {
    match entries.find_entry(hash(key, tuple), |(known, owner)| known == tuple && *owner == slot) {
        Ok(entry) => {
            entry.remove();
            true
        }
        Err(_) => false,
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
