//! Options on segments that carry nothing else, and on segments that are none (RFC 8684 §3, §4).

use std::net::Ipv4Addr;
use std::time::Duration;

use anabranch_core::SocketOptions;
use anabranch_core::wire::{AddAddr, MptcpOption, RemoveAddr};

use crate::peer::{Peer, Say};

#[test]
fn options_on_a_segment_outside_the_window_say_nothing() {
    // Given somebody who knows the keys, but not where the connection stands,
    let mut peer = Peer::connected(7, &SocketOptions::default());
    let close = MptcpOption::Fastclose { receiver_key: peer.stack_key() };
    let remove = MptcpOption::RemoveAddr(RemoveAddr { ids: [0].into_iter().collect() });
    let announce = peer.announces(5, Ipv4Addr::new(10, 0, 1, 1));
    for option in [close, remove, announce, MptcpOption::Prio { backup: true }] {
        for (pos, ack) in [(1 << 30, 1), (1, 1 << 30)] {
            peer.say(0, &Say { pos, ack, options: vec![option.clone()], ..Say::default() });
        }
    }
    // then nothing of what is said is heard.
    let counters = peer.shard.counters();
    let heard = [counters.mp_fastclose_rx, counters.rm_addr, counters.add_addr, counters.mp_prio_rx];
    assert_eq!(heard, [0; 4]);
    assert!(peer.info().mptcp);
}

#[test]
fn no_more_than_two_acks_in_a_row_only_signal() {
    let echoes = |peer: &mut Peer| {
        let is_echo = |option: &MptcpOption| matches!(option, MptcpOption::AddAddr(AddAddr { echo: true, .. }));
        peer.heard(0).iter().filter(|segment| segment.options.mptcp.iter().any(is_echo)).count()
    };
    // Given four announcements at once, which ask for four echoes,
    let mut peer = Peer::connected(7, &SocketOptions::default());
    for id in 1..=4 {
        let option = peer.announces(id, Ipv4Addr::new(10, 0, 1, 100 + id));
        peer.say(0, &Say { options: vec![option], ..Say::default() });
    }
    // then two go, and the others when something else has passed.
    assert_eq!(echoes(&mut peer), 2);
    let options = vec![peer.maps(1, 0, 10)];
    peer.say(0, &Say { options, payload: &[0; 10], ..Say::default() });
    peer.pass(Duration::from_millis(200));
    assert_eq!(echoes(&mut peer), 2);
}
