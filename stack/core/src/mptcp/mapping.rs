//! Mappings that the peer gave (RFC 8684 §3.3).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use anabranch_frame::Payload;
use anabranch_frame::checksum::Sum;

use super::Copies;
use super::reorder::Reorder;

/// Mappings that reach beyond the segments they came with, at most so many a subflow.
const MAPPINGS_MAX: usize = 1024;

/// Subflow positions `pos..pos + len` carry the stream from offset `off` on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RxMapping {
    pub(crate) pos: u64,
    pub(crate) off: u64,
    pub(crate) len: u64,
    /// What its bytes have to sum up to, if checksums are in use.
    pub(crate) check: Option<Check>,
}

/// The checksum of a mapping and what it covers beside the bytes (RFC 8684 §3.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Check {
    pub(crate) header: PseudoHeader,
    pub(crate) checksum: u16,
}

/// The pseudo-header of a DSS checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PseudoHeader {
    /// Always 64 bits, whatever stood on the wire.
    pub(crate) dsn: u64,
    pub(crate) ssn: u32,
    /// As in the option: a DATA_FIN counts.
    pub(crate) len: u16,
}

impl PseudoHeader {
    /// The checksum of a mapping with these bytes.
    pub(crate) fn checksum<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>) -> u16 {
        let sum = pieces.fold(Sum::new(), Sum::add);
        // Bytes of an odd number are padded; what follows is words at even positions again.
        let header = Sum::new().add_u32((self.dsn >> 32) as u32).add_u32(self.dsn as u32).add_u32(self.ssn);
        header.add_u16(self.len).add_u16(sum.fold()).finish()
    }
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

/// Bytes of a mapping that cannot be verified yet because others are missing, by their positions.
#[derive(Debug)]
struct Held {
    mapping: RxMapping,
    buffer: Reorder,
}

/// A piece of the peer's stream, by its position on the subflow.
pub(crate) type Piece = (u64, Payload);

/// The mappings of one subflow whose bytes have not all come, in order of their positions.
#[derive(Debug, Default)]
pub(crate) struct Mappings {
    list: VecDeque<RxMapping>,
    /// With checksums: what came of mappings that are not whole.
    held: VecDeque<Held>,
    /// Bytes of memory that `held` holds.
    held_memory: usize,
}

impl Mappings {
    /// Bytes of memory that they hold.
    pub(crate) fn memory(&self) -> usize {
        self.list.len() * size_of::<RxMapping>() + self.held_memory
    }

    /// The part of it that cannot be verified yet.
    pub(crate) fn held_memory(&self) -> usize {
        self.held_memory
    }

    /// Whether none is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty() && self.held.is_empty()
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

    /// Keeps a piece until its mapping is whole, and then gives all of it back, in order.
    pub(crate) fn hold(&mut self, mapping: &RxMapping, (pos, payload): Piece, copies: &Copies) -> Option<Vec<Piece>> {
        if payload.len() as u64 == mapping.len {
            return Some(Vec::from([(pos, payload)]));
        }
        let at = self.held.partition_point(|held| held.mapping.pos < mapping.pos);
        if self.held.get(at).is_none_or(|held| held.mapping.pos != mapping.pos) {
            self.held.insert(at, Held { mapping: *mapping, buffer: Reorder::starting_at(mapping.pos) });
            self.held_memory += size_of::<Held>();
        }
        let held = &mut self.held[at];
        self.held_memory -= held.buffer.memory();
        held.buffer.insert(pos, payload, copies);
        self.held_memory += held.buffer.memory();
        if held.buffer.nxt() < mapping.end() {
            return None;
        }
        let whole = self.held.remove(at)?;
        self.held_memory -= whole.buffer.memory() + size_of::<Held>();
        Some(whole.buffer.into_pieces().collect())
    }

    /// Bytes before `pos`, up to which everything was received, that are held.
    pub(crate) fn held_before(&self, pos: u64) -> u64 {
        self.held.iter().map(|held| pos.min(held.buffer.nxt()).saturating_sub(held.mapping.pos)).sum()
    }

    /// Gives back everything that is held, in order: it will not be verified any more.
    pub(crate) fn release(&mut self) -> impl Iterator<Item = Piece> + use<> {
        self.held_memory = 0;
        core::mem::take(&mut self.held).into_iter().flat_map(|held| held.buffer.into_pieces())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(pos: u64, off: u64, len: u64) -> RxMapping {
        RxMapping { pos, off, len, check: None }
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

    #[test]
    fn pieces_wait_until_their_mapping_is_whole() {
        let (mut mappings, copies) = (Mappings::default(), crate::mptcp::copies());
        let (first, second) = (mapping(1, 0, 6), mapping(7, 6, 4));
        let piece = |pos, bytes: &[u8]| (pos, Payload::from(bytes));
        assert!(mappings.hold(&first, piece(5, b"ef"), &copies).is_none());
        assert!(mappings.hold(&second, piece(9, b"xy"), &copies).is_none());
        assert!(mappings.hold(&first, piece(1, b"ab"), &copies).is_none());
        assert_eq!((mappings.held_before(2), mappings.held_before(3)), (1, 2));
        assert!(mappings.memory() > 6);
        let whole = mappings.hold(&first, piece(3, b"cd"), &copies).expect("all six bytes are there");
        let bytes: Vec<u8> = whole.iter().flat_map(|(_, payload)| payload.to_vec()).collect();
        assert_eq!(bytes, b"abcdef");
        assert_eq!(mappings.release().map(|(pos, _)| pos).collect::<Vec<_>>(), [9]);
        assert!(mappings.is_empty());
        assert_eq!(mappings.memory(), 0);
    }

    /// The sum does not depend on where the bytes are cut; the reference adds up 16-bit words as RFC 1071 writes it.
    #[test]
    fn the_checksum_is_that_of_header_and_bytes() {
        let header = PseudoHeader { dsn: 0x0102_0304_f506_0708, ssn: 0xfffe_0001, len: 5 };
        let bytes = [0xff, 0x01, 0x80, 0x7f, 0x33];
        let mut message = Vec::new();
        message.extend(header.dsn.to_be_bytes());
        message.extend(header.ssn.to_be_bytes());
        message.extend(header.len.to_be_bytes());
        message.extend([0, 0]);
        message.extend(bytes);
        message.push(0);
        let mut sum: u32 = message.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        for cut in 0..=bytes.len() {
            let (left, right) = bytes.split_at(cut);
            assert_eq!(header.checksum([left, right].into_iter()), !(sum as u16), "cut at {cut}");
        }
    }
}
