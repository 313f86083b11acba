//! A set of offsets, kept as intervals.

use alloc::collections::BTreeMap;
use core::fmt;
use core::ops::Range;

/// A set of `u64` offsets as half-open ranges that neither overlap nor touch.
///
/// Every operation costs O(log n) in the number of ranges, plus the ranges that it swallows: a peer
/// that leaves a hole after every byte makes the set long, not slow. A set of up to eleven ranges
/// lives in one allocation, which an emptied set keeps. Empty ranges (also those that end before
/// they start) are no-ops.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Start to end.
    ranges: BTreeMap<u64, u64>,
    covered: u64,
}

impl RangeSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: BTreeMap::new(), covered: 0 }
    }

    /// Whether no offset is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many ranges there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// How many offsets are in the set.
    #[must_use]
    pub fn covered(&self) -> u64 {
        self.covered
    }

    /// Adds `range` and returns how many of its offsets are new.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        let Range { mut start, mut end } = range;
        if start >= end {
            return 0;
        }
        let before = self.covered;
        match self.ranges.last_entry() {
            // Appending is the common case: nothing can follow, so there is nothing to merge with.
            Some(mut last) if *last.key() <= start => {
                let last_end = *last.get();
                if start <= last_end {
                    *last.get_mut() = last_end.max(end);
                    self.covered += end.saturating_sub(last_end);
                    return self.covered - before;
                }
            }
            Some(_) => {
                if let Some((&prev_start, &prev_end)) = self.ranges.range(..=start).next_back()
                    && prev_end >= start
                {
                    start = prev_start;
                }
                while let Some((&next_start, &next_end)) = self.ranges.range(start..).next()
                    && next_start <= end
                {
                    self.ranges.remove(&next_start);
                    self.covered -= next_end - next_start;
                    end = end.max(next_end);
                }
            }
            None => {}
        }
        self.ranges.insert(start, end);
        self.covered += end - start;
        self.covered - before
    }

    /// Takes `range` out and returns how many of its offsets were in the set.
    pub fn remove(&mut self, range: Range<u64>) -> u64 {
        let Range { start, end } = range;
        if start >= end {
            return 0;
        }
        let before = self.covered;
        if let Some((_, prev_end)) = self.ranges.range_mut(..start).next_back()
            && *prev_end > start
        {
            let tail_end = core::mem::replace(prev_end, start);
            self.covered -= tail_end - start;
            if tail_end > end {
                self.ranges.insert(end, tail_end);
                self.covered += tail_end - end;
                return before - self.covered;
            }
        }
        while let Some((&next_start, &next_end)) = self.ranges.range(start..end).next() {
            self.ranges.remove(&next_start);
            self.covered -= next_end - next_start;
            if next_end > end {
                self.ranges.insert(end, next_end);
                self.covered += next_end - end;
            }
        }
        before - self.covered
    }

    /// Takes everything before `offset` out.
    pub fn remove_before(&mut self, offset: u64) {
        while let Some(first) = self.ranges.first_entry()
            && *first.key() < offset
        {
            let (start, end) = first.remove_entry();
            self.covered -= end.min(offset) - start;
            if end > offset {
                self.ranges.insert(offset, end);
            }
        }
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.ranges.clear();
        self.covered = 0;
    }

    /// Whether `offset` is in the set.
    #[must_use]
    pub fn contains(&self, offset: u64) -> bool {
        self.range_at(offset).is_some()
    }

    /// Whether every offset of `range` is in the set; an empty range always is.
    #[must_use]
    pub fn covers(&self, range: &Range<u64>) -> bool {
        range.start >= range.end || self.range_at(range.start).is_some_and(|found| found.end >= range.end)
    }

    /// The lowest range.
    #[must_use]
    pub fn first(&self) -> Option<Range<u64>> {
        self.ranges.first_key_value().map(as_range)
    }

    /// The highest range.
    #[must_use]
    pub fn last(&self) -> Option<Range<u64>> {
        self.ranges.last_key_value().map(as_range)
    }

    /// All ranges from the lowest to the highest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> + ExactSizeIterator + '_ {
        self.ranges.iter().map(as_range)
    }

    /// The range that `offset` lies in.
    #[must_use]
    pub fn range_at(&self, offset: u64) -> Option<Range<u64>> {
        self.ranges.range(..=offset).next_back().map(as_range).filter(|range| range.end > offset)
    }

    /// The first part of `within` that is not in the set.
    #[must_use]
    pub fn first_gap(&self, within: Range<u64>) -> Option<Range<u64>> {
        self.gaps(within).next()
    }

    /// The parts of `within` that are not in the set, from the lowest.
    #[must_use]
    pub fn gaps(&self, within: Range<u64>) -> Gaps<'_> {
        let start = self.range_at(within.start).map_or(within.start, |range| range.end);
        // An empty or backward range of keys would make the map panic.
        let following = self.ranges.range(start.min(within.end)..within.end);
        Gaps { start, end: within.end, following }
    }
}

fn as_range((&start, &end): (&u64, &u64)) -> Range<u64> {
    start..end
}

impl fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// What [`RangeSet::gaps`] returns.
#[derive(Clone, Debug)]
pub struct Gaps<'a> {
    /// Start of what has not been looked at; not in the set.
    start: u64,
    end: u64,
    following: alloc::collections::btree_map::Range<'a, u64, u64>,
}

