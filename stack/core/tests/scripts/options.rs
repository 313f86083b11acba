//! Socket options: set, read, inherited, and what they do to segments.

use std::time::Duration;

use anabranch_core::{Error, Event, Limits, SockOpt, SocketOptions};

use crate::harness::Script;

/// One value other than the default for each option that a live connection takes.
fn others() -> Vec<SockOpt> {
    let secs = Duration::from_secs;
    vec![
        SockOpt::Scheduler("redundant".into()),
        SockOpt::Congestion("reno".into()),
        SockOpt::Limits(Limits { subflows: 3, add_addr_accepted: 1 }),
        SockOpt::Nodelay(true),
        SockOpt::Cork(true),
        SockOpt::Quickack(false),
        SockOpt::Keepalive(true),
        SockOpt::Keepidle(secs(10)),
        SockOpt::Keepintvl(secs(2)),
        SockOpt::Keepcnt(3),
        SockOpt::UserTimeout(Some(secs(30))),
        SockOpt::MaxSeg(Some(1000)),
        SockOpt::NotsentLowat(16384),
        SockOpt::Linger(Some(secs(3))),
        SockOpt::Linger2(None),
        SockOpt::DeferAccept(secs(1)),
        SockOpt::WindowClamp(Some(20_000)),
        SockOpt::Sndbuf(Some(50_000)),
        SockOpt::Rcvbuf(Some(60_000)),
        SockOpt::SendBufferMax(1 << 20),
        SockOpt::RecvBufferMax(1 << 21),
        SockOpt::Rcvlowat(100),
        SockOpt::Syncnt(Some(3)),
        SockOpt::ThinLinearTimeouts(true),
        SockOpt::MaxPacingRate(Some(1_000_000)),
        SockOpt::Pacing(true),
        SockOpt::Tos(0x10),
        SockOpt::Fastopen(5),
        SockOpt::HopLimit(33),
        SockOpt::Autoflowlabel(false),
        SockOpt::FastopenConnect(true),
        SockOpt::FastopenNoCookie(true),
    ]
}

#[test]
fn every_option_can_be_changed_and_read_at_work_and_at_rest() {
    let mut script = Script::new().accepted();
    let mut expected = SocketOptions { mptcp: false, ..SocketOptions::default() };
    for option in others() {
        let (now, conn) = (script.now, script.conn());
        assert_ne!(
            script.shard.options(conn),
            Some({
                expected.set(option.clone()).unwrap();
                expected.clone()
            })
        );
        script.shard.set_option(now, conn, option.clone()).unwrap();
        assert_eq!(script.shard.options(conn).as_ref(), Some(&expected), "after {option:?}");
    }
    // Keepalive is among them, and cork sends nothing: the connection rests.
    script.run("+0 quiet");
    script.run("+5 quiet");
    assert_eq!(script.counters().conns_at_rest, 1);
    assert_eq!(script.shard.options(script.conn()), Some(expected));
}

#[test]
fn what_was_settled_by_the_handshake_stays() {
    let mut script = Script::new().accepted();
    let (now, conn) = (script.now, script.conn());
    for option in [SockOpt::Mptcp(true), SockOpt::PathManager("endpoints".into())] {
        let name = option.name();
        let result = script.shard.set_option(now, conn, option);
        assert!(matches!(result, Err(Error::BadOption { option, .. }) if option == name), "{result:?}");
    }
    let unknown = script.shard.set_option(now, conn, SockOpt::Congestion("best".into()));
    assert!(matches!(unknown, Err(Error::UnknownName { .. })));
}

#[test]
fn accepted_connections_have_the_listeners_options() {
    let mut script = Script::new().listen();
    let listener = script.listener();
    for option in others() {
        script.shard.set_listener_option(listener, option).unwrap();
    }
    // No data comes that the listener could wait for.
    script.shard.set_listener_option(listener, SockOpt::DeferAccept(Duration::ZERO)).unwrap();
    let expected = script.shard.listener_options(listener).cloned();
    script.run(
        "+0    < S 0:0(0) win 65535 <mss 1460>
         +0    > S. 0:0(0) ack 1 win 20000 <mss 1000>
         +1    < . 1:1(0) ack 1 win 65535
         +0    < P. 1:101(100) ack 1 win 65535
         +0    accept",
    );
    assert_eq!(script.shard.options(script.conn()), expected);
}

