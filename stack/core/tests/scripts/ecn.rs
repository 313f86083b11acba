//! Explicit congestion notification (RFC 3168).

use anabranch_core::Ecn;

use crate::harness::Script;

fn reno() -> Script {
    Script::new().options(|options| options.congestion = "reno".into())
}

/// A server whose peer asked for ECN.
fn capable(script: Script) -> Script {
    let mut script = script.listen();
    script.run(
        "+0   < SEW 0:0(0) win 65535 <mss 1000,sackOK>
         +0   > S.E 0:0(0) ack 1 <mss 1460,nop,nop,sackOK>
         +0.1 < . 1:1(0) ack 1 win 65535
         +0   accept",
    );
    script
}

/// §6.1.1: a listener agrees when it is asked. §6.1.2: data is ECN-capable then. §6.1.4, §6.1.5: acknowledgements and
/// what is sent again are not.
#[test]
fn data_is_capable_and_nothing_else() {
    let mut script = capable(Script::new());
    script.run(
        "+0   write 1000
         +0   > [ect0] P. 1:1001(1000) ack 1
         +0.3 > [noecn] P. 1:1001(1000) ack 1
         +0.1 < [ect0] P. 1:101(100) ack 1001 win 65535
         +0   > [noecn] . 1001:1001(0) ack 101",
    );
    let info = script.subflow();
    assert!(info.ecn && info.ecn_seen);
    assert_eq!((script.counters().ip_in_ect0, script.counters().ip_in_no_ect), (1, 2));
}

/// §6.1.1: a SYN that is itself ECN-capable, one with only one of the flags, and a listener that wants none.
#[test]
fn a_listener_agrees_only_to_a_proper_question() {
    for syn in ["[ect0] SEW", "[ce] SEW", "SE", "SW", "S"] {
        let mut script = Script::new().listen();
        script.run(&format!(
            "+0   < {syn} 0:0(0) win 65535 <mss 1000>
             +0   > S. 0:0(0) ack 1
             +0.1 < . 1:1(0) ack 1 win 65535
             +0   accept
             +0   write 1000
             +0   > [noecn] P. 1:1001(1000) ack 1"
        ));
        assert!(!script.subflow().ecn);
    }
    let mut script = Script::new().options(|options| options.ecn = Ecn::Off).listen();
    script.run(
        "+0 < SEW 0:0(0) win 65535 <mss 1000>
         +0 > S. 0:0(0) ack 1",
    );
}

/// §6.1.3: a mark is echoed at once and until CWR comes; one that comes with CWR is a new one.
#[test]
fn a_mark_is_echoed_until_the_window_is_reduced() {
    let mut script = capable(Script::new());
    script.run(
        "+0 < [ect0] P. 1:1001(1000) ack 1 win 65535
         +0 > . 1:1(0) ack 1001
         +0 < [ce] P. 1001:2001(1000) ack 1 win 65535
         +0 > .E 1:1(0) ack 2001
         +0 < [ect0] P. 2001:3001(1000) ack 1 win 65535
         +0 > .E 1:1(0) ack 3001
         +0 < [ect0] P.W 3001:4001(1000) ack 1 win 65535
         +0 > . 1:1(0) ack 4001
         +0 < [ce] P.W 4001:5001(1000) ack 1 win 65535
         +0 > .E 1:1(0) ack 5001",
    );
    assert_eq!((script.counters().ip_in_ce, script.counters().ip_in_ect0), (2, 3));
}

/// §6.1.3: also while it acknowledges every other segment only, the peer hears at once.
#[test]
fn a_mark_ends_the_wait_of_a_delayed_acknowledgement() {
    let mut script = capable(Script::new().options(|options| options.rcvbuf = Some(60_000)));
    for at in 0..16 {
        let (start, end) = (1 + at * 1000, 1001 + at * 1000);
        script.run(&format!(
            "+0 < [ect0] P. {start}:{end}(1000) ack 1 win 65535
             +0 > . 1:1(0) ack {end}"
        ));
    }
    script.run(
        "+0    < [ect0] P. 16001:17001(1000) ack 1 win 65535
         +0.01 quiet
         +0.01 < [ect0] P. 17001:18001(1000) ack 1 win 65535
         +0    > . 1:1(0) ack 18001
         +0    < [ce] P. 18001:19001(1000) ack 1 win 65535
         +0    > .E 1:1(0) ack 19001",
    );
}

/// A mark on data that came before may be anybody's: it is not believed (§6.1.5).
#[test]
fn a_mark_on_old_data_is_not_echoed() {
    let mut script = capable(Script::new());
    script.run(
        "+0 < [ect0] P. 1:1001(1000) ack 1 win 65535
         +0 > . 1:1(0) ack 1001
         +0 < [ce] P. 1:1001(1000) ack 1 win 65535
         +0 > . 1:1(0) ack 1001 <nop,nop,sack 1:1001>",
    );
}

