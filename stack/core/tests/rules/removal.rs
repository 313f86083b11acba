//! Paths and addresses that are removed: what used them ends, and the peer hears which are gone (RFC 8684 §3.4.2).

use std::net::Ipv4Addr;
use std::time::Duration;

use anabranch_core::shard::Read;
use anabranch_core::wire::{AddAddr, Flags, MptcpOption, Segment};
use anabranch_core::{EndpointFlags, Error, IpCidr, NewEndpoint, PathConfig, SocketOptions};
use anabranch_frame::PathId;

use crate::peer::{Peer, Say};

fn connected() -> Peer {
    Peer::connected(7, &SocketOptions::default())
}

fn cidr(path: u8, host: u8) -> IpCidr {
    IpCidr::new(Ipv4Addr::new(10, 0, path, host).into(), 24).expect("a prefix of IPv4")
}

/// Identifier of the stack's address on a path.
fn id_of(peer: &Peer, path: u8) -> u8 {
    let endpoints = peer.shard.endpoints();
    endpoints.iter().find(|endpoint| endpoint.addr == cidr(path, 2).addr).expect("an address of the stack").id
}

/// A path goes.
fn remove_path(peer: &mut Peer, path: u16) {
    peer.shard.remove_path(peer.now, PathId(path)).expect("a path of the stack");
    peer.pass(Duration::ZERO);
}

/// An address goes.
fn remove_address(peer: &mut Peer, path: u8) {
    let id = id_of(peer, path);
    peer.shard.remove_endpoint(peer.now, id).expect("an address of the stack");
    peer.pass(Duration::ZERO);
}

/// The identifiers of each REMOVE_ADDR.
fn withdrawn(segments: &[Segment]) -> Vec<Vec<u8>> {
    let all = segments.iter().flat_map(|segment| &segment.options.mptcp);
    all.filter_map(|option| match option {
        MptcpOption::RemoveAddr(remove) => Some(remove.ids.to_vec()),
        _ => None,
    })
    .collect()
}

fn failed(peer: &mut Peer) -> Option<Error> {
    let conn = peer.conn();
    match peer.shard.read(conn, 1) {
        Read::Failed(error) => Some(error),
        _ => None,
    }
}

#[test]
fn the_addresses_of_a_path_are_withdrawn_on_one_that_stays() {
    // Given a path with two addresses, a subflow on each, and a third subflow elsewhere,
    let mut peer = connected();
    let id = id_of(&peer, 1);
    remove_address(&mut peer, 1);
    let moved = NewEndpoint { path: PathId(0), addr: cidr(1, 2), id, flags: EndpointFlags::default(), port: None };
    peer.shard.add_endpoint(peer.now, &moved).expect("an address of nobody");
    peer.ways[1] = 0;
    peer.join(1);
    peer.join(2);
    // when the path goes, then both addresses are withdrawn at once, where somebody can hear it.
    remove_path(&mut peer, 0);
    assert_eq!(withdrawn(&peer.heard(2)), [[0, id]]);
    assert_eq!(peer.info().subflows_total, 1);
}

#[test]
fn what_uses_the_address_of_a_path_over_another_goes_with_it() {
    // Given subflows that came in by the first path, to addresses of all three,
    let mut peer = connected();
    peer.ways = [0; 3];
    peer.join(1);
    peer.join(2);
    let gone = [id_of(&peer, 1), id_of(&peer, 2)];
    // when another path goes, or an address, then the subflow there goes, and the peer hears of it.
    remove_path(&mut peer, 1);
    let heard = peer.heard(0);
    assert!(heard.iter().any(|segment| segment.flags.has(Flags::RST) && segment.tuple.remote.ip() == cidr(1, 2).addr));
    assert_eq!(withdrawn(&heard), [[gone[0]]]);
    remove_address(&mut peer, 2);
    assert_eq!(withdrawn(&peer.heard(0)), [[gone[1]]]);
    assert_eq!(peer.info().subflows_total, 1);
}

#[test]
fn an_address_stays_when_a_path_goes_by_which_it_was_reached() {
    // Given a subflow to an address of the third path that came in by the second,
    let mut peer = connected();
    peer.ways[1] = 1;
    peer.join(1);
    peer.ways[2] = 1;
    peer.join(2);
    let id = id_of(&peer, 1);
    // when the second path goes, then the subflow does, but only the second path's address is withdrawn.
    remove_path(&mut peer, 1);
    assert_eq!(withdrawn(&peer.heard(0)), [[id]]);
    assert_eq!(peer.info().subflows_total, 1);
}

#[test]
fn plain_tcp_ends_with_its_address_even_at_rest() {
    for remove in [|peer: &mut Peer| remove_path(peer, 0), |peer: &mut Peer| remove_address(peer, 0)] {
        for wait in [0, 60] {
            // Given plain TCP that came in by another path than that of its address,
            let mut peer = Peer::listening(7, &SocketOptions::default());
            peer.ways[0] = 1;
            peer.handshake(0, None);
            peer.say(0, &Say::default());
            peer.pass(Duration::from_secs(wait));
            assert_eq!(peer.shard.counters().conns_at_rest, u64::from(wait > 0));
            // when the address goes, then so does the connection.
            remove(&mut peer);
            assert_eq!(failed(&mut peer), Some(Error::Unreachable(cidr(0, 1).addr)));
        }
    }
}

#[test]
fn a_half_open_connection_goes_with_its_address() {
    for remove in [|peer: &mut Peer| remove_path(peer, 0), |peer: &mut Peer| remove_address(peer, 0)] {
        let mut peer = Peer::listening(7, &SocketOptions::default());
        peer.ways[0] = 1;
        peer.handshake(0, None);
        assert_eq!(peer.shard.sizes().half_open, 1);
        remove(&mut peer);
        assert_eq!(peer.shard.sizes().half_open, 0);
    }
}

