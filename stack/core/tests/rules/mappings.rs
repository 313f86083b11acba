//! Which byte of the stream a byte of a subflow is.

use anabranch_core::wire::{DataAck, Dss, Mapping, MptcpOption};
use anabranch_core::{FallbackReason, SocketOptions};

use crate::peer::{Peer, Say, bytes_at, token_and_idsn};

const KEY: u64 = 0x0123_4567_89ab_cdef;

fn connected() -> Peer {
    Peer::connected(KEY, &SocketOptions::default())
}

/// Bytes of the stream from `off` on, at `pos`, with or without options.
fn data(pos: u32, options: Vec<MptcpOption>, payload: &[u8]) -> Say<'_> {
    Say { pos, options, payload, ..Say::default() }
}

/// RFC 8684 §3.3.1: what a known mapping covers needs none of its own.
#[test]
fn a_mapping_is_longer_than_its_segment() {
    let mut peer = connected();
    let stream = bytes_at(0, 3000);
    let mapping = peer.maps(1, 0, 3000);
    peer.say(0, &data(1, vec![mapping], &stream[..1000]));
    peer.say(0, &data(1001, vec![], &stream[1000..2000]));
    peer.say(0, &data(2001, vec![], &stream[2000..]));
    assert_eq!(peer.read(), stream);
    assert!(peer.info().mptcp);
}

#[test]
fn the_segment_with_the_mapping_comes_last() {
    let mut peer = connected();
    let stream = bytes_at(0, 3000);
    // Given the two segments behind it, whose bytes have no place yet,
    peer.say(0, &data(1001, vec![], &stream[1000..2000]));
    peer.say(0, &data(2001, vec![], &stream[2000..]));
    assert_eq!(peer.read(), b"");
    let duplicates = peer.heard(0);
    assert!(duplicates.iter().all(|ack| peer.acked(ack).is_none_or(|acked| acked == 0)));
    // when the first one comes and they come again, then nothing is missing and nobody fell back.
    let mapping = peer.maps(1, 0, 3000);
    peer.say(0, &data(1, vec![mapping], &stream[..1000]));
    peer.say(0, &data(1001, vec![], &stream[1000..2000]));
    peer.say(0, &data(2001, vec![], &stream[2000..]));
    assert_eq!(peer.read(), stream);
    assert!(peer.info().mptcp);
}

/// Resegmentation: one segment has the end of one mapping and the beginning of the next.
#[test]
fn a_segment_straddles_two_mappings_that_are_known() {
    let mut peer = connected();
    peer.join(1);
    // Given bytes 1000..1500 of the stream on the other subflow, so that offsets and positions part there,
    let stream = bytes_at(0, 2500);
    let elsewhere = peer.maps(1, 1000, 500);
    peer.say(1, &data(1, vec![elsewhere], &stream[1000..1500]));
    // and two mappings that are known from the first and the last segment that was cut out of theirs,
    let (first, second) = (peer.maps(1, 0, 1000), peer.maps(1001, 1500, 1000));
    peer.say(0, &data(1, vec![first], &stream[..500]));
    peer.say(0, &data(1501, vec![second], &stream[2000..]));
    // when one without an option carries the rest of both,
    let middle = [&stream[500..1000], &stream[1500..2000]].concat();
    peer.say(0, &data(501, vec![], &middle));
    // then each half goes where it belongs.
    assert_eq!(peer.read(), stream);
    assert_eq!(peer.shard.counters().dss_not_matching, 0);
}

/// The same, and the box kept only the first mapping: on the only subflow TCP goes on with it, as in the kernel.
#[test]
fn a_segment_straddles_a_mapping_and_nothing() {
    let mut peer = connected();
    let stream = bytes_at(0, 2000);
    let first = peer.maps(1, 0, 1000);
    peer.say(0, &data(1, vec![first], &stream[..1500]));
    peer.say(0, &data(1501, vec![], &stream[1500..]));
    assert_eq!(peer.read(), stream);
    assert_eq!(peer.info().fallback, Some(FallbackReason::NoDss));
    assert_eq!(peer.shard.counters().dss_fallback, 1);
}

/// With two subflows the one that lost a mapping is reset; its bytes come again on the other one.
#[test]
fn a_segment_straddles_a_mapping_and_nothing_beside_another_subflow() {
    let mut peer = connected();
    peer.join(1);
    let stream = bytes_at(0, 2000);
    let first = peer.maps(1, 0, 1000);
    peer.say(1, &data(1, vec![first], &stream[..1500]));
    assert_eq!(peer.read(), stream[..1000], "what had a mapping is not lost");
    assert!(peer.heard(1).iter().any(|segment| segment.options.mptcp.len() == 1 && segment.flags.0 & 4 != 0));
    let again = peer.maps(1, 0, 2000);
    peer.say(0, &data(1, vec![again], &stream));
    assert_eq!(peer.read(), stream[1000..]);
    assert_eq!(peer.shard.counters().fallback_failed, 1);
}

#[test]
fn the_same_mapping_comes_many_times() {
    let mut peer = connected();
    let stream = bytes_at(0, 4000);
    let mapping = peer.maps(1, 0, 4000);
    for _ in 0..3 {
        for (at, piece) in stream.chunks(700).enumerate() {
            peer.say(0, &data(1 + 700 * at as u32, vec![mapping.clone()], piece));
        }
    }
    assert_eq!(peer.read(), stream);
    assert!(peer.info().mptcp);
    let counters = peer.shard.counters();
    assert_eq!((counters.dss_not_matching, counters.dss_corruption_reset), (0, 0));
}

