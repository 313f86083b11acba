//! Addresses: announced with and without ports, withdrawn, forged; those that come and go; programs that manage paths.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use anabranch_core::config::{EndpointFlags, IpCidr, Limits, NewEndpoint};
use anabranch_core::pm::{Command, Notice, RemoteAddr, Report};
use anabranch_core::wire::{
    AddAddr, Flags, IpOut, MptcpOption, OptionWriter, RemoveAddr, Segment, SegmentOut, SeqNum, Tuple,
};
use anabranch_core::{Error, SocketOptions};
use anabranch_frame::{PathId, Payload, RxPacket, Slices, Transmit, gso};
use anabranch_sim::{Action, AppId, Chatter, HostConfig, HostId, Note, Pair, Transfer, Verdict};

use crate::support::*;

const JOIN_PORT: u16 = 10_080;

fn signal(port: Option<u16>) -> (EndpointFlags, Option<NonZeroU16>) {
    (EndpointFlags { signal: true, ..EndpointFlags::default() }, port.and_then(NonZeroU16::new))
}

fn no_flags(host: &mut HostConfig) {
    host.paths.iter_mut().for_each(|path| path.flags = EndpointFlags::default());
}

/// A server that announces its second path, with a port, and a client without flags.
fn announcing_a_port(seed: u64) -> Pair {
    let announce = |host: &mut HostConfig| (host.paths[1].flags, host.paths[1].port) = signal(Some(JOIN_PORT));
    Pair::seeded(seed).path(wifi()).path(lte()).client(no_flags).server(announce).build()
}

/// Two that say something now and then: client and server.
fn talk(net: &mut Pair, server: SocketAddr, options: &SocketOptions) -> (AppId<Chatter>, AppId<Chatter>) {
    let mut app = Chatter::connect(server).options(options.clone());
    for n in 1..40u64 {
        app = app.at(ms(100 * n), Action::Write(vec![b'.'; 100]));
    }
    let listener = net.spawn(Pair::SERVER, Chatter::listen(server).options(options.clone()));
    (net.spawn(Pair::CLIENT, app), listener)
}

fn subflows(net: &Pair, host: HostId, app: AppId<Chatter>) -> Vec<(SocketAddr, SocketAddr)> {
    let conn = net.app(app).conn().expect("a connection");
    let subflows = net.shard(host, 0).subflows(conn).expect("the connection is there");
    subflows.iter().map(|subflow| (subflow.local, subflow.remote)).collect()
}

fn heard(net: &Pair, app: AppId<Chatter>) -> usize {
    net.app(app).heard().len()
}

#[test]
fn an_address_is_announced_with_a_port_and_joined_there() {
    for server in [Pair::server_addr(0), Pair::server_addr_v6(0)] {
        let mut net = announcing_a_port(1201);
        let (_, listener) = talk(&mut net, server, &SocketOptions::default());
        net.run_to(secs(5));
        // The other family's address cannot be joined by a client of one: it is announced all the same.
        let (client, server) = (net.counters(Pair::CLIENT), net.counters(Pair::SERVER));
        assert_eq!((server.add_addr_tx, client.port_add, server.echo_add), (2, 2, 2));
        assert!(server.mp_join_port_syn_rx >= 1 && server.mismatch_port_syn_rx == 0);
        assert_eq!(server.mp_join_port_ack_rx, server.mp_join_port_syn_rx);
        assert_eq!(client.mp_join_port_synack_rx, server.mp_join_port_syn_rx);
        let joined = subflows(&net, Pair::SERVER, listener);
        assert!(joined.iter().any(|(local, _)| local.port() == JOIN_PORT), "{joined:?}");
        assert_eq!(heard(&net, listener), 3900);
        assert_no_reset(&net);
    }
}

#[test]
fn a_port_that_is_announced_takes_no_connections() {
    let mut net = announcing_a_port(1202);
    talk(&mut net, Pair::server_addr(0), &SocketOptions::default());
    net.run_to(secs(1));
    let stranger = SocketAddr::new(Pair::server_addr(1).ip(), JOIN_PORT);
    let stranger = net.spawn(Pair::CLIENT, Chatter::connect(stranger));
    net.run_to(secs(2));
    assert_eq!(net.app(stranger).closed(), Some(Some(Error::Refused)));
}

