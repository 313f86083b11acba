use std::vec::Vec;

use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::wire::mptcp::tests::any_mptcp;
use crate::wire::{DataAck, Dss};

const TS: Timestamps = Timestamps { value: 0x0102_0304, echo: 0x0506_0708 };
const TS_BYTES: [u8; 10] = [8, 10, 1, 2, 3, 4, 5, 6, 7, 8];

fn parse(pieces: &[&[u8]]) -> TcpOptions {
    TcpOptions::parse(&pieces.concat())
}

#[test]
fn syn_options_stand_as_linux_puts_them() {
    let mss: &[u8] = &[2, 4, 0x05, 0xb4];
    let scale: &[u8] = &[1, 3, 3, 7];
    let check = |window_scale, sack_permitted, timestamps, bytes: &[&[u8]]| {
        let mut writer = OptionWriter::new();
        writer.syn(1460, window_scale, sack_permitted, timestamps);
        assert_eq!(writer.as_slice(), bytes.concat());
        let expected =
            TcpOptions { mss: Some(1460), window_scale, sack_permitted, timestamps, ..TcpOptions::default() };
        assert_eq!(TcpOptions::parse(writer.as_slice()), expected);
    };
    check(None, false, None, &[mss]);
    check(Some(7), false, None, &[mss, scale]);
    check(None, true, None, &[mss, &[1, 1, 4, 2]]);
    check(Some(7), true, None, &[mss, &[1, 1, 4, 2], scale]);
    check(None, false, Some(TS), &[mss, &[1, 1], &TS_BYTES]);
    check(Some(7), false, Some(TS), &[mss, &[1, 1], &TS_BYTES, scale]);
    check(None, true, Some(TS), &[mss, &[4, 2], &TS_BYTES]);
    check(Some(7), true, Some(TS), &[mss, &[4, 2], &TS_BYTES, scale]);
}

#[test]
fn a_syn_with_everything_leaves_room_for_the_longest_option_of_its_own() {
    let mut writer = OptionWriter::new();
    writer.syn(1460, Some(14), true, Some(TS));
    assert_eq!(writer.remaining(), 20);
}

#[test]
fn timestamps_need_twelve_bytes() {
    let mut writer = OptionWriter::new();
    for _ in 0..3 {
        assert!(writer.timestamps(TS));
    }
    assert!(!writer.timestamps(TS), "4 bytes are left");
    assert_eq!(&writer.as_slice()[..12], &[&[1, 1][..], &TS_BYTES].concat()[..]);
    assert_eq!(writer.remaining(), 4);
}

fn blocks(count: u32) -> Vec<SackBlock> {
    (0..count).map(|i| (SeqNum(u32::MAX - i), SeqNum(i))).collect()
}

#[test]
fn sack_blocks_are_as_many_as_the_budget_leaves() {
    let mut plain = OptionWriter::new();
    assert_eq!(plain.sack(&blocks(5), 0), 4, "plain TCP without timestamps");

    let mut plain = OptionWriter::new();
    plain.timestamps(TS);
    assert_eq!(plain.sack(&blocks(5), 0), 3, "plain TCP with timestamps");
    assert_eq!(TcpOptions::parse(plain.as_slice()).sack.as_slice(), blocks(3));

    let long = MptcpOption::Dss(Dss { ack: Some(DataAck::Long(7)), ..Dss::default() });
    let mut eight = OptionWriter::new();
    eight.timestamps(TS);
    assert_eq!(eight.sack(&blocks(5), OptionWriter::mptcp_len(&long)), 1, "an 8-byte DATA_ACK");
    assert!(eight.mptcp(&long));

    let short = MptcpOption::Dss(Dss { ack: Some(DataAck::Short(7)), ..Dss::default() });
    let mut four = OptionWriter::new();
    four.timestamps(TS);
    assert_eq!(four.sack(&blocks(5), OptionWriter::mptcp_len(&short)), 2, "a 4-byte DATA_ACK");
    assert!(four.mptcp(&short));

    let mut none = OptionWriter::new();
    assert_eq!(none.sack(&blocks(5), 29), 0);
    assert_eq!(none.sack(&blocks(5), usize::MAX), 0);
    assert_eq!(none.sack(&[], 0), 0);
    assert!(none.as_slice().is_empty());
}

