//! Ends: in order, in disorder, and for good.

use std::time::Duration;

use anabranch_core::{Error, Event, ShardConfig};

use crate::harness::Script;

/// RFC 9293 §3.6: the side that closes first goes through FIN-WAIT-1 and FIN-WAIT-2 to TIME-WAIT.
#[test]
fn both_sides_close_this_one_first() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    close
         +0    > F. 1:1(0) ack 1
         +0.1  < . 1:1(0) ack 2 win 65535
         +0.1  < F. 1:1(0) ack 2 win 65535
         +0    > . 2:2(0) ack 2
         // The last ACK got lost.
         +0.6  < F. 1:1(0) ack 2 win 65535
         +0    > . 2:2(0) ack 2
         +61   < F. 1:1(0) ack 2 win 65535
         +0    > R 2:2(0)",
    );
    assert_eq!(script.counters().tw, 1);
}

/// RFC 9293 §3.6, figure 13: both close at once and go through CLOSING.
#[test]
fn both_sides_close_at_once() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    close
         +0    > F. 1:1(0) ack 1
         +0    < F. 1:1(0) ack 1 win 65535
         +0    > . 2:2(0) ack 2
         +0    < . 2:2(0) ack 2 win 65535
         +1    < . 2:2(0) ack 2 win 65535
         +0    quiet",
    );
    assert_eq!(script.shard.sizes().time_waits, 1);
}

/// The end of the stream rides on the last segment, and is repeated with it.
#[test]
fn the_fin_rides_on_the_last_data() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 14000
         +0    > P. 1:10001(10000) ack 1
         +0    shutdown
         +0.1  < . 1:1(0) ack 10001 win 65535
         +0    > FP. 10001:14001(4000) ack 1
         +0.1  < . 1:1(0) ack 14002 win 65535
         +0    < F. 1:1(0) ack 14002 win 65535
         +0    > . 14002:14002(0) ack 2",
    );
}

/// RFC 2525 §2.17: closing with data unread, or data that comes after, resets.
#[test]
fn data_that_nobody_reads_resets() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    < P. 1:101(100) ack 1 win 65535
         +0    > . 1:1(0) ack 101
         +0    close
         +0    > R. 1:1(0) ack 101",
    );
    assert_eq!(script.counters().tcp_abort_on_close, 1);
    let mut script = Script::new().accepted();
    script.run(
        "+0    close
         +0    > F. 1:1(0) ack 1
         +0.1  < . 1:1(0) ack 2 win 65535
         +0    < P. 1:101(100) ack 2 win 65535
         +0    > R 2:2(0)",
    );
    assert_eq!(script.counters().tcp_abort_on_data, 1);
}

/// Linux's `tcp_fin_timeout` and `TCP_LINGER2`: FIN-WAIT-2 ends without a word, and what comes later is reset.
#[test]
fn fin_wait_2_has_an_end() {
    for (linger2, wait) in [(Some(Duration::from_secs(60)), "+60.1"), (Some(Duration::from_secs(5)), "+5.1")] {
        let mut script = Script::new().options(|options| options.linger2 = linger2).accepted();
        script.run(&format!(
            "+0    close
             +0    > F. 1:1(0) ack 1
             +0    < . 1:1(0) ack 2 win 65535
             +4.8  quiet
             {wait} quiet
             +0    < F. 1:1(0) ack 2 win 65535
             +0    > R 2:2(0)"
        ));
        assert_eq!(script.counters().tcp_abort_on_timeout, 0);
    }
    let mut script = Script::new().options(|options| options.linger2 = None).accepted();
    script.run(
        "+0    close
         +0    > F. 1:1(0) ack 1
         +0    < . 1:1(0) ack 2 win 65535
         +0    > R. 2:2(0) ack 1",
    );
    assert_eq!(script.counters().tcp_abort_on_linger, 1);
}

/// Linux's `tcp_max_orphans`: connections that nobody holds any more are bounded.
#[test]
fn orphans_are_bounded() {
    let mut config = ShardConfig::single(1);
    config.handshake.max_orphans = 0;
    let mut script = Script::with(config, |_| ()).accepted();
    script.run(
        "+0    close
         +0    > R. 1:1(0) ack 1",
    );
    assert_eq!(script.counters().tcp_abort_on_memory, 1);
}

