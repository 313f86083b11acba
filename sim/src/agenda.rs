//! Who wants to be called when. First come, first served among those of the same time.

use core::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use anabranch_frame::Instant;

/// Somebody who wants to be called.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Source {
    Link(usize),
    Boxes(usize),
    Host(usize),
    Script(usize),
}

/// At most one entry for each source is valid, the others are left to be skipped.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<(Instant, u64, Source)>>,
    armed: BTreeMap<Source, (Instant, u64)>,
    order: u64,
}

impl Agenda {
    /// Sets, moves or clears the time of a source.
    pub(crate) fn arm(&mut self, source: Source, at: Option<Instant>) {
        let Some(at) = at else {
            self.armed.remove(&source);
            return;
        };
        if self.armed.get(&source).is_some_and(|&(armed, _)| armed == at) {
            return;
        }
        self.armed.insert(source, (at, self.order));
        self.heap.push(Reverse((at, self.order, source)));
        self.order += 1;
    }

    /// The next time somebody wants to be called.
    pub(crate) fn next(&mut self) -> Option<Instant> {
        while let Some(&Reverse((at, order, source))) = self.heap.peek() {
            if self.armed.get(&source) == Some(&(at, order)) {
                return Some(at);
            }
            self.heap.pop();
        }
        None
    }

    /// Takes the next one off.
    pub(crate) fn pop(&mut self) -> Option<(Instant, Source)> {
        self.next()?;
        let Reverse((at, _, source)) = self.heap.pop()?;
        self.armed.remove(&source);
        Some((at, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_time_and_then_insertion() {
        let mut agenda = Agenda::default();
        let at = Instant::from_millis;
        agenda.arm(Source::Host(0), Some(at(5)));
        agenda.arm(Source::Link(1), Some(at(5)));
        agenda.arm(Source::Link(0), Some(at(9)));
        agenda.arm(Source::Link(2), Some(at(7)));
        agenda.arm(Source::Link(2), None);
        // Moved away and back: it lost its place in the row.
        agenda.arm(Source::Host(0), Some(at(6)));
        agenda.arm(Source::Host(0), Some(at(5)));
        let order: Vec<_> = core::iter::from_fn(|| agenda.pop()).collect();
        assert_eq!(order, [(at(5), Source::Link(1)), (at(5), Source::Host(0)), (at(9), Source::Link(0))]);
    }
}
