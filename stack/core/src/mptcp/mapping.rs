//! Mappings that the peer gave (RFC 8684 §3.3).

use alloc::collections::VecDeque;

/// Mappings that reach beyond the segments they came with, at most so many a subflow.
const MAPPINGS_MAX: usize = 1024;

/// Subflow positions `pos..pos + len` carry the stream from offset `off` on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RxMapping {
    pub(crate) pos: u64,
    pub(crate) off: u64,
    pub(crate) len: u64,
}

impl RxMapping {
    pub(crate) fn end(&self) -> u64 {
        self.pos + self.len
    }

    pub(crate) fn covers(&self, pos: u64) -> bool {
        (self.pos..self.end()).contains(&pos)
    }

    /// Offset of a position that it covers.
    pub(crate) fn offset(&self, pos: u64) -> u64 {
        self.off + (pos - self.pos)
    }
}

/// What became of a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Noted {
    /// It is known now, or was before.
    Known,
    /// It contradicts an earlier one.
    Conflict,
    /// There is no room for it now.
    Full,
}

/// The mappings of one subflow whose bytes have not all come, in order of their positions.
#[derive(Debug, Default)]
pub(crate) struct Mappings {
    list: VecDeque<RxMapping>,
}

impl Mappings {
    /// Bytes of memory that they hold.
    pub(crate) fn memory(&self) -> usize {
        self.list.len() * size_of::<RxMapping>()
    }

    /// Whether none is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Remembers a mapping.
    pub(crate) fn note(&mut self, mapping: RxMapping) -> Noted {
        let at = self.list.partition_point(|known| known.pos < mapping.pos);
        if let Some(known) = self.list.get(at)
            && known.pos == mapping.pos
        {
            return if *known == mapping { Noted::Known } else { Noted::Conflict };
        }
        let overlaps_next = self.list.get(at).is_some_and(|next| next.pos < mapping.end());
        let overlaps_last = at > 0 && self.list[at - 1].end() > mapping.pos;
        if overlaps_next || overlaps_last {
            return Noted::Conflict;
        }
        if self.list.len() >= MAPPINGS_MAX {
            return Noted::Full;
        }
        self.list.insert(at, mapping);
        Noted::Known
    }

    /// The mapping of a position.
    pub(crate) fn find(&self, pos: u64) -> Option<RxMapping> {
        let at = self.list.partition_point(|known| known.end() <= pos);
        self.list.get(at).copied().filter(|known| known.covers(pos))
    }

    /// Everything before `pos` was received.
    pub(crate) fn forget_before(&mut self, pos: u64) {
        while self.list.front().is_some_and(|first| first.end() <= pos) {
            self.list.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(pos: u64, off: u64, len: u64) -> RxMapping {
        RxMapping { pos, off, len }
    }

    #[test]
    fn a_mapping_may_be_repeated_but_not_changed() {
        let mut mappings = Mappings::default();
        assert_eq!(mappings.note(mapping(1, 0, 100)), Noted::Known);
        assert_eq!(mappings.note(mapping(1, 0, 100)), Noted::Known);
        assert_eq!(mappings.note(mapping(1, 7, 100)), Noted::Conflict);
        assert_eq!(mappings.note(mapping(50, 49, 100)), Noted::Conflict);
        assert_eq!(mappings.note(mapping(101, 500, 100)), Noted::Known);
        assert_eq!(mappings.find(150).map(|found| found.offset(150)), Some(549));
        mappings.forget_before(101);
        assert_eq!(mappings.find(50), None);
        assert!(mappings.find(200).is_some());
    }

    #[test]
    fn their_number_is_bounded() {
        let mut mappings = Mappings::default();
        for n in 0..MAPPINGS_MAX as u64 {
            assert_eq!(mappings.note(mapping(1 + n * 2, n, 1)), Noted::Known);
        }
        assert_eq!(mappings.note(mapping(1_000_000, 0, 1)), Noted::Full);
    }
}
