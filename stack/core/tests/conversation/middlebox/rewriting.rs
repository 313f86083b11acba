//! Boxes that cut, join, number and change what passes.

use anabranch_sim::middlebox::{Alter, Coalesce, Gateway, Keep, Renumber, Split, Which};

use super::*;

#[test]
fn segments_are_cut_up_with_the_options_on_all_pieces() {
    Scenario::two_paths(|net| everywhere(net, 2, || Split::pieces_of(333))).run(7101);
}

#[test]
fn segments_are_cut_up_with_the_options_on_the_first_piece() {
    Scenario::two_paths(|net| everywhere(net, 2, || Split::pieces_of(700).keep(Keep::First))).run(7102);
}

#[test]
fn segments_are_cut_up_with_the_options_on_the_last_piece() {
    Scenario {
        fallback: [Some(FallbackReason::FirstDataNoMapping); 2],
        trouble: [&[("MPTcpExtMPCapableDataFallback", 1..=1)], &[("MPTcpExtMPCapableDataFallback", 1..=1)]],
        ..Scenario::one_path(|net| everywhere(net, 1, || Split::pieces_of(700).keep(Keep::Last)))
    }
    .run(7103);
}

#[test]
fn segments_are_cut_up_with_the_options_on_the_last_piece_on_two_paths() {
    Scenario {
        bytes: 10 * MEGABYTE,
        within: secs(4),
        carried: [USED, ANY],
        trouble: [
            &[("MPTcpExtMPRstRx", 1..=9)],
            &[("MPTcpExtFallbackFailed", 1..=9), ("MPTcpExtMPRstTx", 1..=9), ("TcpOutRsts", 1..=2000)],
        ],
        resets: &[ResetReason::Middlebox],
        ..Scenario::two_paths(|net| net.box_up(1, Split::pieces_of(700).keep(Keep::Last)))
    }
    .run(7104);
}

#[test]
fn cut_up_mappings_are_checked_whole() {
    Scenario::two_paths(|net| everywhere(net, 2, || Split::pieces_of(333).keep(Keep::First))).checksums().run(7105);
}

#[test]
fn segments_are_joined_with_the_options_of_the_first() {
    Scenario {
        gso: false,
        fallback: [Some(FallbackReason::NoDss); 2],
        trouble: [&[("MPTcpExtDssFallback", 1..=1)], &[("MPTcpExtDssFallback", 1..=1)]],
        ..Scenario::one_path(|net| net.box_up(0, Coalesce::new(ms(2), 2800, Keep::First)))
    }
    .run(7106);
}

#[test]
fn segments_are_joined_with_the_options_of_the_last() {
    Scenario {
        gso: false,
        fallback: [Some(FallbackReason::NoDss); 2],
        trouble: [&[("MPTcpExtDssFallback", 1..=1)], &[("MPTcpExtDssFallback", 1..=1)]],
        ..Scenario::one_path(|net| net.box_up(0, Coalesce::new(ms(2), 2800, Keep::Last)))
    }
    .run(7107);
}

#[test]
fn segments_are_joined_on_the_second_path_with_the_options_of_the_first() {
    Scenario {
        gso: false,
        bytes: 10 * MEGABYTE,
        within: secs(4),
        carried: [USED, ANY],
        trouble: [
            &[("MPTcpExtMPRstRx", 1..=9)],
            &[("MPTcpExtFallbackFailed", 1..=9), ("MPTcpExtMPRstTx", 1..=9), ("TcpOutRsts", 1..=2000)],
        ],
        resets: &[ResetReason::Middlebox],
        ..Scenario::two_paths(|net| net.box_up(1, Coalesce::new(ms(2), 2900, Keep::First)))
    }
    .run(7108);
}

#[test]
fn segments_are_joined_on_the_second_path_with_the_options_of_the_first_and_checked() {
    Scenario {
        gso: false,
        bytes: 10 * MEGABYTE,
        within: secs(4),
        carried: [USED, ANY],
        trouble: [
            &[("MPTcpExtMPRstRx", 1..=9)],
            &[("MPTcpExtFallbackFailed", 1..=9), ("MPTcpExtMPRstTx", 1..=9), ("TcpOutRsts", 1..=2000)],
        ],
        resets: &[ResetReason::Middlebox],
        ..Scenario::two_paths(|net| net.box_up(1, Coalesce::new(ms(2), 2900, Keep::First))).checksums()
    }
    .run(7109);
}

#[test]
fn segments_are_cut_and_joined_by_offload() {
    fn offload(net: &mut Pair) {
        everywhere(net, 2, || Coalesce::new(ms(1), 40_000, Keep::All));
        everywhere(net, 2, || Split::pieces_of(1100));
    }
    Scenario::two_paths(offload).run(7110);
    Scenario::two_paths(offload).checksums().run(7110);
}

#[test]
fn sequence_numbers_are_made_random() {
    let scenario = || Scenario::two_paths(|net| (0..2).for_each(|path| net.box_both(path, Renumber::default())));
    scenario().run(7111);
    scenario().plain().run(7111);
}

#[test]
fn bytes_are_changed_on_the_second_path() {
    Scenario {
        within: secs(4),
        carried: [USED, ANY],
        trouble: [
            &[("MPTcpExtMPRstRx", 1..=9)],
            &[
                ("MPTcpExtDataCsumErr", 1..=9),
                ("MPTcpExtFallbackFailed", 1..=9),
                ("MPTcpExtMPFailTx", 1..=9),
                ("MPTcpExtMPRstTx", 1..=9),
                ("TcpOutRsts", 1..=2000),
            ],
        ],
        resets: &[ResetReason::Middlebox],
        ..Scenario::two_paths(|net| net.box_up(1, Alter::new(Which::DATA.after(19).every(20)))).checksums()
    }
    .run(7112);
}

#[test]
fn every_box_at_once() {
    Scenario::two_paths(|net| {
        for path in 0..2 {
            net.box_both(path, Renumber::default());
        }
        everywhere(net, 2, || Coalesce::new(ms(1), 9_000, Keep::All));
        everywhere(net, 2, || Split::pieces_of(512).keep(Keep::First));
        everywhere(net, 2, || Gateway::replacing([("GET / HTTP/1.1", "get / http/1.0")]));
    })
    .checksums()
    .run(7113);
}