#[test]
fn a_join_on_a_port_that_nobody_announced_is_refused() {
    // Given a client whose program joins wherever it likes,
    let mut net = announcing_a_port(1203);
    let (app, _) = talk(&mut net, Pair::server_addr(0), &external());
    net.run_to(secs(1));
    let conn = net.app(app).conn().expect("connected");
    for (n, addr) in ["10.0.1.2:10081", "10.0.0.2:10080"].into_iter().enumerate() {
        // when it joins another port, or the right port of another address, then it is reset, and the program hears of it.
        let command = open(endpoint_of(&net, Pair::CLIENT, "10.0.0.1"), addr);
        net.with_shard(Pair::CLIENT, 0, |now, shard| {
            shard.want_reports(true);
            shard.command(now, conn, command).unwrap();
        });
        net.run_for(ms(300));
        assert_eq!(net.counters(Pair::SERVER).mismatch_port_syn_rx, n as u64 + 1);
        let refused =
            |report: &Report| matches!(report.notice, Notice::SubflowDown { error: Some(Error::Refused), .. });
        assert!(reports(&mut net, Pair::CLIENT).iter().any(refused));
    }
}

#[test]
fn an_announcement_is_repeated_ever_more_seldom_until_the_echo() {
    // Given a network that loses the first two echoes,
    let mut net = announcing_a_port(1204);
    let (sender, times) = std::sync::mpsc::channel();
    let link = net.down_link(0);
    net.set_middlebox(link, move |now, packet| {
        let segment = Segment::parse(RxPacket::new(PathId(0), packet.clone())).expect("whole");
        let v4 = |option: &MptcpOption| matches!(option, MptcpOption::AddAddr(AddAddr { addr: IpAddr::V4(_), .. }));
        if segment.options.mptcp.iter().any(v4) {
            let _ = sender.send(now);
        }
        Verdict::Pass(packet)
    });
    let echo = |option: &MptcpOption| matches!(option, MptcpOption::AddAddr(AddAddr { echo: true, .. }));
    lose(&mut net, Way::Up, 2, move |segment| segment.options.mptcp.iter().any(echo));
    talk(&mut net, Pair::server_addr(0), &SocketOptions::default());
    net.run_to(secs(4));
    // then it goes three times, each time after twice as long, and is joined once, as is the IPv6 address.
    let times: Vec<_> = times.try_iter().collect();
    let [first, second] = [times[1] - times[0], times[2] - times[1]];
    assert_eq!(times.len(), 3);
    assert!(second > first * 3 / 2, "{first:?}, {second:?}");
    assert_eq!(net.counters(Pair::CLIENT).mp_join_syn_tx, 2);
}

#[test]
fn an_announcement_of_another_is_neither_believed_nor_echoed() {
    let mut net = announcing_a_port(1205);
    let (app, _) = talk(&mut net, Pair::server_addr(0), &SocketOptions::default());
    net.run_to(secs(1));
    let before = net.counters(Pair::CLIENT);
    let evil = AddAddr { echo: false, id: 77, addr: "10.0.1.66".parse().unwrap(), port: None, hmac: Some(12_345) };
    say_as_the_server(&mut net, app, &MptcpOption::AddAddr(evil));
    net.run_for(ms(200));
    let after = net.counters(Pair::CLIENT);
    assert_eq!((after.add_addr, after.add_addr_drop), (before.add_addr + 1, before.add_addr_drop + 1));
    assert_eq!((after.echo_add_tx, after.mp_join_syn_tx), (before.echo_add_tx, before.mp_join_syn_tx));
}

#[test]
fn where_nobody_or_everybody_is_nothing_is_joined() {
    // Given a server that announces what is no address of a host, or is one of the client's own,
    for addr in [
        "127.0.0.1/8",
        "0.0.0.7/8",
        "169.254.1.2/16",
        "224.0.0.9/4",
        "255.255.255.255/32",
        "240.0.0.1/8",
        "10.0.1.255/24",
        "10.0.1.0/24",
        "10.0.1.1/24",
        "::1/128",
        "fe80::2/64",
        "ff02::5/16",
        "::ffff:10.0.0.9/128",
    ] {
        let mut net = Pair::seeded(1206).path(wifi()).path(lte()).client(no_flags).build();
        let (_, listener) = talk(&mut net, Pair::server_addr(0), &SocketOptions::default());
        let new =
            NewEndpoint { path: PathId(1), addr: addr.parse().unwrap(), id: 0, flags: signal(None).0, port: None };
        net.with_shard(Pair::SERVER, 0, |now, shard| shard.add_endpoint(now, &new)).unwrap();
        net.run_to(secs(2));
        // then the client drops it, each time it comes, and tries nothing.
        let client = net.counters(Pair::CLIENT);
        assert!(client.add_addr >= 1 && client.add_addr_drop == client.add_addr, "{addr}: {}", client.add_addr);
        assert_eq!((client.mp_join_syn_tx, client.echo_add_tx), (0, 0), "{addr}");
        assert!(heard(&net, listener) > 1000);
    }
}

