//! Probes on idle connections (RFC 9293 §3.8.4).

use anabranch_core::{Error, Event, SocketOptions};

use crate::harness::Script;

/// Nobody probes who was not told to, and who was not told when waits for two hours.
#[test]
fn probes_are_off_unless_asked_for() {
    let defaults = SocketOptions::default();
    assert!(!defaults.keepalive);
    assert!(defaults.keepidle.as_secs() >= 7200);
    let mut script = Script::new().accepted();
    script.run("+20000 quiet");
    assert_eq!(script.counters().tcp_keepalive, 0);
}

/// A probe has no data and stands one before what is expected. It goes when nothing came for as long as was asked for,
/// whatever came before, and an answer starts the time anew.
#[test]
fn what_comes_postpones_the_next_probe() {
    let mut script = Script::new().options(|options| options.keepalive = true).accepted();
    script.run(
        "+7000 < P. 1:101(100) ack 1 win 65535
         +0    > . 1:1(0) ack 101
         +7199 quiet
         +1    > . 0:0(0) ack 101
         +1    < . 101:101(0) ack 1 win 65535
         +7199 quiet
         +1    > . 0:0(0) ack 101
         +1    < . 101:101(0) ack 1 win 65535",
    );
}

/// One probe without an answer says nothing: it may be lost, or the answer.
#[test]
fn several_probes_have_to_go_unanswered() {
    let mut script = Script::new().options(|options| options.keepalive = true).accepted();
    script.run("+7200 > . 0:0(0) ack 1");
    for _ in 0..8 {
        script.run("+75 > . 0:0(0) ack 1");
    }
    assert!(!script.saw(|event| matches!(event, Event::Closed(..))));
    script.run("+75 > R. 1:1(0) ack 1");
    assert!(script.saw(|event| matches!(event, Event::Closed(_, Some(Error::TimedOut)))));
}
