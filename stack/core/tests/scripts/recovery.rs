//! Loss recovery, segment by segment. A round trip takes 100 ms.

use anabranch_core::{Error, Event, ShardConfig};

use crate::harness::Script;

/// A server with a peer that sends SACK.
fn sack() -> Script {
    Script::new().accepted_with("mss 1000,sackOK,nop,nop,nop,wscale 7", "")
}

/// A server with a peer that sends SACK and timestamps. The peer's clock stands still.
fn timestamps() -> Script {
    Script::new().accepted_with("mss 1012,sackOK,TS val 700,nop,wscale 7", "nop,nop,TS val 700 ecr 0")
}

/// RFC 8985 §6: three segments beyond a hole; RFC 6937: one out for one in, once the window is reached.
#[test]
fn three_sacked_segments_make_a_loss_and_recovery_sends_in_proportion() {
    let mut script = sack();
    script.run(
        "+0    write 10000
         +0    > P. 1:10001(10000) ack 1
         +0.11 < . 1:1(0) ack 1 win 320 <sack 1001:2001,nop,nop>
         +0.01 < . 1:1(0) ack 1 win 320 <sack 1001:3001,nop,nop>
         +0.01 < . 1:1(0) ack 1 win 320 <sack 1001:4001,nop,nop>
         +0    > . 1:1001(1000) ack 1",
    );
    assert_eq!((script.subflow().cwnd, script.subflow().ssthresh), (7000, 7000));
    script.run(
        "+0.01 write 2000
         +0.01 < . 1:1(0) ack 1 win 320 <sack 1001:5001,nop,nop>
         +0    > . 10001:11001(1000) ack 1
         +0.01 < . 1:1(0) ack 1 win 320 <sack 1001:6001,nop,nop>
         +0    > P. 11001:12001(1000) ack 1
         +0.05 < . 1:1(0) ack 12001 win 320",
    );
    assert_eq!(script.subflow().cwnd, 7000);
    assert_eq!((script.counters().tcp_sack_recovery, script.counters().tcp_fast_retrans), (1, 1));
}

/// RFC 6582: without SACK duplicates are counted, and each partial acknowledgement shows the next hole.
#[test]
fn a_peer_without_sack_shows_one_hole_a_round_trip() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 8000
         +0    > P. 1:8001(8000) ack 1
         +0.1  < . 1:1(0) ack 1 win 65535
         +0    < . 1:1(0) ack 1 win 65535
         +0    < . 1:1(0) ack 1 win 65535
         +0    > . 1:1001(1000) ack 1
         +0.1  < . 1:1(0) ack 3001 win 65535
         +0    > . 3001:4001(1000) ack 1
         +0.1  < . 1:1(0) ack 8001 win 65535
         +10   quiet",
    );
    assert_eq!((script.counters().tcp_reno_recovery, script.counters().tcp_timeouts), (1, 0));
}

/// RFC 8985 §6.2: without three SACKed segments a loss is found a quarter of a round trip later.
#[test]
fn one_sacked_segment_and_some_time_make_a_loss() {
    let mut script = sack();
    script.run(
        "+0     write 4000
         +0     > P. 1:4001(4000) ack 1
         +0.1   < . 1:1(0) ack 1 win 320 <sack 3001:4001,nop,nop>
         +0.027 > . 1:1001(1000) ack 1",
    );
}

/// RFC 8985 §7: the tail is probed after two round trips; a lone segment's acknowledgement may be delayed.
#[test]
fn a_lost_tail_is_probed() {
    let mut script = sack();
    script.run(
        "+0     write 3000
         +0     > P. 1:3001(3000) ack 1
         +0.202 > P. 2001:3001(1000) ack 1
         +0.1   < . 1:1(0) ack 1 win 320 <sack 2001:3001,nop,nop>
         +0     > . 1:1001(1000) ack 1",
    );
    let mut script = sack();
    script.run(
        "+0     write 1000
         +0     > P. 1:1001(1000) ack 1
         +0.3   > P. 1:1001(1000) ack 1
         +0.3   > P. 1:1001(1000) ack 1",
    );
    assert_eq!((script.counters().tcp_loss_probes, script.counters().tcp_timeouts), (1, 1));
}