#[test]
fn an_identifier_stays_with_its_address() {
    let mut net = announcing_a_port(1207);
    let (_, listener) = talk(&mut net, Pair::server_addr(0), &SocketOptions::default());
    net.run_to(secs(1));
    let before = net.counters(Pair::CLIENT);
    // An address that is announced once more, with another port, is one more place to join,
    let id = endpoint_of(&net, Pair::SERVER, "10.0.1.2");
    let conn = net.app(listener).conn().expect("accepted");
    let again = Command::Announce { endpoint: id, port: NonZeroU16::new(JOIN_PORT + 1) };
    net.with_shard(Pair::SERVER, 0, |now, shard| shard.command(now, conn, again)).unwrap();
    net.run_for(ms(300));
    let after = net.counters(Pair::CLIENT);
    assert_eq!((after.mp_join_syn_tx, after.add_addr_drop), (before.mp_join_syn_tx + 1, before.add_addr_drop));
    // but an identifier that comes with another address without having been withdrawn is not.
    let link = net.down_link(0);
    net.set_middlebox(link, |_, packet| {
        let withdraws = |option: &MptcpOption| matches!(option, MptcpOption::RemoveAddr(_));
        let segment = Segment::parse(RxPacket::new(PathId(0), packet.clone())).expect("whole");
        if segment.options.mptcp.iter().any(withdraws) { Verdict::Drop } else { Verdict::Pass(packet) }
    });
    let new =
        NewEndpoint { path: PathId(1), addr: "10.0.1.9/24".parse().unwrap(), id, flags: signal(None).0, port: None };
    net.with_shard(Pair::SERVER, 0, |now, shard| {
        shard.remove_endpoint(now, id).unwrap();
        shard.add_endpoint(now, &new).unwrap();
    });
    net.run_for(ms(300));
    let last = net.counters(Pair::CLIENT);
    assert_eq!((last.mp_join_syn_tx, last.add_addr_drop), (after.mp_join_syn_tx, after.add_addr_drop + 1));
}

#[test]
fn the_flag_c_keeps_joins_away_from_the_first_address() {
    // Given a client with a `subflow` endpoint, and a server behind a balancer that announces its own address,
    let announce = |host: &mut HostConfig| {
        host.paths[1].addrs.truncate(1);
        (host.paths[1].flags, host.paths[1].port) = signal(Some(JOIN_PORT));
    };
    let mut net = Pair::seeded(1208).path(wifi()).path(lte()).server(announce).build();
    let denies = SocketOptions { allow_join_initial_addr_port: false, ..SocketOptions::default() };
    let listener = net.spawn(Pair::SERVER, Chatter::listen(Pair::server_addr(0)).options(denies));
    let client = Chatter::connect(Pair::server_addr(0)).at(ms(100), Action::Write(vec![0; 1000]));
    let client = net.spawn(Pair::CLIENT, client);
    net.run_to(secs(1));
    // then the client joins there and nowhere else.
    let joined = subflows(&net, Pair::SERVER, listener);
    assert_eq!(joined.len(), 2, "{joined:?}");
    assert_eq!(joined[1].0, SocketAddr::new(Pair::server_addr(1).ip(), JOIN_PORT));
    // When it joins the first address in spite of that, then it is refused.
    let conn = net.app(client).conn().expect("connected");
    let command = open(endpoint_of(&net, Pair::CLIENT, "10.0.1.1"), &Pair::server_addr(0).to_string());
    net.with_shard(Pair::CLIENT, 0, |now, shard| shard.command(now, conn, command)).unwrap();
    net.run_for(ms(300));
    assert_eq!(net.counters(Pair::SERVER).mp_join_rejected, 1);
    assert_eq!(subflows(&net, Pair::SERVER, listener).len(), 2);
}

