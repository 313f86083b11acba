//! What stands in IP headers besides addresses.

use anabranch_core::{Ecn, SockOpt};

use crate::harness::Script;

/// RFC 2474, RFC 3168 §5: type of service and hop limit of all packets are the socket's, the ECN bits are TCP's.
#[test]
fn type_of_service_and_hop_limit_are_the_sockets() {
    for v6 in [false, true] {
        let script = if v6 { Script::v6() } else { Script::new() };
        let mut script = script.options(|options| {
            options.ecn = Ecn::Request;
            options.tos = 0xb9;
            options.hop_limit = 7;
        });
        script.run("+0 connect");
        assert_eq!((script.last_ip().tos, script.last_ip().hop_limit), (0xb8, 7));
        script.run(
            "+0   > [noecn] SEW 0:0(0)
             +0.1 < S.E 0:0(0) ack 1 win 65535 <mss 1000>
             +0   > [noecn] . 1:1(0) ack 1
             +0   write 1000
             +0   > [ect0] P. 1:1001(1000) ack 1",
        );
        assert_eq!((script.last_ip().tos, script.last_ip().hop_limit), (0xb8, 7));

        // Both can be changed at any time.
        for option in [SockOpt::Tos(0x20), SockOpt::HopLimit(200)] {
            script.shard.set_option(script.now, script.conn(), option).unwrap();
        }
        script.run(
            "+0   write 1000
             +0   > [ect0] P. 1001:2001(1000) ack 1",
        );
        assert_eq!((script.last_ip().tos, script.last_ip().hop_limit), (0x20, 200));
    }
}

/// A listener's are those of the connections that it accepts, from the SYN/ACK on.
#[test]
fn a_syn_ack_has_the_listeners() {
    let mut script = Script::new().options(|options| options.tos = 0x28).listen();
    script.run(
        "+0 < S 0:0(0) win 65535 <mss 1000>
         +0 > S. 0:0(0) ack 1",
    );
    assert_eq!(script.last_ip().tos, 0x28);
}

/// RFC 6437, RFC 6438: a flow keeps its label, and gets another one with each timeout, since that may lead it past
/// what is broken.
#[test]
fn a_flow_label_is_kept_until_a_timeout() {
    let mut script = Script::v6().accepted();
    let mut labels = Vec::new();
    script.run("+0 write 1000\n +0 > P. 1:1001(1000) ack 1");
    labels.push(script.last_ip().flow_label);
    script.run(
        "+0.1 < . 1:1(0) ack 1001 win 65535
         +0   write 1000
         +0   > P. 1001:2001(1000) ack 1",
    );
    assert_eq!(script.last_ip().flow_label, labels[0]);
    for _ in 0..3 {
        script.run("* > P. 1001:2001(1000) ack 1");
        labels.push(script.last_ip().flow_label);
    }
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), 4, "{labels:05x?}");
    assert!(!labels.contains(&0));
    assert_eq!(script.counters().tcp_timeout_rehash, 3);
}

/// The same for SYNs that are not answered.
#[test]
fn each_syn_has_another_flow_label() {
    let mut script = Script::v6();
    let mut labels = Vec::new();
    script.run("+0 connect");
    for _ in 0..4 {
        labels.push(script.last_ip().flow_label);
        script.run("* > S 0:0(0)");
    }
    labels.sort_unstable();
    labels.dedup();
    assert!(labels.len() >= 3, "{labels:05x?}");
}

/// `IPV6_AUTOFLOWLABEL` off.
#[test]
fn without_labels_the_field_is_zero() {
    let mut script = Script::v6().options(|options| options.autoflowlabel = false).accepted();
    script.run("+0 write 1000\n +0 > P. 1:1001(1000) ack 1");
    assert_eq!(script.last_ip().flow_label, 0);
}
