//! Boxes that take MPTCP's options off, or swallow what has them.

use anabranch_sim::middlebox::{Discard, Strip, Which, option};

use super::*;

const SYN: Which = Which::SYN.with_option(option::MPTCP);

#[test]
fn the_syn_is_stripped() {
    Scenario {
        fallback: [Some(FallbackReason::SynAckNoCapable), Some(FallbackReason::SynNoCapable)],
        trouble: [&[("MPTcpExtMPCapableFallbackSYNACK", 1..=1)], &[]],
        ..Scenario::one_path(|net| net.box_up(0, Strip::mptcp(Which::SYN)))
    }
    .run(7001);
}

#[test]
fn the_syn_ack_is_stripped() {
    Scenario {
        fallback: [Some(FallbackReason::SynAckNoCapable), Some(FallbackReason::AckNoCapable)],
        trouble: [&[("MPTcpExtMPCapableFallbackSYNACK", 1..=1)], &[("MPTcpExtMPCapableFallbackACK", 1..=1)]],
        ..Scenario::one_path(|net| net.box_down(0, Strip::mptcp(Which::SYN_ACK)))
    }
    .run(7002);
}

#[test]
fn everything_behind_the_syns_is_stripped_both_ways() {
    Scenario {
        fallback: [Some(FallbackReason::FirstDataNoMapping), Some(FallbackReason::AckNoCapable)],
        trouble: [&[("MPTcpExtMPCapableDataFallback", 1..=1)], &[("MPTcpExtMPCapableFallbackACK", 1..=1)]],
        ..Scenario::one_path(|net| everywhere(net, 1, || Strip::mptcp(Which::NO_SYN)))
    }
    .run(7003);
}

#[test]
fn everything_behind_the_syn_is_stripped_on_the_way_up() {
    Scenario {
        fallback: [Some(FallbackReason::FirstDataNoMapping), Some(FallbackReason::AckNoCapable)],
        trouble: [&[("MPTcpExtMPCapableDataFallback", 1..=1)], &[("MPTcpExtMPCapableFallbackACK", 1..=1)]],
        ..Scenario::one_path(|net| net.box_up(0, Strip::mptcp(Which::NO_SYN)))
    }
    .run(7004);
}

#[test]
fn everything_behind_the_syn_ack_is_stripped_on_the_way_down() {
    Scenario {
        fallback: [Some(FallbackReason::FirstDataNoMapping), Some(FallbackReason::NoDss)],
        trouble: [&[("MPTcpExtMPCapableDataFallback", 1..=1)], &[("MPTcpExtDssFallback", 1..=1)]],
        ..Scenario::one_path(|net| net.box_down(0, Strip::mptcp(Which::NO_SYN)))
    }
    .run(7005);
}

#[test]
fn data_is_stripped_on_the_way_up() {
    Scenario {
        fallback: [Some(FallbackReason::NoDss), Some(FallbackReason::FirstDataNoMapping)],
        trouble: [&[("MPTcpExtDssFallback", 1..=1)], &[("MPTcpExtMPCapableDataFallback", 1..=1)]],
        ..Scenario::one_path(|net| net.box_up(0, Strip::mptcp(Which::DATA)))
    }
    .run(7006);
}

#[test]
fn data_is_stripped_on_the_way_down() {
    Scenario {
        fallback: [Some(FallbackReason::FirstDataNoMapping), Some(FallbackReason::NoDss)],
        trouble: [&[("MPTcpExtMPCapableDataFallback", 1..=1)], &[("MPTcpExtDssFallback", 1..=1)]],
        ..Scenario::one_path(|net| net.box_down(0, Strip::mptcp(Which::DATA)))
    }
    .run(7007);
}

#[test]
fn acknowledgements_are_stripped_on_the_way_up() {
    Scenario {
        fallback: [Some(FallbackReason::FirstDataNoMapping), Some(FallbackReason::AckNoCapable)],
        trouble: [&[("MPTcpExtMPCapableDataFallback", 1..=1)], &[("MPTcpExtMPCapableFallbackACK", 1..=1)]],
        ..Scenario::one_path(|net| net.box_up(0, Strip::mptcp(Which::PURE_ACK)))
    }
    .run(7008);
}

