//! When what was written goes: Nagle, cork, silly windows, closed windows, PSH.

use crate::harness::Script;

/// Minshall's change to Nagle's algorithm (RFC 9293 §3.7.4, Linux `tcp_minshall_check`): the end of a large write does not
/// wait for its full segments, only for a partial one.
#[test]
fn only_a_partial_segment_holds_back_the_next_one() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 2500
         +0    > P. 1:2501(2500) ack 1
         +0    write 100
         +0.05 quiet
         +0.01 < . 1:1(0) ack 2001 win 65535
         +0.01 quiet
         +0    write 1000
         +0    > . 2501:3501(1000) ack 1
         +0    < . 1:1(0) ack 2501 win 65535
         +0    > P. 3501:3601(100) ack 1",
    );
}

/// `TCP_NODELAY` set while something waits sends it.
#[test]
fn switching_nagle_off_sends_what_waits() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 100
         +0    > P. 1:101(100) ack 1
         +0    write 100
         +0.01 set nodelay on
         +0    > P. 101:201(100) ack 1",
    );
}

/// `TCP_CORK`: full segments go, a partial one waits until the cork is pulled, the stream ends, or the timer runs out: that
/// of zero-window probes, as in Linux, which is a retransmission timeout and 200 ms at least.
#[test]
fn a_cork_holds_back_what_is_not_full() {
    let mut script = Script::new().options(|options| options.cork = true).accepted();
    script.run(
        "+0    write 40
         +0.05 write 1020
         +0    > . 1:1001(1000) ack 1
         +0.01 < . 1:1(0) ack 1001 win 65535
         +0.1  quiet
         +0    set cork off
         +0    > P. 1001:1061(60) ack 1
         +0.01 < . 1:1(0) ack 1061 win 65535
         +0    set cork on
         +0    write 10
         +0.25 quiet
         *     > P. 1061:1071(10) ack 1
         +0.01 < . 1:1(0) ack 1071 win 65535
         +0    write 10
         +0    shutdown
         +0    > FP. 1071:1081(10) ack 1",
    );
}

/// `MSG_MORE` holds back a partial segment until the next write, but not beyond an acknowledgement.
#[test]
fn more_to_follow_is_waited_for() {
    let mut script = Script::new().options(|options| options.nodelay = true).accepted();
    script.run(
        "+0    write 100 more
         +0.01 write 100 more
         +0.01 write 5
         +0    > P. 1:206(205) ack 1
         +0.02 < . 1:1(0) ack 206 win 65535
         +0    write 3100 more
         +0    > . 206:3206(3000) ack 1
         +0.01 < . 1:1(0) ack 2206 win 65535
         +0    > . 3206:3306(100) ack 1",
    );
}

/// `MSG_EOR`: what is written next shares no segment with it.
#[test]
fn a_boundary_stays_one() {
    let mut script = Script::new().options(|options| options.nodelay = true).accepted();
    script.run(
        "+0    write 10400
         +0    > P. 1:10001(10000) ack 1
         +0    write 400 boundary
         +0    write 600
         +0.01 < . 1:1(0) ack 10001 win 65535
         +0    > P. 10001:10801(800) ack 1
         +0    > P. 10801:11401(600) ack 1",
    );
}

/// RFC 9293 §3.10.4: the end of the stream goes with its last bytes, if they have not gone.
#[test]
fn the_end_goes_with_the_last_bytes() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 100
         +0    > P. 1:101(100) ack 1
         +0    write 100
         +0    shutdown
         +0    > FP. 101:201(100) ack 1
         +0.1  < . 1:1(0) ack 202 win 65535",
    );
}

/// RFC 9293 §3.8.6.2.1: a window that opens by less than a segment is not worth one, unless it never was wider.
#[test]
fn a_silly_window_is_waited_out() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 3000
         +0    > P. 1:3001(3000) ack 1
         +0.1  < . 1:1(0) ack 3001 win 400
         +0    write 3000
         +0.1  quiet
         +0    < . 1:1(0) ack 3001 win 1600
         +0    > P. 3001:4601(1600) ack 1",
    );
    // What is in the way of silliness for ever is overridden by the timer.
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 3000
         +0    > P. 1:3001(3000) ack 1
         +0.1  < . 1:1(0) ack 3001 win 400
         +0    write 3000
         +0.2  quiet
         *     > P. 3001:3401(400) ack 1",
    );
}

