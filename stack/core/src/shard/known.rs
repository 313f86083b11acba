//! What is remembered of other hosts: no more than so much, however many there are.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;

/// Hosts, or pairs of addresses, that are remembered at most.
pub(super) const KNOWN_MAX: usize = 1024;

/// Values by host. When there is no room for another host the one with the least [age](Aging::since) goes.
#[derive(Debug)]
pub(super) struct Known<K, V> {
    entries: BTreeMap<K, V>,
}

/// What tells which of two is given up first.
pub(super) trait Aging {
    /// A time, or a count that goes up.
    type Since: Ord;
    /// The one with the least goes first.
    fn since(&self) -> Self::Since;
}

impl<K, V> Default for Known<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new() }
    }
}

impl<K: Ord + Copy, V: Aging> Known<K, V> {
    pub(super) fn get(&self, host: &K) -> Option<&V> {
        self.entries.get(host)
    }

    pub(super) fn get_mut(&mut self, host: &K) -> Option<&mut V> {
        self.entries.get_mut(host)
    }

    pub(super) fn insert(&mut self, host: K, value: V) {
        self.make_room(&host);
        self.entries.insert(host, value);
    }

    /// What is known of a host, from now on at least the default.
    pub(super) fn get_or_default(&mut self, host: K) -> &mut V
    where
        V: Default,
    {
        self.make_room(&host);
        match self.entries.entry(host) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(V::default()),
        }
    }

    pub(super) fn remove(&mut self, host: &K) -> Option<V> {
        self.entries.remove(host)
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    fn make_room(&mut self, host: &K) {
        if self.entries.len() >= KNOWN_MAX && !self.entries.contains_key(host) {
            let oldest = self.entries.iter().min_by_key(|(_, value)| value.since()).map(|(host, _)| *host);
            oldest.and_then(|host| self.entries.remove(&host));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Aging for u64 {
        type Since = u64;

        fn since(&self) -> u64 {
            *self
        }
    }

    #[test]
    fn a_newcomer_takes_the_place_of_the_oldest() {
        let mut known = Known::<u64, u64>::default();
        // The oldest is in the middle.
        for host in 0..KNOWN_MAX as u64 {
            known.insert(host, host.abs_diff(500) + 1);
        }
        known.insert(7, 9);
        assert_eq!(known.entries.len(), KNOWN_MAX);
        assert_eq!((known.get(&7), known.get(&500)), (Some(&9), Some(&1)), "who is known takes no room");
        known.insert(1 << 40, 7);
        assert_eq!((known.get(&500), known.get(&(1 << 40))), (None, Some(&7)));
        assert_eq!(*known.get_or_default(1 << 41), 0);
        assert_eq!(known.entries.len(), KNOWN_MAX);
    }
}