#[test]
fn a_forged_removal_closes_nothing_that_answers() {
    // Given three subflows, when somebody who sees the packets withdraws the addresses of two, 0 among them,
    let mut net = announcing_a_port(1209);
    let (app, listener) = talk(&mut net, Pair::server_addr(0), &SocketOptions::default());
    net.run_to(secs(1));
    let id = endpoint_of(&net, Pair::SERVER, "10.0.1.2");
    let ids = [0, id, 200].into_iter().collect();
    say_as_the_server(&mut net, app, &MptcpOption::RemoveAddr(RemoveAddr { ids }));
    net.run_to(secs(5));
    // then both are asked, answer, and stay.
    let client = net.counters(Pair::CLIENT);
    assert_eq!((client.rm_addr, client.rm_addr_drop, client.rm_subflow), (3, 1, 0));
    assert_eq!(subflows(&net, Pair::CLIENT, app).len(), 3);
    assert_eq!(heard(&net, listener), 3900);
    assert_no_reset(&net);
}

#[test]
fn a_removed_address_that_is_gone_loses_its_subflow() {
    // Given two subflows, when the second path dies without a word and the client withdraws its address there,
    let mut net = two_paths(1210);
    let (app, listener) = talk(&mut net, Pair::server_addr(0), &SocketOptions::default());
    net.run_to(secs(1));
    assert_eq!(subflows(&net, Pair::SERVER, listener).len(), 2);
    for link in [net.up_link(1), net.down_link(1)] {
        net.set_middlebox(link, |_, _| Verdict::Drop);
    }
    let id = endpoint_of(&net, Pair::CLIENT, "10.0.1.1");
    net.with_shard(Pair::CLIENT, 0, |now, shard| shard.remove_endpoint(now, id)).unwrap();
    net.run_for(ms(50));
    // then the server asks twice before it believes that,
    assert_eq!(net.counters(Pair::SERVER).rm_addr, 1);
    assert_eq!(subflows(&net, Pair::SERVER, listener).len(), 2);
    net.run_to(secs(3));
    assert_eq!(net.counters(Pair::SERVER).rm_subflow, 1);
    assert_eq!(subflows(&net, Pair::SERVER, listener).len(), 1);
    // and the first path has carried everything.
    net.run_to(secs(5));
    assert_eq!(heard(&net, listener), 3900);
    assert_eq!(subflows(&net, Pair::CLIENT, app).len(), 1);
}

#[test]
fn the_first_address_can_be_removed() {
    // Given two subflows, when the client's first address goes,
    let mut net = two_paths(1211);
    let (app, listener) = talk(&mut net, Pair::server_addr(0), &SocketOptions::default());
    net.run_to(secs(1));
    let id = endpoint_of(&net, Pair::CLIENT, "10.0.0.1");
    net.with_shard(Pair::CLIENT, 0, |now, shard| shard.remove_endpoint(now, id)).unwrap();
    net.run_to(secs(6));
    // then identifier 0 is withdrawn, and the second subflow goes on alone.
    assert_eq!(net.counters(Pair::SERVER).rm_addr, 1);
    for (host, app) in [(Pair::CLIENT, app), (Pair::SERVER, listener)] {
        assert_eq!(subflows(&net, host, app).len(), 1, "{host:?}");
    }
    assert_eq!(heard(&net, listener), 3900);
}