impl Iterator for Gaps<'_> {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        if self.start >= self.end {
            return None;
        }
        let start = self.start;
        Some(match self.following.next() {
            Some((&next_start, &next_end)) => {
                self.start = next_end;
                start..next_start
            }
            None => {
                self.start = self.end;
                start..self.end
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const SPACE: u64 = 96;

    #[derive(Clone, Debug)]
    enum Op {
        Insert(Range<u64>),
        Remove(Range<u64>),
        RemoveBefore(u64),
    }

    fn any_range() -> impl Strategy<Value = Range<u64>> {
        (0..SPACE, 0u64..12).prop_map(|(start, len)| start..(start + len).min(SPACE))
    }

    fn any_op() -> impl Strategy<Value = Op> {
        prop_oneof![
            5 => any_range().prop_map(Op::Insert),
            3 => any_range().prop_map(Op::Remove),
            1 => (0..SPACE / 4).prop_map(Op::RemoveBefore),
        ]
    }

    /// Maximal runs of `wanted` in `bits[within]`.
    fn runs(bits: &[bool], within: Range<u64>, wanted: bool) -> Vec<Range<u64>> {
        let mut found: Vec<Range<u64>> = Vec::new();
        for offset in within.filter(|&offset| bits[offset as usize] == wanted) {
            match found.last_mut() {
                Some(last) if last.end == offset => last.end += 1,
                _ => found.push(offset..offset + 1),
            }
        }
        found
    }

    fn set(bits: &mut [bool], range: Range<u64>, value: bool) -> u64 {
        let slots = &mut bits[range.start as usize..range.end as usize];
        let changed = slots.iter().filter(|&&bit| bit != value).count();
        slots.fill(value);
        changed as u64
    }

    proptest! {
        #[test]
        fn behaves_as_a_bitmap(ops in prop::collection::vec(any_op(), 1..80), probe in any_range()) {
            let mut ranges = RangeSet::new();
            let mut bits = vec![false; SPACE as usize];
            for op in ops {
                match op {
                    Op::Insert(range) => prop_assert_eq!(ranges.insert(range.clone()), set(&mut bits, range, true)),
                    Op::Remove(range) => prop_assert_eq!(ranges.remove(range.clone()), set(&mut bits, range, false)),
                    Op::RemoveBefore(offset) => {
                        ranges.remove_before(offset);
                        set(&mut bits, 0..offset, false);
                    }
                }
                let expected = runs(&bits, 0..SPACE, true);
                prop_assert_eq!(ranges.iter().collect::<Vec<_>>(), expected.clone());
                prop_assert_eq!(ranges.iter().rev().collect::<Vec<_>>(), expected.iter().rev().cloned().collect::<Vec<_>>());
                prop_assert_eq!(ranges.len(), expected.len());
                prop_assert_eq!(ranges.is_empty(), expected.is_empty());
                prop_assert_eq!(ranges.covered(), bits.iter().filter(|&&bit| bit).count() as u64);
                prop_assert_eq!(ranges.first(), expected.first().cloned());
                prop_assert_eq!(ranges.last(), expected.last().cloned());
                let gaps = runs(&bits, probe.clone(), false);
                prop_assert_eq!(ranges.first_gap(probe.clone()), gaps.first().cloned());
                prop_assert_eq!(ranges.gaps(probe.clone()).collect::<Vec<_>>(), gaps.clone());
                prop_assert_eq!(ranges.covers(&probe), gaps.is_empty());
                for offset in probe.clone() {
                    let around = expected.iter().find(|range| range.contains(&offset)).cloned();
                    prop_assert_eq!(ranges.contains(offset), around.is_some());
                    prop_assert_eq!(ranges.range_at(offset), around);
                }
            }
        }
    }

    #[test]
    fn touching_ranges_become_one() {
        let mut ranges = RangeSet::new();
        assert_eq!(ranges.insert(10..20), 10);
        assert_eq!(ranges.insert(30..40), 10);
        assert_eq!(ranges.insert(20..30), 10);
        assert_eq!((ranges.len(), ranges.first()), (1, Some(10..40)));
        assert_eq!(ranges.insert(5..45), 10);
        assert_eq!(ranges.covered(), 40);
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges)] // they are what is tested
    fn empty_and_backward_ranges_do_nothing() {
        let mut ranges = RangeSet::new();
        ranges.insert(10..20);
        assert_eq!(ranges.insert(15..15), 0);
        assert_eq!(ranges.insert(30..25), 0);
        assert_eq!(ranges.remove(15..15), 0);
        assert_eq!(ranges.remove(18..12), 0);
        assert_eq!(ranges.first_gap(25..25), None);
        assert_eq!(ranges.first_gap(30..25), None);
        assert_eq!(ranges.gaps(18..12).count(), 0);
        assert!(ranges.covers(&(50..50)));
        assert_eq!((ranges.len(), ranges.first()), (1, Some(10..20)));
    }

    #[test]
    fn the_ends_of_the_number_space_are_no_special_case() {
        let mut ranges = RangeSet::new();
        ranges.insert(u64::MAX - 5..u64::MAX);
        ranges.insert(0..1);
        assert_eq!(ranges.first_gap(0..u64::MAX), Some(1..u64::MAX - 5));
        assert_eq!(ranges.remove(0..u64::MAX), 6);
        assert!(ranges.is_empty());
    }
}