/// §6.1.2: an echo halves the window (Reno) once a round trip, spread over it by PRR; the peer is told once, with the
/// next new data; nothing is sent again.
#[test]
fn an_echo_reduces_the_window_once_a_round_trip() {
    let mut script = capable(reno());
    script.run(
        "+0   write 30000
         +0   > [ect0] P. 1:10001(10000) ack 1
         +0.1 < .E 1:1(0) ack 1001 win 65535
         +0   > [ect0] .W 10001:11001(1000) ack 1
         +0   < .E 1:1(0) ack 2001 win 65535
         +0   < .E 1:1(0) ack 3001 win 65535
         +0   < .E 1:1(0) ack 4001 win 65535
         +0   > [ect0] . 11001:12001(1000) ack 1
         +0   < .E 1:1(0) ack 10001 win 65535
         +0   > [ect0] . 12001:15001(3000) ack 1",
    );
    let info = script.subflow();
    assert_eq!((info.cwnd, info.ssthresh, info.total_retrans), (5000, 5000, 0));
    assert_eq!((info.delivered_ce, script.counters().tcp_delivered_ce), (10_000, 10));
    // A round trip later the peer still echoes: that is a second congestion.
    script.run(
        "+0.1 < .E 1:1(0) ack 11001 win 65535
         +0   > [ect0] .W 15001:16001(1000) ack 1",
    );
    assert_eq!(script.subflow().ssthresh, 2500);
}

/// A loss in the window that was marked is the same congestion: it is repaired, but not paid for twice.
#[test]
fn a_loss_in_a_marked_window_does_not_reduce_it_again() {
    let mut script = capable(reno());
    script.run(
        "+0   write 10000
         +0   > P. 1:10001(10000) ack 1
         +0.1 < .E 1:1(0) ack 1001 win 65535
         +0   < . 1:1(0) ack 1001 win 65535 <nop,nop,sack 2001:10001>
         +0   > [noecn] . 1001:2001(1000) ack 1
         +0.1 < . 1:1(0) ack 10001 win 65535",
    );
    assert_eq!(script.subflow().ssthresh, 5000);
    assert_eq!(script.counters().tcp_sack_recovery, 1);
}

/// §6.1.2: after a loss, too, the peer is told that the window was reduced, with new data only.
#[test]
fn a_reduction_after_a_loss_is_told_as_well() {
    let mut script = capable(reno());
    script.run(
        "+0   write 20000
         +0   > P. 1:10001(10000) ack 1
         +0.1 < . 1:1(0) ack 1 win 65535 <nop,nop,sack 1001:10001>
         +0   > [noecn] . 1:1001(1000) ack 1
         +0   > [ect0] .W 10001:11001(1000) ack 1
         +0   > [ect0] P. 11001:14001(3000) ack 1",
    );
}

/// §6.1.1: an active open asks, and is answered.
#[test]
fn an_active_open_asks() {
    let mut script = Script::new().options(|options| options.ecn = Ecn::Request);
    script.run(
        "+0   connect
         +0   > [noecn] SEW 0:0(0) win 65535
         +0.1 < S.E 0:0(0) ack 1 win 65535 <mss 1000>
         +0   > [noecn] . 1:1(0) ack 1
         +0   write 1000
         +0   > [ect0] P. 1:1001(1000) ack 1",
    );
    assert!(script.subflow().ecn);
}

/// §6.1.1: a SYN/ACK that reflects both flags does not agree, nor does one without any.
#[test]
fn an_answer_that_reflects_is_none() {
    for synack in ["S.EW", "S.", "S.W"] {
        let mut script = Script::new().options(|options| options.ecn = Ecn::Request);
        script.run(&format!(
            "+0   connect
             +0   > SEW 0:0(0) win 65535
             +0.1 < {synack} 0:0(0) ack 1 win 65535 <mss 1000>
             +0   > . 1:1(0) ack 1
             +0   write 1000
             +0   > [noecn] P. 1:1001(1000) ack 1"
        ));
    }
}

/// §6.1.1.1: who drops SYNs that ask for ECN is asked without.
#[test]
fn a_syn_without_answer_is_repeated_without_ecn() {
    let mut script = Script::new().options(|options| options.ecn = Ecn::Request);
    script.run(
        "+0 connect
         +0 > SEW 0:0(0) win 65535
         +1 > S 0:0(0) win 65535",
    );
}

/// Old duplicates of the time before: without agreement the flags mean nothing.
#[test]
fn without_agreement_no_flag_is_believed() {
    let mut script = reno().accepted();
    script.run(
        "+0   write 10000
         +0   > [noecn] P. 1:10001(10000) ack 1
         +0.1 < .E 1:1(0) ack 1001 win 65535
         +0   < [ce] P. 1:101(100) ack 10001 win 65535
         +0   > [noecn] . 10001:10001(0) ack 101",
    );
    assert_eq!(script.subflow().ssthresh, u64::MAX);
}
