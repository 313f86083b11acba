//! When what came is acknowledged, and which window is told.

use crate::harness::Script;

/// A server whose window does not grow any more.
fn settled(syn: &str) -> Script {
    Script::new().options(|options| options.rcvbuf = Some(60_000)).accepted_with(syn, "")
}

/// Sixteen full segments come and are acknowledged at once: the peer's slow start is over as far as we know.
fn warm(script: &mut Script) -> u32 {
    let mut at = 1;
    for _ in 0..16 {
        let end = at + 1000;
        script.run(&format!(
            "+0.001 < . {at}:{end}(1000) ack 1 win 65535
             +0     > . 1:1(0) ack {end}
             +0     read 1000"
        ));
        at = end;
    }
    at
}

/// RFC 9293 §3.8.6.3, RFC 5681 §4.2: every second full segment is acknowledged, a single one after 40 ms. A connection that
/// begins acknowledges everything at once (Linux's quick ACKs).
#[test]
fn a_lone_segment_is_acknowledged_late_and_two_at_once() {
    let mut script = settled("mss 1000");
    let at = warm(&mut script);
    assert_eq!(at, 16_001);
    script.run(
        "+0.001 < . 16001:17001(1000) ack 1 win 65535
         +0.04  > . 1:1(0) ack 17001
         +0.001 < . 17001:18001(1000) ack 1 win 65535
         +0.001 < . 18001:19001(1000) ack 1 win 65535
         +0     > . 1:1(0) ack 19001",
    );
    assert_eq!(script.counters().delayed_acks, 1);
}

/// As long as the window grows each segment is acknowledged: a sender in slow start sees the rate of the path in the
/// distances of acknowledgements, and leaves it in time (HyStart). Linux: `tcp_grow_window`.
#[test]
fn a_window_that_grows_is_a_slow_start_that_goes_on() {
    let mut script = Script::new().accepted_with("mss 1000,nop,wscale 7", "");
    let mut at = warm(&mut script);
    while at < 90_000 {
        let end = at + 1000;
        script.run(&format!(
            "+0.001 < . {at}:{end}(1000) ack 1 win 65535
             +0     > . 1:1(0) ack {end}
             +0     read 1000"
        ));
        at = end;
    }
    assert_eq!(script.counters().delayed_acks, 0);
}

/// Linux's pingpong mode: who answers soon lets the answer carry the acknowledgement, until once it does not come.
#[test]
fn an_answer_carries_the_acknowledgement() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    < P. 1:101(100) ack 1 win 65535
         +0    > . 1:1(0) ack 101
         +0    read 100
         +0.01 write 200
         +0    > P. 1:201(200) ack 101
         +0.1  < P. 101:201(100) ack 201 win 65535
         +0    read 100
         +0.01 quiet
         +0    write 200
         +0    > P. 201:401(200) ack 201
         +0.1  < P. 201:301(100) ack 401 win 65535
         +0    read 100
         +0.04 > . 401:401(0) ack 301
         +0.1  < P. 301:401(100) ack 401 win 65535
         +0    > . 401:401(0) ack 401",
    );
}

/// `TCP_QUICKACK` off begins in that mode, on leaves it.
#[test]
fn quick_acknowledgements_can_be_asked_for() {
    let mut script = Script::new().options(|options| options.quickack = false).accepted();
    script.run(
        "+0    < P. 1:101(100) ack 1 win 65535
         +0.02 quiet
         +0    set quickack on
         +0    > . 1:1(0) ack 101
         +0    < P. 101:201(100) ack 1 win 65535
         +0    > . 1:1(0) ack 201",
    );
}