#[test]
fn endpoints_come_change_and_go_while_a_connection_lives() {
    let mut net = Pair::seeded(1212).path(wifi()).path(lte()).client(no_flags).build();
    let (app, listener) = talk(&mut net, Pair::server_addr(0), &SocketOptions::default());
    net.run_to(secs(1));
    assert_eq!(subflows(&net, Pair::CLIENT, app).len(), 1);
    // A new address with `subflow` joins,
    let flags = EndpointFlags { subflow: true, ..EndpointFlags::default() };
    let addr: IpCidr = "10.0.1.77/24".parse().unwrap();
    let new = NewEndpoint { path: PathId(1), addr, id: 0, flags, port: None };
    let id = net.with_shard(Pair::CLIENT, 0, |now, shard| shard.add_endpoint(now, &new)).unwrap();
    net.run_for(ms(500));
    assert_eq!(subflows(&net, Pair::SERVER, listener)[1].1.ip(), addr.addr);
    // as a backup once it is told,
    let backup = EndpointFlags { backup: true, ..flags };
    net.with_shard(Pair::CLIENT, 0, |now, shard| shard.change_endpoint(now, id, backup, None)).unwrap();
    net.run_for(ms(200));
    assert_eq!((net.counters(Pair::CLIENT).mp_prio_tx, net.counters(Pair::SERVER).mp_prio_rx), (1, 1));
    // one that the server is told to announce from now on is,
    let second = endpoint_of(&net, Pair::SERVER, "10.0.1.2");
    net.with_shard(Pair::SERVER, 0, |now, shard| shard.change_endpoint(now, second, signal(None).0, None)).unwrap();
    net.run_for(ms(500));
    assert_eq!(net.counters(Pair::CLIENT).add_addr, 1);
    // and withdrawn when it is told not to.
    let none = EndpointFlags::default();
    net.with_shard(Pair::SERVER, 0, |now, shard| shard.change_endpoint(now, second, none, None)).unwrap();
    net.run_for(ms(200));
    assert_eq!(net.counters(Pair::CLIENT).rm_addr, 1);
    // The address that goes takes its subflow with it.
    net.with_shard(Pair::CLIENT, 0, |now, shard| shard.remove_endpoint(now, id)).unwrap();
    net.run_for(secs(2));
    let left = subflows(&net, Pair::SERVER, listener);
    assert!(left.iter().all(|(_, remote)| remote.ip() != addr.addr), "{left:?}");
    net.run_to(secs(6));
    assert_eq!(heard(&net, listener), 3900);
}

#[test]
fn an_idle_connection_is_told_of_every_address() {
    // Given a connection on which nobody says anything, when four addresses come and go again,
    let mut net = Pair::seeded(1217).path(wifi()).path(lte()).client(no_flags).build();
    net.spawn(Pair::SERVER, Chatter::listen(Pair::server_addr(0)));
    net.spawn(Pair::CLIENT, Chatter::connect(Pair::server_addr(0)).at(ms(100), Action::Write(vec![1])));
    net.run_to(secs(1));
    for host in 91..95u8 {
        let addr = IpCidr { addr: IpAddr::from([10, 0, 1, host]), prefix: 24 };
        let new = NewEndpoint { path: PathId(1), addr, id: host, flags: signal(None).0, port: None };
        net.with_shard(Pair::SERVER, 0, |now, shard| shard.add_endpoint(now, &new)).unwrap();
    }
    net.run_for(secs(3));
    assert_eq!(net.counters(Pair::SERVER).echo_add, 4);
    for host in 91..95u8 {
        net.with_shard(Pair::SERVER, 0, |now, shard| shard.remove_endpoint(now, host)).unwrap();
    }
    net.run_for(secs(5));
    // then the peer hears of all of them, though not more than two at a time.
    assert_eq!(net.counters(Pair::CLIENT).rm_addr, 4);
}

#[test]
fn limits_can_be_changed_for_connections_that_exist() {
    let mut net = Pair::seeded(1213).path(wifi()).path(lte()).client(no_flags).build();
    let (app, _) = talk(&mut net, Pair::server_addr(0), &SocketOptions::default());
    net.run_to(secs(1));
    net.with_shard(Pair::CLIENT, 0, |now, shard| shard.set_limits(now, Limits { subflows: 0, add_addr_accepted: 0 }));
    let id = endpoint_of(&net, Pair::CLIENT, "10.0.1.1");
    let flags = EndpointFlags { subflow: true, ..EndpointFlags::default() };
    net.with_shard(Pair::CLIENT, 0, |now, shard| shard.change_endpoint(now, id, flags, None)).unwrap();
    net.run_for(ms(500));
    assert_eq!(subflows(&net, Pair::CLIENT, app).len(), 1);
}

