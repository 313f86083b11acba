use super::*;
use anabranch_frame::BufferPool;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

fn payload(bytes: &[u8]) -> Payload {
    Payload::from(bytes)
}

fn insert(reorder: &mut Reorder, offset: u64, payload: Payload) -> Inserted {
    reorder.insert(offset, payload, &crate::mptcp::copies())
}

fn inserted(new_bytes: u64, duplicate_bytes: u64, advanced: u64) -> Inserted {
    Inserted { new_bytes, duplicate_bytes, advanced }
}

fn read_all(reorder: &mut Reorder) -> Vec<u8> {
    let mut bytes = vec![];
    while let Some(piece) = reorder.read(usize::MAX) {
        bytes.extend_from_slice(&piece);
    }
    bytes
}

#[test]
fn in_order_bytes_are_handed_on_uncopied() {
    let mut reorder = Reorder::new();
    let first = payload(b"hello ");
    let place = first.as_ptr();
    assert_eq!(insert(&mut reorder, 0, first), inserted(6, 0, 6));
    assert_eq!(insert(&mut reorder, 6, payload(b"world")), inserted(5, 0, 5));
    assert_eq!((reorder.nxt(), reorder.readable()), (11, 11));
    assert_eq!(reorder.read(100).unwrap().as_ptr(), place);
    assert_eq!(&*reorder.read(2).unwrap(), b"wo");
    assert_eq!(reorder.read(0), None);
    assert_eq!(&*reorder.read(100).unwrap(), b"rld");
    assert_eq!(reorder.read(100), None);
    assert_eq!((reorder.readable(), reorder.memory()), (0, 0));
}

#[test]
fn a_filled_hole_releases_what_waits_behind_it() {
    let mut reorder = Reorder::new();
    assert_eq!(insert(&mut reorder, 4, payload(b"ef")), inserted(2, 0, 0));
    assert_eq!(insert(&mut reorder, 8, payload(b"ij")), inserted(2, 0, 0));
    assert_eq!(insert(&mut reorder, 6, payload(b"gh")), inserted(2, 0, 0));
    assert_eq!(insert(&mut reorder, 12, payload(b"m")), inserted(1, 0, 0));
    assert_eq!(reorder.holes().collect::<Vec<_>>(), [0..4, 10..12]);
    assert_eq!((reorder.readable(), reorder.out_of_order()), (0, 7));
    assert_eq!(insert(&mut reorder, 0, payload(b"abcd")), inserted(4, 0, 10));
    assert_eq!((reorder.readable(), reorder.out_of_order()), (10, 1));
    assert_eq!(read_all(&mut reorder), b"abcdefghij");
}

#[test]
fn the_first_copy_stays() {
    let mut reorder = Reorder::new();
    insert(&mut reorder, 2, payload(b"CD"));
    insert(&mut reorder, 6, payload(b"GH"));
    // Given islands, when one segment spans them all, then only the sea between is taken from it.
    assert_eq!(insert(&mut reorder, 0, payload(b"abcdefghij")), inserted(6, 4, 10));
    assert_eq!(insert(&mut reorder, 5, payload(b"xxxxxxx")), inserted(2, 5, 2));
    assert_eq!(insert(&mut reorder, 0, payload(b"y")), inserted(0, 1, 0));
    assert_eq!(insert(&mut reorder, 12, Payload::EMPTY), inserted(0, 0, 0));
    assert_eq!(read_all(&mut reorder), b"abCDefGHijxx");
}

#[test]
fn small_pieces_of_large_buffers_are_copied_together() {
    let pool = BufferPool::new(64 << 10, 16);
    let mut reorder = Reorder::new();
    let count = 20_000u64;
    // Given a reader that does not read, when ten bytes come in each 64 KiB buffer, all but the
    // first in one go in order and the other half out of order,
    let offsets = (0..count).map(|n| n * 10);
    let (early, late) = offsets.partition::<Vec<_>, _>(|&offset| offset < 100_000);
    for offset in early.iter().chain(late[1..].iter()).chain(&late[..1]) {
        let mut buffer = pool.take();
        buffer.as_mut_slice()[..10].fill((offset / 10) as u8);
        assert_eq!(insert(&mut reorder, *offset, buffer.freeze(10)).new_bytes, 10);
    }
    // then they cost little more than themselves, and nothing is lost.
    assert_eq!(reorder.readable(), count * 10);
    assert!(reorder.memory() < 600_000, "{} bytes held cost {}", count * 10, reorder.memory());
    assert!(pool.idle() > 0, "the buffers went back");
    assert!(read_all(&mut reorder).iter().enumerate().all(|(at, &byte)| byte == (at / 10) as u8));
    assert_eq!(reorder.memory(), 0);
}

