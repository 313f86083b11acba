//! ECN as data centres use it (RFC 8257): each mark is echoed as it came.

use crate::harness::Script;

fn dctcp() -> Script {
    Script::new().options(|options| options.congestion = "dctcp".into())
}

/// A server under DCTCP whose peer asked for ECN, past the acknowledgements that go out at once.
fn settled() -> Script {
    // As long as the window grows everything is acknowledged at once: this one does not grow.
    let mut script = dctcp().options(|options| options.rcvbuf = Some(60_000)).listen();
    script.run(
        "+0   < [ect0] SEW 0:0(0) win 65535 <mss 1000,sackOK>
         +0   > [ect0] S.E 0:0(0) ack 1
         +0.1 < [ect0] . 1:1(0) ack 1 win 65535
         +0   accept",
    );
    for at in 0..16 {
        let (start, end) = (1 + at * 1000, 1001 + at * 1000);
        script.run(&format!(
            "+0 < [ect0] P. {start}:{end}(1000) ack 1 win 65535
             +0 > [ect0] . 1:1(0) ack {end}"
        ));
    }
    script
}

/// §3.2: a mark ends the wait of a delayed acknowledgement: what came before is acknowledged without echo, then the
/// marked segment with one; and the other way round when marks end.
#[test]
fn each_change_of_marks_is_told_at_once() {
    let mut script = settled();
    script.run(
        "+0 < [ect0] P. 16001:17001(1000) ack 1 win 65535
         +0 < [ce] P. 17001:18001(1000) ack 1 win 65535
         +0 > [ect0] . 1:1(0) ack 17001
         +0 > [ect0] .E 1:1(0) ack 18001
         +0 < [ce] P. 18001:19001(1000) ack 1 win 65535
         +0 < [ect0] P. 19001:20001(1000) ack 1 win 65535
         +0 > [ect0] .E 1:1(0) ack 19001
         +0 > [ect0] . 1:1(0) ack 20001",
    );
}

/// §3.2: while marks go on they are acknowledged like other data, and CWR ends nothing.
#[test]
fn marks_go_on_until_they_end() {
    let mut script = settled();
    script.run(
        "+0   < [ce] P. 16001:17001(1000) ack 1 win 65535
         +0   > [ect0] .E 1:1(0) ack 17001
         +0   < [ce] WP. 17001:18001(1000) ack 1 win 65535
         +0.04 > [ect0] .E 1:1(0) ack 18001",
    );
}

/// §3.3, §3.4: the sender reduces by the share of marks, and tells a peer that may echo until it hears of it, once a
/// window. What is sent again is ECN-capable, too.
#[test]
fn the_sender_tells_of_marks_once_a_window() {
    let mut script = dctcp().listen();
    script.run(
        "+0   < SEW 0:0(0) win 65535 <mss 1000,sackOK>
         +0   > [ect0] S.E 0:0(0) ack 1
         +0.1 < . 1:1(0) ack 1 win 65535
         +0   accept
         +0   write 30000
         +0   > [ect0] P. 1:10001(10000) ack 1
         +0.1 < .E 1:1(0) ack 2001 win 65535
         *    > [ect0] W. 10001:11001(1000) ack 1",
    );
    let info = script.subflow();
    assert_eq!((info.delivered_ce, info.total_retrans), (2000, 0));
    script.pass(std::time::Duration::from_secs(1));
    assert!(script.subflow().total_retrans > 0);
    assert_eq!(script.last_ecn(), 2);
}

/// A peer that does not ask gets no ECN, and DCTCP goes on without.
#[test]
fn without_the_peers_consent_there_are_no_marks() {
    let mut script = dctcp().listen();
    script.run(
        "+0   < S 0:0(0) win 65535 <mss 1000>
         +0   > [noecn] S. 0:0(0) ack 1
         +0.1 < . 1:1(0) ack 1 win 65535
         +0   accept
         +0   write 1000
         +0   > [noecn] P. 1:1001(1000) ack 1",
    );
}

/// An active open under DCTCP asks, even if the socket does not, with a SYN that is ECN-capable.
#[test]
fn an_active_open_asks() {
    let mut script = dctcp();
    script.run(
        "+0   connect
         +0   > [ect0] SEW 0:0(0)
         +0.1 < [ect0] S.E 0:0(0) ack 1 win 65535 <mss 1000>
         +0   > [ect0] . 1:1(0) ack 1",
    );
}
