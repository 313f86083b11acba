//! Handshake, data and end as every connection has them.

use anabranch_core::{Error, Event};

use crate::harness::Script;

/// RFC 9293 §3.5, RFC 7323 §1.3, RFC 2018 §2: a SYN is answered in kind, in Linux's layout.
#[test]
fn a_passive_open_takes_the_options_that_are_offered() {
    let mut script = Script::new().listen();
    script.run(
        "+0    < S 0:0(0) win 65535 <mss 1460,sackOK,TS val 700,nop,wscale 7>
         +0    > S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,TS val 0 ecr 700,nop,wscale 8>
         +0.1  < . 1:1(0) ack 1 win 512 <nop,nop,TS val 800 ecr 0>
         +0    accept
         +0    write 1000
         +0    > P. 1:1001(1000) ack 1 <nop,nop,TS val 100 ecr 800>
         +0.1  < . 1:1(0) ack 1001 win 512 <nop,nop,TS val 900 ecr 100>",
    );
}

/// RFC 9293 §3.5: what is not offered is not used.
#[test]
fn a_passive_open_of_a_plain_peer_uses_no_options() {
    let mut script = Script::new().listen();
    script.run(
        "+0    < S 0:0(0) win 65535 <mss 1000>
         +0    > S. 0:0(0) ack 1 win 65535 <mss 1460>
         +0.1  < . 1:1(0) ack 1 win 65535
         +0    accept
         +0    write 2500
         +0    > P. 1:2501(2500) ack 1 <>
         +0.1  < . 1:1(0) ack 2501 win 65535",
    );
}

/// RFC 9293 §3.5 over IPv6, where 20 bytes more of header leave an MSS of 1440.
#[test]
fn an_active_open_offers_all_options() {
    let mut script = Script::v6();
    script.run(
        "+0    connect
         +0    > S 0:0(0) win 65535 <mss 1440,sackOK,TS val 0,nop,wscale 8>
         +0.05 < S. 0:0(0) ack 1 win 65535 <mss 1440,sackOK,TS val 700,nop,wscale 7>
         +0    > . 1:1(0) ack 1 <nop,nop,TS val 50 ecr 700>
         +0.01 < P. 1:101(100) ack 1 win 512 <nop,nop,TS val 710 ecr 50>
         +0    > . 1:1(0) ack 101 <nop,nop,TS val 60 ecr 710>
         +0    read 100",
    );
}

/// RFC 9293 §3.6: the side that is closed second goes through CLOSE-WAIT and LAST-ACK.
#[test]
fn both_sides_close_the_peer_first() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    < F. 1:1(0) ack 1 win 65535
         +0    > . 1:1(0) ack 2
         +0    eof
         +0    shutdown
         +0    > F. 1:1(0) ack 2
         +0.1  < . 2:2(0) ack 2 win 65535
         +70   quiet",
    );
    assert_eq!(script.counters().tcp_out_rsts, 0);
}

/// RFC 9293 §3.10.7.4, §3.10.7.1: who closes second is gone once the FIN is acknowledged. If it went twice because the
/// acknowledgement took long, the second acknowledgement is answered with a reset, which harms nobody in TIME-WAIT.
#[test]
fn the_second_acknowledgement_of_a_last_fin_finds_nobody() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    < F. 1:1(0) ack 1 win 65535
         +0    > . 1:1(0) ack 2
         +0    eof
         +0    shutdown
         +0    > F. 1:1(0) ack 2
         +0.3  > F. 1:1(0) ack 2
         +0    < . 2:2(0) ack 2 win 65535
         +0.01 < . 2:2(0) ack 2 win 65535
         +0    > R 2:2(0)
         +70   quiet",
    );
    assert_eq!((script.counters().tcp_out_rsts, script.counters().tcp_estab_resets), (1, 0));
}

/// RFC 6298 §5: without an answer the segment goes again after the timeout, which doubles each time.
#[test]
fn the_retransmission_timeout_doubles() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 1000
         +0    > P. 1:1001(1000) ack 1
         +0.3  > P. 1:1001(1000) ack 1
         +0.6  > P. 1:1001(1000) ack 1
         +1.2  > P. 1:1001(1000) ack 1
         +0.1  < . 1:1(0) ack 1001 win 65535
         +10   quiet",
    );
    assert_eq!(script.subflow().total_retrans, 3);
}

/// RFC 9293 §3.7.4 (Nagle): a small segment waits while data is outstanding, unless `nodelay` is set.
#[test]
fn small_segments_wait_for_an_acknowledgement() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 100
         +0    > P. 1:101(100) ack 1
         +0    write 100
         +0.05 quiet
         +0.05 < . 1:1(0) ack 101 win 65535
         +0    > P. 101:201(100) ack 1",
    );
    let mut script = Script::new().options(|options| options.nodelay = true).accepted();
    script.run(
        "+0    write 100
         +0    > P. 1:101(100) ack 1
         +0    write 100
         +0    > P. 101:201(100) ack 1",
    );
}

/// RFC 5961 §3.2: a reset counts exactly at the next byte, elsewhere in the window it is questioned.
#[test]
fn a_reset_has_to_hit_the_next_byte() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 100
         +0    > P. 1:101(100) ack 1
         +0.1  < R 2:2(0)
         +0    > . 101:101(0) ack 1
         +0    < R 1:1(0)
         +0    quiet",
    );
    assert!(script.saw(|event| matches!(event, Event::Closed(_, Some(Error::Reset)))));
    assert_eq!(script.counters().tcp_challenge_ack, 1);
}

/// RFC 5961 §5.2: an acknowledgement from before the largest window that the peer ever told is answered, not believed.
#[test]
fn an_acknowledgement_of_long_ago_is_answered() {
    let mut script = Script::new().listen();
    script.run(
        "+0    < S 0:0(0) win 1000 <mss 1000>
         +0    > S. 0:0(0) ack 1
         +0.1  < . 1:1(0) ack 1 win 1000
         +0    accept
         +0    write 1000
         +0    > P. 1:1001(1000) ack 1
         +0.01 < . 1:1(0) ack 1001 win 1000
         +0    write 1000
         +0    > P. 1001:2001(1000) ack 1
         +0.01 < . 1:1(0) ack 2001 win 1000
         +1    < . 1:1(0) ack 1001 win 1000
         +0    quiet
         +1    < . 1:1(0) ack 1000 win 1000
         +0    > . 2001:2001(0) ack 1",
    );
    assert_eq!(script.counters().tcp_challenge_ack, 1);
}

/// RFC 9293 §3.7.1: a peer that does not say what it takes gets what every host has to.
#[test]
fn without_an_mss_segments_are_small() {
    for (mut script, told, mss) in [(Script::new(), 1460, 536), (Script::v6(), 1440, 1220)] {
        script = script.listen();
        script.run(&format!(
            "+0    < S 0:0(0) win 65535
             +0    > S. 0:0(0) ack 1 win 65535 <mss {told}>
             +0.1  < . 1:1(0) ack 1 win 65535
             +0    accept
             +0    write {mss}
             +0    > P. 1:{end}({mss}) ack 1",
            end = mss + 1,
        ));
        assert_eq!(script.subflow().snd_mss, mss);
    }
}