/// RFC 5681 §4.2, RFC 2018 §4: what comes behind a hole is told at once three times. Then SACKs are put together for a
/// twentieth of a round trip, a millisecond at most (`tcp_comp_sack_delay_ns`), until the hole is filled.
#[test]
fn sacks_behind_a_hole_are_put_together() {
    let mut script = settled("mss 1000,sackOK");
    let at = warm(&mut script);
    assert_eq!(at, 16_001);
    script.run(
        "+0.001 < . 17001:18001(1000) ack 1 win 65535
         +0     > . 1:1(0) ack 16001 <nop,nop,sack 17001:18001>
         +0     < . 18001:19001(1000) ack 1 win 65535
         +0     > . 1:1(0) ack 16001 <nop,nop,sack 17001:19001>
         +0     < . 19001:20001(1000) ack 1 win 65535
         +0     > . 1:1(0) ack 16001 <nop,nop,sack 17001:20001>
         +0     < . 20001:21001(1000) ack 1 win 65535
         +0     < . 21001:22001(1000) ack 1 win 65535
         +0.001 > . 1:1(0) ack 16001 <nop,nop,sack 17001:22001>
         +0     < . 22001:23001(1000) ack 1 win 65535
         +0     < . 16001:17001(1000) ack 1 win 65535
         +0     > . 1:1(0) ack 23001 <>",
    );
    assert_eq!(script.counters().tcp_ack_compressed, 1);
}

/// RFC 2883 §4, and Linux's quick ACKs: whoever sends again what came needs to hear of everything.
#[test]
fn what_comes_twice_is_told_at_once() {
    let mut script = Script::new().accepted_with("mss 1000,sackOK", "");
    warm(&mut script);
    script.run(
        "+0.001 < . 15001:16001(1000) ack 1 win 65535
         +0     > . 1:1(0) ack 16001 <nop,nop,sack 15001:16001>
         +0     < . 16001:17001(1000) ack 1 win 65535
         +0     > . 1:1(0) ack 17001",
    );
    assert_eq!(script.counters().delayed_ack_lost, 1);
}

/// RFC 9293 §3.8.6.2.2: a window that is closed opens again by two segments at least, and never takes back what it told.
#[test]
fn a_closed_window_opens_when_it_is_worth_it() {
    let mut script = Script::new().options(|options| options.rcvbuf = Some(4000)).accepted();
    script.run(
        "+0    < . 1:2001(2000) ack 1 win 65535
         +0    > . 1:1(0) ack 2001 win 2000
         +0    < . 2001:4001(2000) ack 1 win 65535
         +0    > . 1:1(0) ack 4001 win 0
         +0.1  < . 4001:4002(1) ack 1 win 65535
         +0    > . 1:1(0) ack 4001 win 0
         +0    read 1000
         +0    quiet
         +0    read 1000
         +0    > . 1:1(0) ack 4001 win 2000",
    );
    let counters = script.counters();
    assert_eq!((counters.tcp_to_zero_window_adv, counters.tcp_from_zero_window_adv), (1, 1));
    assert_eq!(counters.tcp_zero_window_drop, 1);
}

/// `SO_RCVBUF` made smaller: what the peer was told holds (RFC 9293 §3.8.6), the edge stands still until it is used up.
#[test]
fn a_smaller_buffer_takes_nothing_back() {
    let mut script = Script::new().options(|options| options.rcvbuf = Some(8000)).accepted();
    script.run(
        "+0    < . 1:1001(1000) ack 1 win 65535
         +0    > . 1:1(0) ack 1001 win 7000
         +0    set rcvbuf 2000
         +0    < . 1001:2001(1000) ack 1 win 65535
         +0    > . 1:1(0) ack 2001 win 6000
         +0    < . 2001:8001(6000) ack 1 win 65535
         +0    > . 1:1(0) ack 8001 win 0
         +0    read 8000
         +0    > . 1:1(0) ack 8001 win 2000",
    );
    assert!(script.counters().tcp_want_zero_window_adv > 0);
}

