//! The receive buffer that all subflows of a connection share, keyed by stream offset.

use alloc::collections::{BTreeMap, VecDeque};

use anabranch_frame::Payload;

use super::Copies;

/// Storage that badly filled pieces may pin before they are copied out of it.
const PINNED_MAX: usize = 128 << 10;
/// Largest buffer that small pieces are copied together in.
const COPY_MAX: usize = 16 << 10;
/// What a piece costs beside its storage: map and queue entries, headers of allocations.
const PIECE_COST: usize = 128;

/// What an insertion changed, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Inserted {
    /// Bytes that were not there before.
    pub(crate) new_bytes: u64,
    /// Bytes that were there, or were read already.
    pub(crate) duplicate_bytes: u64,
    /// By how much the first missing offset moved.
    pub(crate) advanced: u64,
}

/// Received bytes from the first unread one on.
///
/// Where copies overlap the first one stays: what the reader was shown, or what was acknowledged,
/// never changes. Payloads are cut but not copied, unless a piece that fills less than a quarter of
/// its storage would pin it and [`PINNED_MAX`] bytes are held already. So what is held costs at most
/// that, four times the bytes, and [`PIECE_COST`] a piece. A caller that bounds [`memory`](Self::memory)
/// before it acknowledges bounds what a peer with many small pieces can make us hold.
#[derive(Debug, Default)]
pub(crate) struct Reorder {
    /// In order and unread; they end at `nxt`.
    ready: VecDeque<Payload>,
    readable: u64,
    /// The first offset that is missing.
    nxt: u64,
    /// Pieces beyond `nxt`, by offset. They do not overlap, but may touch.
    ahead: BTreeMap<u64, Payload>,
    out_of_order: u64,
    memory: usize,
}

impl Reorder {
    /// An empty buffer that waits for offset 0.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// An empty buffer that waits for offset `nxt`.
    pub(crate) fn starting_at(nxt: u64) -> Self {
        Self { nxt, ..Self::default() }
    }

    /// The first offset that was not received in order: what DATA_ACK says.
    pub(crate) fn nxt(&self) -> u64 {
        self.nxt
    }

    /// Bytes in order and unread.
    pub(crate) fn readable(&self) -> u64 {
        self.readable
    }

    /// Bytes that wait behind a hole.
    pub(crate) fn out_of_order(&self) -> u64 {
        self.out_of_order
    }

