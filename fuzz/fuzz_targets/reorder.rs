//! The reorder buffer beside a model of it: bytes in order, the first copy of each stays, memory within its bound. The
//! very file of the core.
#![no_main]

extern crate alloc;

#[path = "../../stack/core/src/mptcp/reorder.rs"]
#[rustfmt::skip]
mod reorder;

use anabranch_frame::{Payload, Pools};
use libfuzzer_sys::fuzz_target;
use reorder::Reorder;

type Copies = Pools<4>;

/// Bytes of the stream that are tried.
const STREAM: usize = 8192;

fuzz_target!(|input: &[u8]| {
    let copies: Copies = Pools::new([(256, 64), (1_664, 64), (4_096, 64), (16_384, 16)]);
    let [start, input @ ..] = input else { return };
    let mut buffer = if *start == 0 { Reorder::new() } else { Reorder::starting_at(u64::from(*start)) };
    let mut model: Vec<Option<u8>> = vec![None; STREAM + 1024];
    let (mut read, mut pieces) = (usize::from(*start), 0u64);
    for (version, op) in (1u8..).chain(1..).zip(input.chunks_exact(4)) {
        let at = usize::from(u16::from_be_bytes([op[0] & 0x1f, op[1]]));
        let len = usize::from(op[2]) << (op[3] & 1);
        match op[0] >> 6 {
            0..=2 => {
                // A piece of larger storage, so that some fill theirs badly.
                let storage = Payload::from(vec![version; len + usize::from(op[3]) * 8]);
                let inserted = buffer.insert(at as u64, storage.slice(..len), &copies);
                let mut fresh = 0;
                for (offset, byte) in model.iter_mut().enumerate().skip(at).take(len) {
                    if byte.is_none() && offset >= read {
                        *byte = Some(version);
                        fresh += 1;
                    }
                }
                pieces += 1;
                assert_eq!((inserted.new_bytes, inserted.new_bytes + inserted.duplicate_bytes), (fresh, len as u64));
            }
            _ if op[3] > 250 => drop(buffer.collapse()),
            _ => {
                if let Some(payload) = buffer.read(len) {
                    let expected: Vec<u8> =
                        model[read..read + payload.len()].iter().map(|byte| byte.unwrap()).collect();
                    assert_eq!(payload.as_slice(), expected);
                    read += payload.len();
                }
            }
        }
        let nxt = (read..).find(|&offset| model[offset].is_none()).unwrap();
        let ahead = model[nxt..].iter().flatten().count();
        assert_eq!((buffer.nxt(), buffer.readable()), (nxt as u64, (nxt - read) as u64));
        assert_eq!(buffer.out_of_order(), ahead as u64);
        let held = nxt - read + ahead;
        assert!(buffer.memory() as u64 <= (128 << 10) + 8192 + 4 * held as u64 + 128 * pieces, "{}", buffer.memory());
    }
    let rest: Vec<u8> = buffer.into_pieces().flat_map(|(_, payload)| payload.to_vec()).collect();
    let expected: Vec<u8> = model[read..].iter().flatten().copied().collect();
    assert_eq!(rest, expected);
});