/// The same bytes under mappings of their own on two subflows: what came first stays.
#[test]
fn two_subflows_carry_the_same_bytes() {
    let mut peer = connected();
    peer.join(1);
    let stream = bytes_at(0, 3000);
    let (late, early, again) = (peer.maps(1, 1000, 1000), peer.maps(1, 500, 1000), peer.maps(1001, 0, 1000));
    peer.say(0, &data(1, vec![late], &stream[1000..2000]));
    // Bytes 1000..1500 come in another version: they were acknowledged already.
    let other: Vec<u8> = stream[500..1000].iter().copied().chain([0; 500]).collect();
    peer.say(1, &data(1, vec![early], &other));
    peer.say(0, &data(1001, vec![again], &stream[..1000]));
    assert_eq!(peer.read(), stream[..2000]);
}

/// A mapping is fixed once given. On the only subflow one that contradicts it makes the rest TCP.
#[test]
fn a_conflicting_mapping_on_the_only_subflow() {
    let mut peer = connected();
    let stream = bytes_at(0, 3000);
    let (first, second) = (peer.maps(1, 0, 2000), peer.maps(1001, 1500, 2000));
    peer.say(0, &data(1, vec![first], &stream[..1000]));
    peer.say(0, &data(1001, vec![second], &stream[1000..2000]));
    peer.say(0, &data(2001, vec![], &stream[2000..]));
    assert_eq!(peer.read(), stream);
    assert_eq!(peer.info().fallback, Some(FallbackReason::DssCorrupt));
    let counters = peer.shard.counters();
    assert_eq!((counters.dss_not_matching, counters.dss_corruption_fallback), (1, 1));
}

/// Beside another subflow the one that contradicts itself is reset.
#[test]
fn a_conflicting_mapping_beside_another_subflow() {
    let mut peer = connected();
    peer.join(1);
    let stream = bytes_at(0, 3000);
    let (first, second) = (peer.maps(1, 0, 2000), peer.maps(1001, 1500, 2000));
    peer.say(1, &data(1, vec![first], &stream[..1000]));
    peer.say(1, &data(1001, vec![second], &stream[1500..2500]));
    assert_eq!(peer.read(), stream[..1000]);
    let counters = peer.shard.counters();
    assert_eq!((counters.dss_not_matching, counters.dss_corruption_reset, counters.mp_rst_tx), (1, 1, 1));
    let rest = peer.maps(1, 1000, 2000);
    peer.say(0, &data(1, vec![rest], &stream[1000..]));
    assert_eq!(peer.read(), stream[1000..]);
}

/// A key whose initial data sequence number is less than 10000 before a multiple of 2^32.
const WRAPPING: u64 = 252_322;

/// RFC 8684 §3.3.1: four bytes stand for the nearest of the numbers that end so.
#[test]
fn short_numbers_go_over_32_bits() {
    let mut peer = Peer::connected(WRAPPING, &SocketOptions::default());
    let (_, idsn) = token_and_idsn(WRAPPING);
    assert!(idsn as u32 > u32::MAX - 10_000, "or it tests nothing: {idsn:x}");
    let stream = bytes_at(0, 40_000);
    for (at, off) in (0..40_000).step_by(1000).enumerate() {
        // The second of each pair comes first, so that some numbers lie ahead and some behind.
        let swapped = if at % 2 == 0 { off + 1000 } else { off - 1000 };
        let mapping = Mapping {
            dsn: u64::from(peer.dsn(swapped) as u32),
            dsn_long: false,
            ssn: 1 + swapped as u32,
            len: 1000,
            checksum: None,
        };
        let dss = Dss { ack: None, mapping: Some(mapping), data_fin: false };
        let payload = &stream[swapped as usize..][..1000];
        peer.say(0, &data(1 + swapped as u32, vec![MptcpOption::Dss(dss)], payload));
    }
    assert_eq!(peer.read(), stream);
    // It answers short numbers with short ones, on both sides of the wrap.
    let acks = peer.heard(0);
    let short = |segment: &&anabranch_core::wire::Segment| {
        segment
            .options
            .mptcp
            .iter()
            .any(|option| matches!(option, MptcpOption::Dss(Dss { ack: Some(DataAck::Short(_)), .. })))
    };
    assert!(acks.iter().filter(short).count() > 10);
    assert_eq!(acks.last().and_then(|ack| peer.acked(ack)), Some(40_000));
}

/// What DSN a mapping without sense has: none of the stream's, far ahead, or from before its start.
#[test]
fn mappings_that_lie_elsewhere_change_nothing() {
    for off in [u64::MAX / 2, 1 << 40, (-5000i64) as u64] {
        let mut peer = connected();
        peer.join(1);
        let stream = bytes_at(0, 2000);
        let (first, wild) = (peer.maps(1, 0, 1000), peer.maps(1, off, 1000));
        peer.say(0, &data(1, vec![first], &stream[..1000]));
        peer.say(1, &data(1, vec![wild], &stream[1000..]));
        assert_eq!(peer.read(), stream[..1000], "{off:x}");
        let rest = peer.maps(1001, 1000, 1000);
        peer.say(0, &data(1001, vec![rest], &stream[1000..]));
        assert_eq!(peer.read(), stream[1000..], "{off:x}");
    }
}