#[test]
fn data_is_stripped_from_the_hundredth_segment_on() {
    Scenario {
        fallback: [Some(FallbackReason::NoDss); 2],
        trouble: [&[("MPTcpExtDssFallback", 1..=1)], &[("MPTcpExtDssFallback", 1..=1)]],
        ..Scenario::one_path(|net| net.box_up(0, Strip::mptcp(Which::DATA.after(100))))
    }
    .run(7009);
}

#[test]
fn everything_is_stripped_from_half_a_second_on() {
    Scenario {
        fallback: [Some(FallbackReason::NoDss); 2],
        trouble: [&[("MPTcpExtDssFallback", 1..=1)], &[("MPTcpExtDssFallback", 1..=1)]],
        ..Scenario::one_path(|net| everywhere(net, 1, || Strip::mptcp(Which::ALL.from(ms(400)))))
    }
    .run(7010);
}

#[test]
fn one_segment_in_a_hundred_is_stripped() {
    Scenario {
        fallback: [Some(FallbackReason::NoDss); 2],
        trouble: [&[("MPTcpExtDssFallback", 1..=1)], &[("MPTcpExtDssFallback", 1..=1)]],
        ..Scenario::one_path(|net| net.box_up(0, Strip::mptcp(Which::DATA.after(50).every(100))))
    }
    .run(7011);
}

#[test]
fn the_syn_of_the_join_is_stripped() {
    Scenario {
        carried: [USED, UNUSED],
        trouble: [&[("MPTcpExtMPJoinSynAckNoMPJoin", 1..=1), ("MPTcpExtMPRstTx", 1..=1), ("TcpOutRsts", 1..=1)], &[]],
        resets: &[ResetReason::MptcpError],
        ..Scenario::two_paths(|net| net.box_up(1, Strip::mptcp(Which::SYN)))
    }
    .run(7012);
}

#[test]
fn the_syn_ack_of_the_join_is_stripped() {
    Scenario {
        carried: [USED, UNUSED],
        trouble: [&[("MPTcpExtMPJoinSynAckNoMPJoin", 1..=1), ("MPTcpExtMPRstTx", 1..=1), ("TcpOutRsts", 1..=1)], &[]],
        resets: &[ResetReason::MptcpError],
        ..Scenario::two_paths(|net| net.box_down(1, Strip::mptcp(Which::SYN_ACK)))
    }
    .run(7013);
}

#[test]
fn the_third_ack_of_the_join_is_stripped() {
    Scenario {
        carried: [USED, UNUSED],
        trouble: [
            &[("MPTcpExtMPRstRx", 1..=1)],
            &[("MPTcpExtMPJoinAckNoMPJoin", 1..=1), ("MPTcpExtMPRstTx", 1..=1), ("TcpOutRsts", 1..=1)],
        ],
        resets: &[ResetReason::MptcpError],
        ..Scenario::two_paths(|net| net.box_up(1, Strip::mptcp(Which::NO_SYN)))
    }
    .run(7014);
}

#[test]
fn the_second_path_strips_data_from_the_hundredth_segment_on() {
    Scenario {
        bytes: 15 * MEGABYTE,
        carried: [USED, ANY],
        within: secs(5),
        trouble: [
            &[("MPTcpExtMPRstRx", 1..=9)],
            &[("MPTcpExtFallbackFailed", 1..=9), ("MPTcpExtMPRstTx", 1..=9), ("TcpOutRsts", 1..=2000)],
        ],
        resets: &[ResetReason::Middlebox],
        ..Scenario::two_paths(|net| net.box_up(1, Strip::mptcp(Which::DATA.after(100))))
    }
    .run(7015);
}