/// RFC 5682 §3.1: after a timeout new data goes before retransmissions, and originals that arrive take it back.
#[test]
fn a_spurious_timeout_is_found_out_by_new_data() {
    let mut script = sack();
    script.run(
        "+0     write 10000
         +0     > P. 1:10001(10000) ack 1
         +0     write 10000
         +0.202 > . 10001:11001(1000) ack 1
         +0.3   > . 1:1001(1000) ack 1
         +0.05  < . 1:1(0) ack 1001 win 320
         +0     > . 11001:13001(2000) ack 1
         +0.01  < . 1:1(0) ack 2001 win 320
         +0     < . 1:1(0) ack 4001 win 320
         +0     > P. 13001:17001(4000) ack 1",
    );
    let counters = script.counters();
    assert_eq!((counters.tcp_spurious_rtos, counters.tcp_loss_undo, counters.tcp_slow_start_retrans), (1, 1, 1));
    assert_eq!(script.subflow().ssthresh, u64::MAX);
}

/// RFC 3522: an echo older than the retransmission shows that the original arrived.
#[test]
fn timestamps_take_a_needless_recovery_back() {
    let mut script = timestamps();
    script.run(
        "+0    write 10000
         +0    > P. 1:10001(10000) ack 1
         +0.1  < . 1:1(0) ack 1 win 320 <nop,nop,TS val 700 ecr 0,nop,nop,sack 1001:4001>
         +0    > . 1:1001(1000) ack 1
         +0.01 < . 1:1(0) ack 5001 win 320 <nop,nop,TS val 700 ecr 100>",
    );
    assert_eq!((script.counters().tcp_partial_undo, script.counters().tcp_ts_reorder), (1, 1));
    assert_eq!(script.subflow().ssthresh, u64::MAX);
}

/// RFC 3708, RFC 2883: all that was sent again arrived twice.
#[test]
fn dsacks_take_a_needless_recovery_back() {
    let mut script = sack();
    script.run(
        "+0    write 10000
         +0    > P. 1:10001(10000) ack 1
         +0.1  < . 1:1(0) ack 1 win 320 <sack 1001:4001,nop,nop>
         +0    > . 1:1001(1000) ack 1
         +0.01 < . 1:1(0) ack 4001 win 320
         +0.1  < . 1:1(0) ack 10001 win 320 <sack 1:1001,nop,nop>",
    );
    assert_eq!(script.counters().tcp_full_undo + script.counters().tcp_dsack_undo, 1);
    assert_eq!(script.subflow().ssthresh, u64::MAX);
}

/// RFC 2018 §8: the peer threw away what it had SACKed. It is not believed again.
#[test]
fn a_peer_that_reneges_gets_everything_again() {
    let mut script = sack();
    script.run(
        "+0    write 10000
         +0    > P. 1:10001(10000) ack 1
         +0.1  < . 1:1(0) ack 1 win 320 <sack 1001:10001,nop,nop>
         +0    > . 1:1001(1000) ack 1
         +0.1  < . 1:1(0) ack 1001 win 320
         +0.05 > . 1001:2001(1000) ack 1
         +0.1  < . 1:1(0) ack 2001 win 320
         +0    > P. 2001:4001(2000) ack 1",
    );
    assert_eq!(script.counters().tcp_sack_reneging, 1);
}