#[test]
fn without_the_peers_answer_nothing_can_replace_the_only_path() {
    // Given an opener that has heard no DSS yet, so that nobody could join,
    let mut peer = opener();
    // when its only address goes, then it hears of it at once.
    remove_path(&mut peer, 0);
    assert_eq!(failed(&mut peer), Some(Error::Unreachable(cidr(0, 1).addr)));
}

#[test]
fn a_join_under_way_goes_with_its_address() {
    for remove in [|peer: &mut Peer| remove_path(peer, 1), |peer: &mut Peer| remove_address(peer, 1)] {
        // Given a join that was not answered yet,
        let mut peer = opener();
        let options = vec![peer.acks(0)];
        peer.say(0, &Say { options, ..Say::default() });
        assert!(peer.heard(1)[0].flags.has(Flags::SYN));
        // when its address goes, then it is not tried again.
        remove(&mut peer);
        assert_eq!(peer.shard.counters().tcp_attempt_fails, 1);
        peer.pass(Duration::from_secs(20));
        assert!(peer.heard(1).is_empty());
    }
}

/// A stack that opened a connection and joins from all its addresses, and whose peer has not spoken since.
fn opener() -> Peer {
    let flags = EndpointFlags { subflow: true, ..EndpointFlags::default() };
    let (mut peer, syn) = Peer::called(7, &SocketOptions::default(), flags);
    peer.accept(&syn);
    peer
}

#[test]
fn an_identifier_is_withdrawn_before_another_address_has_it() {
    const IDS: std::ops::Range<u8> = 91..101;
    // Given more addresses that come and go at once than there is room for on a subflow's next segments,
    let mut peer = connected();
    let flags = EndpointFlags { signal: true, ..EndpointFlags::default() };
    let endpoint = |id, host| NewEndpoint { path: PathId(1), addr: cidr(1, host), id, flags, port: None };
    for id in IDS {
        peer.shard.add_endpoint(peer.now, &endpoint(id, id)).expect("a free identifier");
    }
    for id in IDS {
        peer.shard.remove_endpoint(peer.now, id).expect("it was just added");
    }
    // when the last identifier is given to another address,
    peer.shard.add_endpoint(peer.now, &endpoint(100, 200)).expect("a free identifier");
    peer.pass(Duration::from_secs(20));
    // then the peer hears that all of them are gone, and then of the other address.
    let heard = peer.heard(0);
    let told = withdrawn(&heard).concat();
    assert_eq!(IDS.filter(|id| !told.contains(id)).collect::<Vec<_>>(), [], "{told:?}");
    let at = |wanted: &dyn Fn(&MptcpOption) -> bool| {
        heard.iter().position(|segment| segment.options.mptcp.iter().any(wanted)).expect("it was said")
    };
    let removed = at(&|option| matches!(option, MptcpOption::RemoveAddr(remove) if remove.ids.contains(&100)));
    let another = cidr(1, 200).addr;
    let announced = at(&|option| matches!(option, MptcpOption::AddAddr(AddAddr { addr, .. }) if *addr == another));
    assert!(removed < announced, "{removed} {announced}");
}

#[test]
fn what_could_be_said_to_nobody_is_said_on_the_next_subflow() {
    // Given a connection whose only address goes, which nobody can be told,
    let mut peer = connected();
    remove_address(&mut peer, 0);
    assert_eq!(peer.info().subflows_total, 0);
    // when the peer joins at another one, then it hears of it.
    peer.join_unheard(1);
    peer.pass(Duration::ZERO);
    assert_eq!(withdrawn(&peer.heard(1)), [[0]]);
}

#[test]
fn time_wait_answers_by_the_path_that_there_is() {
    // Given plain TCP that the stack closed first,
    let mut peer = Peer::listening(7, &SocketOptions::default());
    peer.handshake(0, None);
    peer.say(0, &Say::default());
    peer.shutdown();
    let fin = Say { flags: Flags::ACK.with(Flags::FIN), ack: 2, ..Say::default() };
    peer.say(0, &fin);
    assert_eq!(peer.shard.sizes().time_waits, 1);
    // when its path is removed, and added again under another number,
    remove_path(&mut peer, 0);
    peer.shard.add_path(peer.now, PathConfig::new(PathId(9), vec![cidr(0, 2)])).expect("a new path");
    peer.ways[0] = 9;
    // then a FIN that comes again is acknowledged there.
    peer.pass(Duration::from_secs(2));
    peer.say(0, &fin);
    assert_eq!(peer.heard(0).len(), 1);
}

#[test]
fn a_syn_by_a_path_that_is_gone_is_counted() {
    let mut peer = connected();
    peer.shard.add_path(peer.now, PathConfig::new(PathId(9), vec![cidr(9, 2)])).expect("a new path");
    remove_path(&mut peer, 9);
    // It was on its way up when the path went.
    peer.ways[1] = 9;
    assert!(peer.ask(1, None).is_none());
    assert_eq!(peer.shard.counters().listen_drops, 1);
}

#[test]
fn joins_that_nobody_answers_keep_no_connection() {
    // Given a connection that lost its only subflow and has two joins under way,
    let mut peer = opener();
    let options = vec![peer.acks(0)];
    peer.say(0, &Say { options, ..Say::default() });
    remove_path(&mut peer, 0);
    assert_eq!((peer.info().subflows_total, peer.heard(1).len(), peer.heard(2).len()), (0, 1, 1));
    // when a minute passes without an answer, though not without another attempt, then it is over.
    peer.pass(Duration::from_secs(61));
    assert_eq!(failed(&mut peer), Some(Error::TimedOut));
}