#[test]
fn a_program_manages_the_paths() {
    // Given two stacks that leave it to programs, which hear of the connection,
    let mut net = Pair::seeded(1214).path(wifi()).path(lte()).client(no_flags).build();
    for host in [Pair::CLIENT, Pair::SERVER] {
        net.with_shard(host, 0, |_, shard| shard.want_reports(true));
    }
    let (app, listener) = talk(&mut net, Pair::server_addr(0), &external());
    net.run_to(secs(1));
    let listening = reports(&mut net, Pair::SERVER);
    assert_eq!(listening[0], Report { token: 0, notice: Notice::ListenerCreated(Pair::server_addr(0)) });
    assert!(matches!(listening[1].notice, Notice::Created { server_side: true, .. }), "{listening:?}");
    let heard_by_client = reports(&mut net, Pair::CLIENT);
    let token = heard_by_client[0].token;
    assert!(matches!(heard_by_client[0].notice, Notice::Created { server_side: false, .. }), "{heard_by_client:?}");
    assert_eq!(heard_by_client[1], Report { token, notice: Notice::Established });
    // when the server's program announces an address, then the client's hears of it, and nothing else happens;
    let second = endpoint_of(&net, Pair::SERVER, "10.0.1.2");
    command(&mut net, Pair::SERVER, listening[1].token, Command::Announce { endpoint: second, port: None }).unwrap();
    net.run_for(ms(200));
    let remote = RemoteAddr { id: second, addr: Pair::server_addr(1) };
    assert_eq!(reports(&mut net, Pair::CLIENT), [Report { token, notice: Notice::Announced(remote) }]);
    assert_eq!(net.counters(Pair::CLIENT).mp_join_syn_tx, 0);
    // it joins, as a backup, and takes that back;
    let ours = endpoint_of(&net, Pair::CLIENT, "10.0.1.1");
    command(&mut net, Pair::CLIENT, token, Command::Open { endpoint: ours, remote, backup: true }).unwrap();
    net.run_for(ms(500));
    let up = reports(&mut net, Pair::CLIENT);
    let [Report { notice: Notice::SubflowUp { subflow, backup: true }, .. }] = up[..] else { panic!("{up:?}") };
    assert_eq!(subflow.remote, remote.addr);
    let ours_again = Command::SetBackup { subflow: subflow.id, backup: false };
    command(&mut net, Pair::CLIENT, token, ours_again).unwrap();
    net.run_for(ms(300));
    let told = reports(&mut net, Pair::SERVER);
    assert!(matches!(told[..], [.., Report { notice: Notice::Priority { backup: false, .. }, .. }]), "{told:?}");
    // it closes the subflow, and the server withdraws the address.
    command(&mut net, Pair::CLIENT, token, Command::Close(subflow.id)).unwrap();
    command(&mut net, Pair::SERVER, listening[1].token, Command::Withdraw(second)).unwrap();
    net.run_for(ms(500));
    let end = reports(&mut net, Pair::CLIENT);
    let is = |wanted: &dyn Fn(&Notice) -> bool| end.iter().any(|report| wanted(&report.notice));
    assert!(is(&|notice| matches!(notice, Notice::Removed(id) if *id == second)), "{end:?}");
    assert!(is(&|notice| matches!(notice, Notice::SubflowDown { broken: false, .. })), "{end:?}");
    // At the end it hears that the connection is over, and commands find nothing.
    net.run_to(secs(5));
    assert_eq!(heard(&net, listener), 3900);
    let conn = net.app(app).conn().expect("connected");
    net.with_shard(Pair::CLIENT, 0, |now, shard| shard.abort(now, conn));
    net.run_for(ms(100));
    assert_eq!(reports(&mut net, Pair::CLIENT), [Report { token, notice: Notice::Closed { fallback: false } }]);
    assert!(net.app(app).saw(&Note::Closed(Some(Error::Aborted))));
    assert_eq!(command(&mut net, Pair::CLIENT, token, Command::Withdraw(1)), Err(Error::NotConnected));
}

#[test]
fn commands_that_make_no_sense_are_refused() {
    let mut net = Pair::seeded(1215).path(wifi()).path(lte()).client(no_flags).build();
    let (app, _) = talk(&mut net, Pair::server_addr(0), &external());
    net.run_to(secs(1));
    let conn = net.app(app).conn().expect("connected");
    let ours = endpoint_of(&net, Pair::CLIENT, "10.0.1.1");
    for wrong in [
        Command::Announce { endpoint: 99, port: None },
        open(99, "10.0.1.2:5001"),
        open(ours, "127.0.0.1:5001"),
        open(ours, "10.0.1.2:0"),
        open(ours, "[fd00::2]:5001"),
        Command::Close(99),
        Command::SetBackup { subflow: 99, backup: true },
    ] {
        let result = net.with_shard(Pair::CLIENT, 0, |now, shard| shard.command(now, conn, wrong));
        assert!(matches!(result, Err(Error::BadOption { .. })), "{wrong:?}: {result:?}");
    }
    assert_eq!(net.counters(Pair::CLIENT).mp_join_syn_tx, 0);
}