#[test]
fn an_mptcp_option_that_does_not_fit_is_not_written() {
    let join = MptcpOption::Join(crate::wire::MpJoin::Ack { hmac: [7; 20] });
    let mut writer = OptionWriter::new();
    assert!(writer.mptcp(&join));
    assert!(!writer.mptcp(&join), "16 bytes are left");
    assert_eq!(writer.as_slice().len(), 24);
    assert!(writer.mptcp(&MptcpOption::Prio { backup: true }));
    assert_eq!(&writer.as_slice()[24..], &[30, 3, 0x51, 1]);
}

#[test]
fn everything_of_todays_internet_is_read() {
    let options = parse(&[&[34, 10, 1, 2, 3, 4, 5, 6, 7, 8], &[28, 4, 0x80, 5], &[5, 10, 0, 0, 0, 1, 0, 0, 0, 9]]);
    assert_eq!(options.fast_open.as_ref().map(FastOpen::cookie), Some(&[1, 2, 3, 4, 5, 6, 7, 8][..]));
    assert_eq!(options.user_timeout, Some(0x8005));
    assert_eq!(options.sack.as_slice(), &[(SeqNum(1), SeqNum(9))]);
    assert_eq!(parse(&[&[34, 2]]).fast_open, Some(FastOpen::REQUEST), "a request for a cookie");
    assert!(parse(&[&[19, 18], &[0; 16]]).signature == Some(Signature::Md5));
    assert!(parse(&[&[29, 4, 1, 1]]).signature == Some(Signature::Ao));
    assert!(parse(&[&[8, 10, 0, 0, 0, 0, 0, 0, 0, 0]]).signature.is_none());
}

