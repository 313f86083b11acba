//! Queues that mark instead of dropping (RFC 3168).

use anabranch_core::{Ecn, SocketOptions};
use anabranch_sim::{Aqm, Codel, LinkConfig, Pair};

use crate::support::*;

/// 50 Mbit/s, 10 ms one way, a long queue that `CoDel` keeps short with marks.
fn marking() -> LinkConfig {
    LinkConfig { aqm: Aqm::Codel(Codel::default()), ecn: true, ..LinkConfig::new(50, 10).queue_time(ms(200)) }
}

#[test]
fn a_queue_that_marks_loses_nothing() {
    for (mptcp, congestion) in [(false, "cubic"), (false, "reno"), (true, "cubic")] {
        // Given a queue that would drop a few packets a second,
        let options = |ecn| SocketOptions { mptcp, ecn, congestion: congestion.into(), ..SocketOptions::default() };
        let mut net = Pair::seeded(3101).path(marking()).build();
        let without = transfer(&mut net, 20 * MEGABYTE, 0, &options(Ecn::Accept), secs(30));
        assert!(net.up_stats(0).dropped() > 0);

        // when the client asks for ECN,
        let mut net = Pair::seeded(3101).path(marking()).build();
        let apps = start(&mut net, 20 * MEGABYTE, 0, &options(Ecn::Request));
        let took = finish(&mut net, apps, secs(30));

        // then nothing is lost, and it takes no longer.
        let stats = net.up_stats(0);
        assert_eq!(stats.dropped(), 0, "{congestion}");
        assert!(stats.marked > 0);
        let counters = net.counters(Pair::SERVER);
        assert_eq!(counters.ip_in_ce, stats.marked);
        assert_eq!(net.counters(Pair::CLIENT).tcp_retrans_segs, 0);
        assert!(took < without + ms(300), "{took:?} with ECN, {without:?} without");
        close(&mut net, apps);
    }
}

#[test]
fn a_firewall_that_drops_questions_costs_a_second() {
    // Given a firewall that takes SYNs with reserved bits for an attack,
    let mut net = Pair::seeded(3102).path(wifi()).build();
    lose(&mut net, Way::Up, usize::MAX, |segment| {
        use anabranch_core::wire::Flags;
        segment.flags.has(Flags::SYN) && segment.flags.has(Flags::ECE)
    });
    let options = SocketOptions { ecn: Ecn::Request, ..plain() };
    let took = transfer(&mut net, 1000, 1000, &options, secs(10));
    assert!((1.0..1.2).contains(&took.as_secs_f64()), "{took:?}");
}