/// RFC 9293 §3.10.7.4: in TIME-WAIT all is answered with an ACK, but not too often; a newer SYN begins again, with numbers
/// past the old ones (RFC 6191), and a reset ends it unless that is not wanted (RFC 1337).
#[test]
fn time_wait_is_checked() {
    for rfc1337 in [false, true] {
        let mut config = ShardConfig::single(1);
        config.handshake.rfc1337 = rfc1337;
        let mut script =
            Script::with(config, |_| ()).accepted_with("mss 1000,sackOK,TS val 700", "nop,nop,TS val 800 ecr 0");
        script.run(
            "+0    close
             +0    > F. 1:1(0) ack 1
             +0.1  < F. 1:1(0) ack 2 win 65535 <nop,nop,TS val 900 ecr 100>
             +0    > . 2:2(0) ack 2 <nop,nop,TS val 200 ecr 900>
             // Old data, and old timestamps.
             +0.1  < P. 1:101(100) ack 2 win 65535 <nop,nop,TS val 950 ecr 100>
             +0    > . 2:2(0) ack 2
             +0.1  < P. 1:101(100) ack 2 win 65535 <nop,nop,TS val 960 ecr 100>
             +0    quiet
             +0.5  < S 500:500(0) win 65535 <mss 1000,TS val 600>
             +0    > . 2:2(0) ack 2
             // A reset outside the window is nothing.
             +0    < R 500:500(0) win 0
             +0    < R 2:2(0) win 0
             +0    quiet",
        );
        assert_eq!(script.counters().tcp_ack_skipped_time_wait, 1);
        assert_eq!(script.shard.sizes().time_waits, usize::from(rfc1337));
        if rfc1337 {
            script.run(
                "+0.6  < S 0:0(0) win 65535 <mss 1000,sackOK,TS val 2000>
                 +0    > S. 0:0(0) ack 1
                 +0    < . 1:1(0) ack 1 win 65535 <nop,nop,TS val 2010 ecr 1700>
                 +0    accept",
            );
            assert_eq!(script.counters().tw_recycled, 1);
        }
    }
}

/// A peer that resets after its FIN may count without it (as macOS does): believed where the FIN has come.
#[test]
fn a_reset_behind_a_fin_may_forget_the_fin() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    < F. 1:1(0) ack 1 win 65535
         +0    > . 1:1(0) ack 2
         +0    < R 1:1(0) win 0",
    );
    assert!(script.saw(|event| matches!(event, Event::Closed(_, Some(Error::BrokenPipe)))));
}

/// RFC 9293 §3.10.4: what was written is sent before the end, `abort` sends nothing more.
#[test]
fn an_abort_is_a_reset() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 100
         +0    > P. 1:101(100) ack 1
         +0    abort
         +0    > R. 101:101(0) ack 1
         +10   quiet",
    );
}

/// `TCP_DEFER_ACCEPT`: the listener hears of the connection when data comes, or when the time is over.
#[test]
fn a_listener_may_wait_for_data() {
    for with_data in [true, false] {
        let mut script = Script::new().options(|options| options.defer_accept = Duration::from_secs(3)).listen();
        script.run(
            "+0    < S 0:0(0) win 65535 <mss 1000>
             +0    > S. 0:0(0) ack 1
             +0    < . 1:1(0) ack 1 win 65535
             +0.9  quiet",
        );
        assert_eq!(script.counters().tcp_defer_accept_drop, 1);
        if with_data {
            script.run("+0 < P. 1:101(100) ack 1 win 65535\n+0 > . 1:1(0) ack 101");
        } else {
            script.run("+2.1 > S. 0:0(0) ack 1\n+0 < . 1:1(0) ack 1 win 65535");
        }
        script.run("+0 accept");
    }
}

/// RFC 9293 §3.5.3: a reset may carry data, which nobody reads.
#[test]
fn a_reset_may_carry_data() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    < R 1:21(20) win 0
         +0    quiet",
    );
    assert!(script.saw(|event| matches!(event, Event::Closed(_, Some(Error::Reset)))));
}