#[test]
fn an_unasked_for_transfer_goes_on_while_addresses_come_and_go() {
    // A whole transfer, while the second address comes and goes ten times a second.
    let mut net = Pair::seeded(1216).path(wifi()).path(lte()).client(no_flags).build();
    let server = net.spawn(Pair::SERVER, Transfer::listen(Pair::server_addr(0)));
    let client = net.spawn(Pair::CLIENT, Transfer::connect(Pair::server_addr(0)).sends(20 * MEGABYTE));
    let flags = EndpointFlags { subflow: true, ..EndpointFlags::default() };
    let new = NewEndpoint { path: PathId(1), addr: "10.0.1.77/24".parse().unwrap(), id: 77, flags, port: None };
    for n in 0..20u64 {
        net.at(ms(500 + 200 * n), move |world| {
            world.with_shard(Pair::CLIENT, 0, |now, shard| shard.add_endpoint(now, &new)).unwrap();
        });
        net.at(ms(600 + 200 * n), move |world| {
            world.with_shard(Pair::CLIENT, 0, |now, shard| shard.remove_endpoint(now, 77)).unwrap();
        });
    }
    finish(&mut net, (client, server), secs(30));
    assert!(net.counters(Pair::SERVER).rm_addr >= 5);
    close(&mut net, (client, server));
}

fn external() -> SocketOptions {
    SocketOptions { path_manager: "external".into(), ..SocketOptions::default() }
}

fn endpoint_of(net: &Pair, host: HostId, addr: &str) -> u8 {
    let addr: IpAddr = addr.parse().unwrap();
    let endpoints = net.shard(host, 0).endpoints();
    endpoints.iter().find(|endpoint| endpoint.addr == addr).expect("the host has that address").id
}

fn open(endpoint: u8, remote: &str) -> Command {
    Command::Open { endpoint, remote: RemoteAddr { id: 9, addr: remote.parse().unwrap() }, backup: false }
}

fn command(net: &mut Pair, host: HostId, token: u32, command: Command) -> Result<(), Error> {
    net.with_shard(host, 0, |now, shard| {
        let conn = shard.by_token(token).ok_or(Error::NotConnected)?;
        shard.command(now, conn, command)
    })
}

fn reports(net: &mut Pair, host: HostId) -> Vec<Report> {
    net.with_shard(host, 0, |_, shard| std::iter::from_fn(|| shard.poll_report()).collect())
}

/// A segment of the first subflow from the server to the client, with this option, as somebody on its path can make it.
fn say_as_the_server(net: &mut Pair, client: AppId<Chatter>, option: &MptcpOption) {
    let (local, remote) = subflows(net, Pair::CLIENT, client)[0];
    let (sender, numbers) = std::sync::mpsc::channel();
    let link = net.down_link(0);
    net.set_middlebox(link, move |_, packet| {
        if let Ok(segment) = Segment::parse(RxPacket::new(PathId(0), packet.clone())) {
            let _ = sender.send((segment.seq.add(segment.seq_len()), segment.ack));
        }
        Verdict::Pass(packet)
    });
    net.run_for(ms(300));
    let (seq, ack): (SeqNum, SeqNum) = numbers.try_iter().last().expect("the server said something");
    let mut options = OptionWriter::new();
    assert!(options.mptcp(option));
    let out = SegmentOut {
        tuple: Tuple { local: remote, remote: local },
        seq,
        ack,
        flags: Flags::ACK,
        window: 1000,
        ip: IpOut::default(),
        options: &options,
        payload_len: 0,
    };
    let (header, transport_offset) = out.emit();
    let transmit = Transmit {
        path: PathId(0),
        header,
        transport_offset,
        checksum_offset: 16,
        payload: Slices::new(),
        segment_size: None,
    };
    let mut bytes = Vec::new();
    gso::complete(&transmit, &mut bytes);
    net.inject(Pair::CLIENT, PathId(0), Payload::from(bytes));
}