/// RFC 9293 §3.8.6.1: a closed window is probed with a timeout that doubles, as long as the peer answers.
#[test]
fn a_closed_window_is_probed_for_as_long_as_the_peer_answers() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 1000
         +0    > P. 1:1001(1000) ack 1
         +0.1  < . 1:1(0) ack 1001 win 0
         +0    write 1000
         +0.3  > . 1000:1000(0) ack 1
         +0    < . 1:1(0) ack 1001 win 0
         +0.6  > . 1000:1000(0) ack 1
         +0    < . 1:1(0) ack 1001 win 0
         +1.2  > . 1000:1000(0) ack 1
         +0    < . 1:1(0) ack 1001 win 0",
    );
    for _ in 0..40 {
        script.run(
            "* > . 1000:1000(0) ack 1
             +0 < . 1:1(0) ack 1001 win 0",
        );
    }
    assert_eq!(script.counters().tcp_winprobe, 43);
    script.run(
        "+1    < . 1:1(0) ack 1001 win 65535
         +0    > P. 1001:2001(1000) ack 1",
    );
}

/// A peer that answers no probe is given up, as one that acknowledges nothing (RFC 9293 §3.8.3).
#[test]
fn a_silent_peer_is_not_probed_for_ever() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 1000
         +0    > P. 1:1001(1000) ack 1
         +0.1  < . 1:1(0) ack 1001 win 0
         +0    write 1000",
    );
    for _ in 0..15 {
        script.run("* > . 1000:1000(0) ack 1");
    }
    script.run("* > R. 1001:1001(0) ack 1");
    assert_eq!(script.counters().tcp_abort_on_timeout, 1);
}

/// RFC 9293 §3.8.6: a peer that takes back some of its window gets nothing new beyond it, and what is under way again.
#[test]
fn a_window_that_shrinks_is_heeded() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 2000
         +0    > P. 1:2001(2000) ack 1
         +0.1  < . 1:1(0) ack 1001 win 500
         +0    write 1000
         +0.2  quiet
         *     > P. 1001:2001(1000) ack 1
         +0.1  < . 1:1(0) ack 2001 win 65535
         +0    > P. 2001:3001(1000) ack 1",
    );
}

/// The same down to nothing: the peer is there as long as it answers, whatever becomes of what lies beyond the edge.
#[test]
fn a_window_that_was_taken_back_does_not_end_a_connection() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 1000
         +0    > P. 1:1001(1000) ack 1
         +0.1  < . 1:1(0) ack 1 win 0",
    );
    for _ in 0..30 {
        script.run(
            "* > P. 1:1001(1000) ack 1
             +0 < . 1:1(0) ack 1 win 0",
        );
    }
    script.run(
        "+1    < . 1:1(0) ack 1001 win 65535
         +0    write 1000
         +0    > P. 1001:2001(1000) ack 1",
    );
}

/// Linux `tcp_tso_autosize`, `tcp_cwnd_test`: far away two segments go at once, never more than half of the window; a
/// super-segment pushes and a segment by itself does not, if more follows.
#[test]
fn super_segments_are_of_two_segments_and_push() {
    let mut script = Script::new().accepted();
    script.run(
        "+0 write 12000
         +0 > P. 1:2001(2000) ack 1
         +0 > P. 2001:4001(2000) ack 1
         +0 > P. 4001:6001(2000) ack 1
         +0 > P. 6001:8001(2000) ack 1
         +0 > P. 8001:10001(2000) ack 1
         +0.1 < . 1:1(0) ack 10001 win 1000
         +0 > . 10001:11001(1000) ack 1",
    );
}

/// `tcpi_rwnd_limited`: the time in which the peer's window has no room for the next segment, a silly one included.
#[test]
fn the_time_that_the_peer_s_window_holds_back_is_counted() {
    let mut script = Script::new().accepted_with("mss 1000", "");
    script.run(
        "+0    < . 1:1(0) ack 1 win 65535
         +0    write 1000
         +0    > P. 1:1001(1000) ack 1
         +0.1  < . 1:1(0) ack 1001 win 10
         +0    write 1000
         +0.1  quiet",
    );
    let limited = |script: &Script| {
        let info = script.shard.info(script.conn()).unwrap().at(script.now);
        (info.rwnd_limited.as_millis(), info.busy_time.as_millis())
    };
    assert_eq!(limited(&script), (100, 200));
    script.run(
        "+0    < . 1:1(0) ack 1001 win 2000
         +0    > P. 1001:2001(1000) ack 1
         +0.05 < . 1:1(0) ack 2001 win 2000
         +1    quiet",
    );
    assert_eq!(limited(&script), (100, 250));
}