#[test]
fn scattered_small_pieces_pin_no_large_buffers() {
    let pool = BufferPool::new(64 << 10, 16);
    let mut reorder = Reorder::new();
    for n in 1..10_000 {
        insert(&mut reorder, 2 * n, pool.take().freeze(1));
    }
    assert_eq!(reorder.holes().count(), 9999);
    assert!(reorder.memory() <= PINNED_MAX + 10_000 * (PIECE_COST + 4), "{}", reorder.memory());
}

const STREAM: usize = 4000;

#[derive(Clone, Debug)]
enum Op {
    /// Offset, length, and how many times larger the storage is.
    Insert(usize, usize, usize),
    /// The next bytes in order.
    InsertNext(usize),
    Read(usize),
}

fn any_op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![0usize..20, 0usize..400];
    prop_oneof![
        5 => (0usize..600, len, prop_oneof![Just(1usize), Just(3), Just(500)]).prop_map(|(at, len, times)| Op::Insert(at, len, times)),
        2 => (1usize..200).prop_map(Op::InsertNext),
        1 => (0usize..1000).prop_map(Op::Read),
    ]
}

proptest! {
    /// The model: per offset the byte that came first. Each insertion brings bytes of its own, so
    /// that a later copy that wins is noticed.
    #[test]
    fn behaves_as_a_vector(ops in prop::collection::vec(any_op(), 1..80)) {
        let mut reorder = Reorder::new();
        let mut model: Vec<Option<u8>> = vec![None; STREAM];
        let (mut nxt, mut read) = (0usize, 0usize);
        let mut held = 0usize;
        for (turn, op) in ops.into_iter().enumerate() {
            match op {
                Op::Insert(..) | Op::InsertNext(_) => {
                    let (at, len, times) = match op {
                        // Around the read position, reaching back a little.
                        Op::Insert(at, len, times) => ((read + at).saturating_sub(100).min(STREAM), len, times),
                        Op::InsertNext(len) => (nxt, len, 1),
                        Op::Read(_) => unreachable!(),
                    };
                    let len = len.min(STREAM - at);
                    let bytes: Vec<u8> = (0..len).map(|n| (turn * 31 + n) as u8).collect();
                    let mut new_bytes = 0;
                    for (slot, &byte) in model[at..at + len].iter_mut().zip(&bytes) {
                        if slot.is_none() {
                            *slot = Some(byte);
                            new_bytes += 1;
                        }
                    }
                    let before = nxt;
                    nxt = model.iter().position(Option::is_none).unwrap_or(STREAM);
                    held += new_bytes;
                    let got = insert(&mut reorder, at as u64, Payload::copy_with_capacity(&bytes, len * times));
                    prop_assert_eq!(got, inserted(new_bytes as u64, (len - new_bytes) as u64, (nxt - before) as u64));
                }
                Op::Read(max) => {
                    let mut left = max;
                    while let Some(piece) = reorder.read(left) {
                        prop_assert!(!piece.is_empty() && piece.len() <= left);
                        let expected: Option<Vec<u8>> = model[read..read + piece.len()].iter().copied().collect();
                        prop_assert_eq!(Some(piece.to_vec()), expected);
                        read += piece.len();
                        left -= piece.len();
                        held -= piece.len();
                    }
                    prop_assert!(left == 0 || read == nxt);
                }
            }
            prop_assert_eq!(reorder.nxt(), nxt as u64);
            prop_assert_eq!(reorder.readable(), (nxt - read) as u64);
            prop_assert_eq!(reorder.out_of_order(), (held - (nxt - read)) as u64);
            let end = model.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
            let missing: Vec<usize> = (0..end).filter(|&at| model[at].is_none()).collect();
            let holes: Vec<usize> = reorder.holes().flat_map(|hole| hole.start as usize..hole.end as usize).collect();
            prop_assert_eq!(holes, missing);
            let pieces = reorder.ready.len() + reorder.ahead.len();
            let expected: usize = reorder.ready.iter().chain(reorder.ahead.values()).map(cost).sum();
            prop_assert_eq!(reorder.memory(), expected);
            prop_assert!(pieces <= held);
        }
    }
}