/// `TCP_MAXSEG`: neither side sends larger segments.
#[test]
fn max_seg_bounds_what_is_told_and_what_is_sent() {
    let mut script = Script::new().options(|options| options.max_seg = Some(500));
    script.run(
        "+0    connect
         +0    > S 0:0(0) win 65535 <mss 500,sackOK,TS val 0,nop,wscale 8>
         +0.05 < S. 0:0(0) ack 1 win 65535 <mss 1460>
         +0    > . 1:1(0) ack 1
         +0    write 1200
         +0    > P. 1:1001(1000) ack 1
         +0    > P. 1001:1201(200) ack 1",
    );
    assert_eq!(script.subflow().advmss, 500);
}

/// `TCP_CONGESTION` on a live connection: the window stays what it was.
#[test]
fn another_congestion_control_goes_on_with_the_window() {
    let mut script = Script::new().accepted();
    script.run(
        "+0    write 4000
         +0    > P. 1:4001(4000) ack 1
         +0.1  < . 1:1(0) ack 4001 win 65535",
    );
    let before = script.subflow().cwnd;
    let (now, conn) = (script.now, script.conn());
    script.shard.set_option(now, conn, SockOpt::Congestion("reno".into())).unwrap();
    assert_eq!(script.shard.info(conn).unwrap().congestion, "reno");
    assert_eq!(script.subflow().cwnd, before);
}

/// `TCP_WINDOW_CLAMP` and `SO_RCVBUF`: the window is no larger, from the SYN on.
#[test]
fn a_clamp_and_a_buffer_bound_the_window() {
    let mut script = Script::new().options(|options| options.window_clamp = Some(20_000));
    script.run(
        "+0    connect
         +0    > S 0:0(0) win 20000",
    );
    let mut script = Script::new().options(|options| options.rcvbuf = Some(30_000)).listen();
    script.run(
        "+0    < S 0:0(0) win 65535 <mss 1460>
         +0    > S. 0:0(0) ack 1 win 30000 <mss 1460>
         +0    < . 1:1(0) ack 1 win 65535
         +0    accept",
    );
    assert_eq!(script.shard.info(script.conn()).unwrap().recv_buffer, 30_000);
}

/// `TCP_NOTSENT_LOWAT`: there is room only while little waits unsent, however large the send buffer is.
#[test]
fn a_socket_is_writable_only_while_little_waits_unsent() {
    let mut script = Script::new().options(|options| options.notsent_lowat = 5000).accepted();
    // Ten segments go, the rest waits for the congestion window.
    script.run(
        "+0    write 14000
         +0    > P. 1:10001(10000) ack 1",
    );
    let conn = script.conn();
    assert_eq!(script.shard.info(conn).unwrap().notsent_bytes, 4000);
    assert_eq!(script.shard.write_room(conn), 1000);
    script.run("+0 write 1000");
    assert_eq!(script.shard.write_room(conn), 0);
    script.run(
        "+0.1  < . 1:1(0) ack 1001 win 65535
         +0    > P. 10001:12001(2000) ack 1",
    );
    assert!(!script.saw(|event| matches!(event, Event::Writable(_))), "3000 bytes wait: more than half of the mark");
    script.run(
        "+0.01 < . 1:1(0) ack 2001 win 65535
         +0    > P. 12001:14001(2000) ack 1",
    );
    assert!(script.saw(|event| matches!(event, Event::Writable(_))));
}

/// `SO_RCVLOWAT`: nothing is told of less than that, but of the end of the stream.
#[test]
fn a_socket_is_readable_only_when_enough_waits() {
    let mut script = Script::new().options(|options| options.rcvlowat = 1000).accepted();
    script.run(
        "+0    < P. 1:1000(999) ack 1 win 65535
         +0    > . 1:1(0) ack 1000",
    );
    assert!(!script.saw(|event| matches!(event, Event::Readable(_))));
    script.run(
        "+0    < P. 1000:1001(1) ack 1 win 65535
         +0    > . 1:1(0) ack 1001",
    );
    assert!(script.saw(|event| matches!(event, Event::Readable(_))));
}