    /// Bytes of memory that the buffer costs, those pinned by its pieces included. Storage that
    /// several pieces share is counted for each.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// The missing ranges below the highest offset received, from the lowest.
    #[cfg(test)]
    pub(crate) fn holes(&self) -> impl Iterator<Item = core::ops::Range<u64>> + '_ {
        self.ahead
            .iter()
            .scan(self.nxt, |end, (&start, piece)| {
                let hole = *end..start;
                *end = start + piece.len() as u64;
                Some(hole)
            })
            .filter(|hole| !hole.is_empty())
    }

    /// Puts `payload` at `offset`. The caller has checked that it lies within the window. `copies` is where copies
    /// of small pieces go.
    pub(crate) fn insert(&mut self, mut offset: u64, mut payload: Payload, copies: &Copies) -> Inserted {
        let mut inserted = Inserted::default();
        if offset < self.nxt {
            let known = (self.nxt - offset).min(payload.len() as u64);
            payload.advance(known as usize);
            offset += known;
            inserted.duplicate_bytes = known;
        }
        if payload.is_empty() {
            return inserted;
        }
        let end = offset + payload.len() as u64;
        let before = self.nxt;
        if offset == before && self.ahead.first_key_value().is_none_or(|(&start, _)| start >= end) {
            inserted.new_bytes = end - offset;
            self.push_ready(payload, copies);
        } else {
            let new_bytes = self.fill_gaps(offset, payload, copies);
            inserted.new_bytes = new_bytes;
            inserted.duplicate_bytes += end - offset - new_bytes;
        }
        self.drain_ahead();
        inserted.advanced = self.nxt - before;
        inserted
    }

    /// Takes up to `max` unread bytes in one contiguous piece.
    pub(crate) fn read(&mut self, max: usize) -> Option<Payload> {
        let first = self.ready.front_mut().filter(|_| max > 0)?;
        let piece = if first.len() > max {
            first.split_to(max)
        } else {
            self.memory -= cost(first);
            self.ready.pop_front()?
        };
        self.readable -= piece.len() as u64;
        Some(piece)
    }

    /// All pieces that were not read, by their offsets.
    pub(crate) fn into_pieces(self) -> impl Iterator<Item = (u64, Payload)> {
        let start = self.nxt - self.readable;
        let ready = self.ready.into_iter().scan(start, |offset, piece| {
            let at = *offset;
            *offset += piece.len() as u64;
            Some((at, piece))
        });
        ready.chain(self.ahead)
    }

    /// Copies pieces out of storage that they fill badly. Returns how many.
    pub(crate) fn collapse(&mut self) -> u64 {
        let mut copied = 0;
        for piece in self.ready.iter_mut().chain(self.ahead.values_mut()) {
            if piece.len() < piece.storage_len() / 2 {
                self.memory -= cost(piece);
                *piece = Payload::from(piece.as_slice());
                self.memory += cost(piece);
                copied += 1;
            }
        }
        copied
    }

    fn push_ready(&mut self, payload: Payload, copies: &Copies) {
        let len = payload.len() as u64;
        if let Some(piece) = settle(payload, self.ready.back_mut(), self.memory, copies) {
            self.memory += cost(&piece);
            self.ready.push_back(piece);
        }
        self.readable += len;
        self.nxt += len;
    }

    /// Stores what of `payload` nothing overlaps, and returns how much that was.
    fn fill_gaps(&mut self, mut offset: u64, mut payload: Payload, copies: &Copies) -> u64 {
        let before = self.out_of_order;
        if let Some((&start, piece)) = self.ahead.range(..=offset).next_back() {
            let end = start + piece.len() as u64;
            let known = (end.saturating_sub(offset) as usize).min(payload.len());
            payload.advance(known);
            offset += known as u64;
        }
        while !payload.is_empty() {
            let next = self.ahead.range(offset..).next().map(|(&start, piece)| (start, piece.len()));
            let (gap, known) = match next {
                Some((start, len)) => ((start - offset).min(payload.len() as u64) as usize, len),
                None => (payload.len(), 0),
            };
            if gap > 0 {
                self.put_ahead(offset, payload.split_to(gap), copies);
            }
            let known = known.min(payload.len());
            payload.advance(known);
            offset += (gap + known) as u64;
        }
        self.out_of_order - before
    }

    fn put_ahead(&mut self, offset: u64, payload: Payload, copies: &Copies) {
        self.out_of_order += payload.len() as u64;
        let before = self.ahead.range_mut(..offset).next_back();
        let touching = before.and_then(|(&start, piece)| (start + piece.len() as u64 == offset).then_some(piece));
        let len = payload.len();
        if let Some(piece) = settle(payload, touching, self.memory, copies) {
            self.memory += cost(&piece);
            self.ahead.insert(offset + (len - piece.len()) as u64, piece);
        }
    }

    /// Moves what follows `nxt` without a hole to the reader's side: the one place where bytes that
    /// waited become visible to the reader and to DATA_ACK.
    fn drain_ahead(&mut self) {
        while let Some(first) = self.ahead.first_entry()
            && *first.key() == self.nxt
        {
            let piece = first.remove();
            let len = piece.len() as u64;
            self.out_of_order -= len;
            self.readable += len;
            self.nxt += len;
            self.ready.push_back(piece);
        }
    }
}

fn cost(piece: &Payload) -> usize {
    piece.storage_len() + PIECE_COST
}

/// Decides what of `payload` becomes a piece of its own, `None` if nothing: all of it as it stands,
/// or, if it would pin too much, a copy of what cannot be appended to the piece `before` it.
fn settle(payload: Payload, before: Option<&mut Payload>, memory: usize, copies: &Copies) -> Option<Payload> {
    let storage = payload.storage_len();
    if payload.len() >= storage / 4 || memory + storage <= PINNED_MAX {
        return Some(payload);
    }
    let Some(before) = before else { return Some(copies.copy_tight(&payload)) };
    let appended = before.append(&payload);
    let rest = &payload[appended..];
    if rest.is_empty() {
        return None;
    }
    // Room in proportion to what stands before it: a run of small pieces ends up in few buffers.
    Some(copies.copy(rest, (2 * before.len()).clamp(rest.len(), COPY_MAX.max(rest.len()))))
}

#[cfg(test)]
mod tests;
