//! The budget of memory of a worker, and what happens when it runs out (Linux: `tcp_mem`).

use crate::Counters;

/// How short memory is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) enum Level {
    /// There is enough.
    #[default]
    Plenty,
    /// From three quarters of the budget on, until it is half again: buffers and windows grow no more, and only small
    /// ones are refilled.
    Tight,
    /// The budget is used up: no new connections, and of those there are only the reader that waits for its next
    /// bytes gets more.
    Exhausted,
}

/// What the connections of a worker hold, in bytes: their state, what waits to be sent or acknowledged, and what was
/// received and not given back by the application. Counted is the storage behind it, not the bytes in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryUse {
    /// Held now.
    pub used: u64,
    /// The budget.
    pub budget: u64,
    /// Buffers and windows are kept small, because the budget is nearly used up or was a moment ago.
    pub tight: bool,
}

/// The account.
#[derive(Debug)]
pub(super) struct Memory {
    inner: MemoryUse,
}

impl Memory {
    pub(super) fn new(budget: u64) -> Self {
        Self { inner: MemoryUse { used: 0, budget, tight: false } }
    }

    pub(super) fn get(&self) -> MemoryUse {
        self.inner
    }

    pub(super) fn level(&self) -> Level {
        match self.inner {
            MemoryUse { used, budget, .. } if used >= budget => Level::Exhausted,
            MemoryUse { tight: true, .. } => Level::Tight,
            MemoryUse { .. } => Level::Plenty,
        }
    }

    /// A connection holds `now` bytes instead of `before`.
    pub(super) fn change(&mut self, before: u64, now: u64, counters: &mut Counters) {
        if before == now {
            return;
        }
        let MemoryUse { used, budget, tight } = &mut self.inner;
        *used = *used - before + now;
        counters.memory = *used;
        if !*tight && *used >= *budget / 4 * 3 {
            *tight = true;
            counters.tcp_memory_pressures += 1;
        } else if *tight && *used <= *budget / 2 {
            *tight = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_begins_at_three_quarters_and_ends_at_half() {
        let (mut memory, mut counters) = (Memory::new(1000), Counters::default());
        let mut level_at = |before, now| {
            memory.change(before, now, &mut counters);
            memory.level()
        };
        assert_eq!(level_at(0, 749), Level::Plenty);
        assert_eq!(level_at(749, 750), Level::Tight);
        assert_eq!(level_at(750, 1000), Level::Exhausted);
        assert_eq!(level_at(1000, 501), Level::Tight);
        assert_eq!(level_at(501, 500), Level::Plenty);
        assert_eq!((counters.tcp_memory_pressures, counters.memory), (1, 500));
    }
}
