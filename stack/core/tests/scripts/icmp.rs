//! ICMP errors, believed and not (RFC 5927), and what they do to a connection (RFC 5461).

use anabranch_core::{Error, Event, IcmpCause};

use crate::harness::Script;

fn closed_by(script: &Script, expected: Error) -> bool {
    script.saw(|event| matches!(event, Event::Closed(_, Some(error)) if *error == expected))
}

/// RFC 5461 §4.1: while a connection is opened any error ends the attempt, with the kernel's reason.
#[test]
fn an_error_ends_an_attempt_to_connect() {
    let cases = [
        ("port_unreachable", Error::Refused),
        ("net_unreachable", Error::Icmp(IcmpCause::NetworkUnreachable)),
        ("host_unreachable", Error::Icmp(IcmpCause::HostUnreachable)),
        ("protocol_unreachable", Error::Icmp(IcmpCause::ProtocolUnreachable)),
        ("prohibited", Error::Icmp(IcmpCause::HostUnreachable)),
        ("time_exceeded", Error::Icmp(IcmpCause::HostUnreachable)),
        ("parameter_problem", Error::Icmp(IcmpCause::BadHeader)),
    ];
    for (error, expected) in cases {
        let mut script = Script::new();
        script.run(&format!(
            "+0    connect
             +0    > S 0:0(0)
             +0.01 < [0:0(0)] icmp {error}
             +5    quiet"
        ));
        assert!(closed_by(&script, expected), "{error}");
        assert_eq!(script.counters().tcp_attempt_fails, 1);
    }
    let mut script = Script::v6();
    script.run(
        "+0    connect
         +0    > S 0:0(0)
         +0.01 < [0:0(0)] icmp prohibited
         +5    quiet",
    );
    assert!(closed_by(&script, Error::Icmp(IcmpCause::Prohibited)));
}

/// RFC 5927 §4.1: about a sequence number that is not under way it is forged, or very late.
#[test]
fn an_error_about_nothing_under_way_is_not_believed() {
    let mut script = Script::new();
    script.run(
        "+0    connect
         +0    > S 0:0(0)
         +0.01 < [7:7(0)] icmp port_unreachable
         +0.99 > S 0:0(0)",
    );
    assert_eq!(script.counters().out_of_window_icmps, 1);

    let mut script = Script::new().accepted_with("mss 1460", "");
    script.run(
        "+0    write 1460
         +0    > P. 1:1461(1460) ack 1
         +0    < [0:1460(1460)] icmp frag_needed mtu 1200
         +0    < [1462:2922(1460)] icmp frag_needed mtu 1200
         +0.05 quiet",
    );
    assert_eq!((script.counters().out_of_window_icmps, script.subflow().pmtu), (2, 1500));
}

/// RFC 6633: source quench says nothing any more.
#[test]
fn a_source_quench_is_ignored() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 1000
         +0    > P. 1:1001(1000) ack 1
         +0    < [1:1001(1000)] icmp source_quench
         +0.05 < . 1:1(0) ack 1001 win 65535
         +1    quiet",
    );
    assert_eq!(script.counters().icmp_in_msgs, 1);
}

/// RFC 1122 §4.2.3.9, RFC 5461 §2.2: an established connection goes on, and the reason is told when it times out.
#[test]
fn an_error_does_not_end_what_was_established() {
    for (error, expected) in
        [("port_unreachable", Error::Refused), ("host_unreachable", Error::Icmp(IcmpCause::HostUnreachable))]
    {
        let mut script = Script::new().accepted();
        script.run(&format!(
            "+0    write 1000
             +0    > P. 1:1001(1000) ack 1
             +0.05 < [1:1001(1000)] icmp {error}
             +0.05 < . 1:1(0) ack 1001 win 65535
             +0    write 1000
             +0    > P. 1001:2001(1000) ack 1
             +0.05 < [1001:2001(1000)] icmp {error}"
        ));
        assert!(!script.saw(|event| matches!(event, Event::Closed(..))));
        script.give_up();
        assert!(closed_by(&script, expected), "{error}");
    }
}

/// What was heard since then makes the error old news: the connection times out without a reason.
#[test]
fn an_acknowledgement_makes_an_error_old_news() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 1000
         +0    > P. 1:1001(1000) ack 1
         +0.05 < [1:1001(1000)] icmp host_unreachable
         +0.05 < . 1:1(0) ack 1001 win 65535
         +0    write 1000
         +0    > P. 1001:2001(1000) ack 1",
    );
    script.give_up();
    assert!(closed_by(&script, Error::TimedOut));
}

/// RFC 6069: what was sent again and found no link was not lost to congestion, so the back-off stops growing.
#[test]
fn a_broken_link_does_not_double_the_timeout() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 1000
         +0    > P. 1:1001(1000) ack 1
         +0.3  > P. 1:1001(1000) ack 1
         +0.6  > P. 1:1001(1000) ack 1
         +0.01 < [1:1001(1000)] icmp net_unreachable
         +0.59 > P. 1:1001(1000) ack 1
         +0.01 < [1:1001(1000)] icmp net_unreachable
         +0.59 > P. 1:1001(1000) ack 1
         +1.2  > P. 1:1001(1000) ack 1",
    );
}

/// An error about a SYN/ACK: whoever asked for it is not there (Linux).
#[test]
fn a_half_open_connection_goes_with_an_error() {
    let mut script = Script::new().listen();
    script.run(
        "+0    < S 0:0(0) win 65535 <mss 1000>
         +0    > S. 0:0(0) ack 1
         +0.01 < [5:5(0)] icmp host_unreachable
         +0.99 > S. 0:0(0) ack 1
         +0.01 < [0:0(0)] icmp host_unreachable
         +30   quiet",
    );
    assert_eq!((script.counters().out_of_window_icmps, script.counters().tcp_attempt_fails), (1, 1));
}

/// About a connection that there is none of.
#[test]
fn an_error_about_no_connection_is_counted() {
    let mut script = Script::new().listen();
    script.run("+0 < [0:0(0)] icmp host_unreachable");
    assert_eq!((script.counters().icmp_in_msgs, script.counters().icmp_in_errors), (1, 1));
}