/// RFC 8985 §6: what was sent after the retransmission arrives and the retransmission does not: it is lost, too.
#[test]
fn a_lost_retransmission_is_sent_again_without_a_timeout() {
    let mut script = sack();
    script.run(
        "+0    write 12000
         +0    > P. 1:10001(10000) ack 1
         +0.1  < . 1:1(0) ack 1 win 320 <sack 1001:4001,nop,nop>
         +0    > . 1:1001(1000) ack 1
         +0.01 < . 1:1(0) ack 1 win 320 <sack 1001:6001,nop,nop>
         +0    > P. 10001:12001(2000) ack 1
         +0.1  < . 1:1(0) ack 1 win 320 <sack 1001:12001,nop,nop>
         +0    > . 1:1001(1000) ack 1
         +0.1  < . 1:1(0) ack 12001 win 320",
    );
    assert_eq!((script.counters().tcp_lost_retransmit, script.counters().tcp_timeouts), (1, 0));
}

/// A SACK block that names less than a segment is no segment.
#[test]
fn the_last_byte_alone_is_no_segment() {
    let mut script = sack();
    script.run(
        "+0     write 4000
         +0     > P. 1:4001(4000) ack 1
         +0.1   < . 1:1(0) ack 1 win 320 <sack 4000:4001,nop,nop>
         +0.102 > P. 3001:4001(1000) ack 1
         +0.3   > . 1:1001(1000) ack 1",
    );
}

/// RFC 5482: the user timeout runs from the first retransmission that brought nothing.
#[test]
fn the_user_timeout_ends_a_connection_without_an_answer() {
    let mut script = Script::new().options(|options| options.user_timeout = Some(std::time::Duration::from_secs(2)));
    script = script.accepted();
    script.run(
        "+0    write 1000
         +0    > P. 1:1001(1000) ack 1
         +0.3  > P. 1:1001(1000) ack 1
         +0.6  > P. 1:1001(1000) ack 1
         +1.2  > P. 1:1001(1000) ack 1",
    );
    assert!(!script.saw(|event| matches!(event, Event::Closed(..))));
    script.run("+0.2 > R. 1001:1001(0) ack 1");
    assert!(script.saw(|event| matches!(event, Event::Closed(_, Some(Error::TimedOut)))));
}

/// `TCP_THIN_LINEAR_TIMEOUTS`: a thin stream that left slow start repeats its timeouts at the same distance.
#[test]
fn a_thin_stream_need_not_back_off() {
    let mut script = Script::new().options(|options| options.thin_linear_timeouts = true).accepted();
    script.run(
        "+0    write 2000
         +0    > P. 1:2001(2000) ack 1
         +0.3  > . 1:1001(1000) ack 1
         +0.3  > . 1:1001(1000) ack 1
         +0.3  > . 1:1001(1000) ack 1",
    );
}

/// RFC 1122 §4.2.3.5, Linux `tcp_retries2`: a peer that is gone is given up after the time that the retries stand for.
#[test]
fn retries_are_limited_by_their_time() {
    let mut config = ShardConfig::single(1);
    config.recovery.retries2 = 2;
    let mut script = Script::with(config, |_| ()).accepted();
    script.run(
        "+0    write 1000
         +0    > P. 1:1001(1000) ack 1
         +0.3  > P. 1:1001(1000) ack 1
         +0.6  > P. 1:1001(1000) ack 1
         +1.2  > R. 1001:1001(0) ack 1",
    );
    assert!(script.saw(|event| matches!(event, Event::Closed(_, Some(Error::TimedOut)))));
}

/// RFC 6298 §5.7, RFC 5681 §3.1: a handshake that had to be repeated without timestamps measured nothing.
#[test]
fn a_repeated_handshake_begins_with_three_seconds() {
    let mut script = Script::new().listen();
    script.run(
        "+0    < S 0:0(0) win 65535 <mss 1000>
         +0    > S. 0:0(0) ack 1
         +1    > S. 0:0(0) ack 1
         +0.1  < . 1:1(0) ack 1 win 65535
         +0    accept
         +0    write 1000
         +0    > P. 1:1001(1000) ack 1
         +3    > P. 1:1001(1000) ack 1",
    );
}