/// RFC 9293 §3.10.7.4: all that has come is looked at before any of it is acknowledged, so that one ACK tells of it.
#[test]
fn what_came_together_is_acknowledged_together() {
    let mut script = settled("mss 1000");
    let at = warm(&mut script);
    assert_eq!(at, 16_001);
    script.together(&[
        ". 16001:17001(1000) ack 1 win 65535",
        ". 17001:18001(1000) ack 1 win 65535",
        ". 18001:19001(1000) ack 1 win 65535",
        ". 19001:20001(1000) ack 1 win 65535",
    ]);
    script.run(
        "+0 > . 1:1(0) ack 20001
         +1 quiet",
    );
}

/// RFC 9293 §3.4: a closed window keeps out data, but neither acknowledgements nor resets.
#[test]
fn a_closed_window_hears_acknowledgements_and_resets() {
    let mut script = Script::new().options(|options| options.rcvbuf = Some(4000)).accepted();
    script.run(
        "+0    < . 1:2001(2000) ack 1 win 65535
         +0    > . 1:1(0) ack 2001 win 2000
         +0    < . 2001:4001(2000) ack 1 win 65535
         +0    > . 1:1(0) ack 4001 win 0
         +0    write 100
         +0    > P. 1:101(100) ack 4001 win 0
         +0.01 < . 4001:4001(0) ack 101 win 65535
         +0    write 100
         +0    > P. 101:201(100) ack 4001 win 0
         +0.01 < R 4001:4001(0) win 0
         +5    quiet",
    );
    assert_eq!(script.counters().tcp_estab_resets, 1);
}

/// RFC 2883 beside RFC 7323 §5.3: what comes after the copy that was sent for it has too old a timestamp, and is reported
/// all the same. Otherwise the sender would not learn that it sent in vain.
#[test]
fn an_original_that_comes_after_its_copy_is_reported_though_its_timestamp_is_old() {
    let mut script = Script::new().accepted_with("mss 1000,sackOK,TS val 700", "nop,nop,TS val 800 ecr 0");
    script.run(
        "+0.1 < . 1001:2001(1000) ack 1 win 65535 <nop,nop,TS val 901 ecr 0>
         +0   > . 1:1(0) ack 1 <nop,nop,TS val 200 ecr 800,nop,nop,sack 1001:2001>
         +0.1 < . 1:1001(1000) ack 1 win 65535 <nop,nop,TS val 1000 ecr 200>
         +0   > . 1:1(0) ack 2001 <nop,nop,TS val 300 ecr 1000>
         +0   < . 1:1001(1000) ack 1 win 65535 <nop,nop,TS val 900 ecr 0>
         +0   > . 1:1(0) ack 2001 <nop,nop,TS val 300 ecr 1000,nop,nop,sack 1:1001>",
    );
    let counters = script.counters();
    assert_eq!((counters.paws_estab, counters.tcp_dsack_old_sent), (1, 1));
}

/// RFC 2883 §4: the first part that had come already is named, wherever in the segment it lies; nothing is behind the end.
#[test]
fn a_duplicate_inside_a_segment_is_named() {
    let mut script = settled("mss 1000,sackOK");
    script.run(
        "+0 < P. 1001:3001(2000) ack 1 win 65535
         +0 > . 1:1(0) ack 1 <nop,nop,sack 1001:3001>
         +0 < P. 4001:5001(1000) ack 1 win 65535
         +0 > . 1:1(0) ack 1 <nop,nop,sack 4001:5001 1001:3001>
         +0 < P. 7001:8001(1000) ack 1 win 65535
         +0 > . 1:1(0) ack 1 <nop,nop,sack 7001:8001 4001:5001 1001:3001>
         +0 < P. 1:6001(6000) ack 1 win 65535
         +0 > . 1:1(0) ack 6001 <nop,nop,sack 1001:3001 7001:8001>
         +0 < P. 6001:8001(2000) ack 1 win 65535
         +0 > . 1:1(0) ack 8001 <nop,nop,sack 7001:8001>
         +0 < F. 1:8001(8000) ack 1 win 65535
         +0 > . 1:1(0) ack 8002",
    );
}