#[test]
fn a_wrong_length_costs_only_the_option_itself() {
    let wrong: [&[u8]; 13] = [
        &[2, 3, 5],
        &[2, 4, 0, 0],
        &[3, 4, 7, 7],
        &[4, 3, 0],
        &[5, 2],
        &[5, 9, 0, 0, 0, 0, 0, 0, 0],
        &[5, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[8, 9, 0, 0, 0, 0, 0, 0, 0],
        &[19, 4, 0, 0],
        &[28, 3, 0],
        &[29, 3, 0],
        &[34, 5, 1, 2, 3],
        &[30, 5, 0x20, 0x01, 0],
    ];
    for wrong in wrong {
        let options = parse(&[&[3, 3, 9], wrong, &TS_BYTES, &[5, 10, 0, 0, 0, 1, 0, 0, 0, 9]]);
        let expected = TcpOptions {
            window_scale: Some(9),
            timestamps: Some(TS),
            sack: [(SeqNum(1), SeqNum(9))].into_iter().collect(),
            malformed: 1,
            ..TcpOptions::default()
        };
        assert_eq!(options, expected, "{wrong:?}");
    }
}

#[test]
fn a_length_that_leads_nowhere_ends_the_walk() {
    for lost in [&[8u8, 1][..], &[8, 0], &[8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[200], &[30, 255, 0]] {
        let options = parse(&[&[3, 3, 9], lost]);
        assert_eq!(options, TcpOptions { window_scale: Some(9), malformed: 1, ..TcpOptions::default() }, "{lost:?}");
    }
}

#[test]
fn the_end_is_the_end_and_the_unknown_is_passed_over() {
    let options = parse(&[&[253, 4, 1, 2], &[1, 1, 3, 3, 9], &[0, 8, 1]]);
    assert_eq!(options, TcpOptions { window_scale: Some(9), ..TcpOptions::default() });
}

#[test]
fn the_first_of_two_counts() {
    let options = parse(&[&[2, 4, 1, 0], &[2, 4, 2, 0], &[3, 3, 1], &[3, 3, 2], &[4, 2], &[4, 2]]);
    assert_eq!((options.mss, options.window_scale, options.malformed), (Some(256), Some(1), 3));
    let sack = |end: u8| [5, 10, 0, 0, 0, 1, 0, 0, 0, end];
    let options = parse(&[&sack(9), &sack(11)]);
    assert_eq!((options.sack.as_slice(), options.malformed), (&[(SeqNum(1), SeqNum(9))][..], 1));
}

#[test]
fn mptcp_options_are_kept_in_their_order_as_far_as_there_is_room() {
    let prio: &[u8] = &[30, 3, 0x50];
    let rm: &[u8] = &[30, 4, 0x40, 9];
    let options = parse(&[rm, prio, prio, rm, prio]);
    assert_eq!((options.mptcp.len(), options.malformed), (4, 1));
    assert!(matches!(options.mptcp[0], MptcpOption::RemoveAddr(_)));
    assert!(matches!(options.mptcp[3], MptcpOption::RemoveAddr(_)));
}

proptest! {
    #[test]
    fn any_bytes_at_all_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..=60)) {
        let options = TcpOptions::parse(&bytes);
        prop_assert!(usize::from(options.malformed) <= bytes.len());
    }

    #[test]
    fn a_corrupted_option_never_spoils_its_neighbours(
        option in any_mptcp(),
        at in 2usize..30,
        value in any::<u8>(),
    ) {
        // Given an MPTCP option between two others, when one of its bytes is any other, not its length:
        let len = option.wire_len().unwrap_or(0);
        let mut bytes = option.emit(len);
        let last = bytes.len() - 1;
        bytes[at.min(last)] = value;
        let options = parse(&[&[3, 3, 9], &bytes, &TS_BYTES]);
        // then the two are there, and it is itself, or another one, or unknown, or counted.
        prop_assert_eq!(options.window_scale, Some(9));
        prop_assert_eq!(options.timestamps, Some(TS));
        prop_assert!(options.mptcp.len() + usize::from(options.malformed) <= 1);
    }

    #[test]
    fn an_option_cut_short_spoils_nothing_before_it(option in any_mptcp(), cut in 1usize..30) {
        let len = option.wire_len().unwrap_or(0);
        let bytes = option.emit(len);
        let kept = bytes.len().saturating_sub(cut);
        let options = parse(&[&TS_BYTES, &bytes[..kept]]);
        prop_assert_eq!(options.timestamps, Some(TS));
        prop_assert!(options.mptcp.is_empty());
        prop_assert_eq!(usize::from(options.malformed), usize::from(kept > 0));
    }

    #[test]
    fn a_whole_header_reads_as_it_was_written(
        timestamps in option::of(any::<(u32, u32)>()),
        sack in proptest::collection::vec(any::<(u32, u32)>(), 0..5),
        mptcp in any_mptcp(),
    ) {
        let sack: Vec<SackBlock> = sack.into_iter().map(|(start, end)| (SeqNum(start), SeqNum(end))).collect();
        let timestamps = timestamps.map(|(value, echo)| Timestamps { value, echo });
        let mut writer = OptionWriter::new();
        let timestamps = timestamps.filter(|&ts| writer.timestamps(ts));
        let blocks = writer.sack(&sack, OptionWriter::mptcp_len(&mptcp));
        let written = writer.mptcp(&mptcp);

        let expected = TcpOptions {
            timestamps,
            sack: sack[..blocks].iter().copied().collect(),
            mptcp: written.then_some(mptcp).into_iter().collect(),
            ..TcpOptions::default()
        };
        prop_assert_eq!(TcpOptions::parse(writer.as_slice()), expected);
    }
}