#[test]
fn the_first_path_strips_everything_from_half_a_second_on() {
    Scenario {
        within: secs(3),
        trouble: [
            &[
                ("MPTcpExtFallbackFailed", 1..=1),
                ("MPTcpExtMPJoinSynAckNoMPJoin", 1..=1),
                ("MPTcpExtMPRstTx", 2..=2),
                ("TcpOutRsts", 1..=500),
            ],
            &[("MPTcpExtFallbackFailed", 1..=1), ("MPTcpExtMPRstTx", 1..=1), ("TcpOutRsts", 1..=500)],
        ],
        resets: &[ResetReason::Middlebox, ResetReason::MptcpError],
        ..Scenario::two_paths(|net| {
            net.box_up(0, Strip::mptcp(Which::ALL.from(ms(400))));
            net.box_down(0, Strip::mptcp(Which::ALL.from(ms(400))));
        })
    }
    .run(7016);
}

#[test]
fn acknowledgements_are_stripped_on_the_second_path() {
    Scenario::two_paths(|net| net.box_down(1, Strip::mptcp(Which::PURE_ACK.after(3)))).run(7017);
}

#[test]
fn syns_with_mptcp_are_dropped() {
    Scenario {
        within: secs(5),
        fallback: [Some(FallbackReason::SynDropped), Some(FallbackReason::SynNoCapable)],
        trouble: [&[("MPTcpExtMPCapableFallbackSYNACK", 1..=1), ("MPTcpExtMPCapableSYNTXDrop", 1..=1)], &[]],
        ..Scenario::one_path(|net| net.box_up(0, Discard::new(SYN)))
    }
    .run(7018);
}

#[test]
fn syn_acks_with_mptcp_are_dropped() {
    Scenario {
        within: secs(5),
        fallback: [Some(FallbackReason::SynDropped), Some(FallbackReason::SynNoCapable)],
        trouble: [&[("MPTcpExtMPCapableFallbackSYNACK", 1..=1), ("MPTcpExtMPCapableSYNTXDrop", 1..=1)], &[]],
        ..Scenario::one_path(|net| net.box_down(0, Discard::new(Which::SYN_ACK.with_option(option::MPTCP))))
    }
    .run(7019);
}

#[test]
fn data_with_mptcp_is_dropped_on_the_second_path() {
    Scenario::two_paths(|net| net.box_up(1, Discard::new(Which::DATA.with_option(option::MPTCP).after(100)))).run(7020);
}

#[test]
fn joins_are_dropped() {
    Scenario { carried: [USED, 0..=0], ..Scenario::two_paths(|net| net.box_up(1, Discard::new(SYN))) }.run(7021);
}

#[test]
fn all_options_are_stripped() {
    const KINDS: [u8; 5] =
        [option::WINDOW_SCALE, option::SACK_PERMITTED, option::SACK, option::TIMESTAMPS, option::MPTCP];
    Scenario {
        fallback: [Some(FallbackReason::SynAckNoCapable), Some(FallbackReason::SynNoCapable)],
        trouble: [&[("MPTcpExtMPCapableFallbackSYNACK", 1..=1)], &[]],
        ..Scenario::one_path(|net| everywhere(net, 1, || Strip::options(&KINDS, Which::ALL)))
    }
    .run(7022);
}

#[test]
fn options_of_tcp_are_stripped_from_the_syns() {
    // Without SACK there is NewReno, without window scaling 64 KiB, without timestamps other ways to measure.
    let boxes: [fn(&mut Pair); 3] = [
        |net| everywhere(net, 2, || Strip::options(&[option::SACK_PERMITTED], Which::ALL)),
        |net| everywhere(net, 2, || Strip::options(&[option::WINDOW_SCALE], Which::ALL)),
        |net| everywhere(net, 2, || Strip::options(&[option::TIMESTAMPS], Which::ALL)),
    ];
    for boxes in boxes {
        Scenario { within: secs(4), carried: [USED, ANY], ..Scenario::two_paths(boxes) }.run(7023);
        Scenario { within: secs(4), ..Scenario::two_paths(boxes) }.plain().run(7023);
    }
}
