//! anabranch over the packet driver on veth pairs against the kernel: what the matrix asks of TUN devices, and what is
//! only to be asked of a wire.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anabranch::{Device, PathConfig, PathId, Stack};
use anabranch_drivers::packet::{Packet, PacketConfig, Reception};
use anabranch_tests::kernel::{self, Protocol};
use anabranch_tests::transfer::{Stream, Transfer, greet, pass_megabytes};
use anabranch_tests::{
    Anabranch, Connection, Counters, Family, Join, Lab, LabBuilder, Layout, Netns, PORT, PathOptions, Role, Subject,
    permitted, prove,
};
use anyhow::{Context, Result, ensure};

const BYTES: u64 = 50_000_000;

fn check(layout: Layout, role: Role, family: Family, join: Join) {
    let name = format!("packet {layout:?} {role:?} {family:?} {join:?}");
    if permitted(&name) {
        prove(LabBuilder { layout, family, role, join }, &Anabranch::start_on_veth, BYTES)
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}

macro_rules! matrix {
    ($($name:ident: $layout:ident, $role:ident, $family:ident, $join:ident;)*) => {$(
        #[test]
        fn $name() {
            check(Layout::$layout, Role::$role, Family::$family, Join::$join);
        }
    )*};
}

matrix! {
    client_v4_plain_tcp: SameNamespace, Client, V4, PlainTcp;
    client_v6_one_subflow: SameNamespace, Client, V6, Single;
    client_v4_two_subflows_by_client: SameNamespace, Client, V4, ClientSubflow;
    client_v6_two_subflows_by_server: SameNamespace, Client, V6, ServerSignal;
    server_v6_plain_tcp: SameNamespace, Server, V6, PlainTcp;
    server_v4_one_subflow: SameNamespace, Server, V4, Single;
    server_v6_two_subflows_by_client: SameNamespace, Server, V6, ClientSubflow;
    server_v4_two_subflows_by_server: SameNamespace, Server, V4, ServerSignal;
    routed_client_v4_two_subflows_by_client: Routed, Client, V4, ClientSubflow;
    routed_client_v6_two_subflows_by_client: Routed, Client, V6, ClientSubflow;
    routed_server_v4_two_subflows_by_server: Routed, Server, V4, ServerSignal;
    routed_server_v6_two_subflows_by_client: Routed, Server, V6, ClientSubflow;
}

fn run(name: &str, test: impl FnOnce() -> Result<()>) {
    if permitted(name) {
        test().unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}

/// The subject's own namespace.
fn inside(lab: &Lab) -> &Netns {
    lab.subject.netns().expect("the subject has a namespace of its own")
}

/// 60 MB each way over two paths of 400 Mbit/s, in the middle of which something `happens`.
fn survives(role: Role, family: Family, happens: impl Fn(&Lab) -> Result<()> + Sync) -> Result<Counters> {
    let join = if role == Role::Client { Join::ServerSignal } else { Join::ClientSubflow };
    let lab = LabBuilder { layout: Layout::SameNamespace, family, role, join }.build(&Anabranch::start_on_veth)?;
    // Both directions: what the subject sends bypasses its own qdisc, but not the peer's ingress.
    lab.shape(400)?;
    let before = Counters::read(&lab.peer)?;
    let Connection { client, server, listener } = lab.open()?;
    greet(&*client, &*server)?;
    lab.wait_joined(&before)?;
    let happened = Mutex::new(None);
    let report = Transfer::both_ways(60_000_000)
        .at(15_000_000, || *happened.lock().expect("no panic here") = Some(happens(&lab)))
        .run(&*client, &*server);
    happened.into_inner()?.context("the transfer was over before anything happened")??;
    let counted = Counters::read(&lab.peer)?.since(&before);
    report.intact().with_context(|| format!("the kernel counted {counted:?}"))?;
    drop((client, server, listener));
    Ok(counted)
}

#[test]
fn an_interface_goes_down_and_comes_up_again() {
    for (role, family) in [(Role::Client, Family::V4), (Role::Server, Family::V6)] {
        run("packet down and up", || {
            // A connection goes on by the other path while one is down, and a new one uses both again.
            let join = if role == Role::Client { Join::ClientSubflow } else { Join::ServerSignal };
            let plan = LabBuilder { layout: Layout::SameNamespace, family, role, join };
            let lab = plan.build(&Anabranch::start_on_veth)?;
            let listener = lab.listen()?;
            for _ in 0..2 {
                let before = Counters::read(&lab.peer)?;
                let (client, server) = lab.connect(&*listener)?;
                greet(&*client, &*server)?;
                lab.wait_joined(&before)?;
                let down = || inside(&lab).ip("link set eth1 down").map(drop).expect("it is there");
                Transfer::both_ways(30_000_000).at(10_000_000, down).run(&*client, &*server).intact()?;
                drop((client, server));
                inside(&lab).ip("link set eth1 up")?;
                // Routes of the kernel's side went with its carrier for IPv6.
                std::thread::sleep(Duration::from_millis(300));
            }
            Ok(())
        });
    }
}

#[test]
fn an_interface_vanishes() {
    for (role, family) in [(Role::Client, Family::V6), (Role::Server, Family::V4)] {
        run("packet vanishes", || {
            survives(role, family, |lab| lab.wires.ip("link del ab1").map(drop))?;
            Ok(())
        });
    }
}

#[test]
fn the_first_interface_vanishes() {
    run("packet vanishes", || {
        survives(Role::Client, Family::V4, |lab| inside(lab).ip("link del eth0").map(drop))?;
        Ok(())
    });
}

/// A stack with one path on a veth pair to a namespace of the kernel's, 10.9.0.1 there.
struct Wire {
    kernel: Netns,
    ours: Netns,
}

impl Wire {
    fn new() -> Result<Self> {
        let (kernel, ours) = (Netns::new("kernel")?, Netns::new("ours")?);
        kernel.ip(&format!("link add k0 type veth peer name w0 netns {}", ours.path()))?;
        for addr in ["10.9.0.1/24", "fd09::1/64 nodad"] {
            kernel.ip(&format!("addr add {addr} dev k0"))?;
        }
        kernel.ip("link set k0 up")?;
        ours.ip("link set w0 up")?;
        Ok(Self { kernel, ours })
    }

    fn stack(&self, path: &str, workers: usize) -> Result<Stack> {
        let spec = path.parse()?;
        Ok(self.ours.run(|| Stack::builder().path(spec).workers(workers).build())?)
    }
}

/// Opens a connection from the stack to the kernel's listener.
fn connect(
    stack: &Stack,
    listener: &std::net::TcpListener,
    to: &str,
) -> Result<(anabranch::TcpStream, std::net::TcpStream)> {
    let to = SocketAddr::new(to.parse()?, PORT);
    let client = stack.connect(to)?;
    let (server, _) = listener.accept()?;
    Ok((client, server))
}

#[test]
fn what_is_sent_fits_an_mtu_that_changes() {
    run("packet MTU", || {
        let wire = Wire::new()?;
        let stack = wire.stack("packet:w0,addr=10.9.0.2/24", 1)?;
        let listener = kernel::listen(&wire.kernel, Protocol::Tcp, "0.0.0.0:5001".parse()?)?;
        let (client, server) = connect(&stack, &listener, "10.9.0.1")?;
        pass_megabytes(&client, &server)?;
        ensure!(received_mss(&wire.kernel)? == 1448, "segments of {} bytes", received_mss(&wire.kernel)?);

        wire.kernel.ip("link set k0 mtu 1000")?;
        wire.ours.ip("link set w0 mtu 1000")?;
        wait_for("the MTU", || stack.paths()[0].mtu == 1000)?;
        pass_megabytes(&client, &server)?;
        ensure!(received_mss(&wire.kernel)? == 948, "segments of {} bytes", received_mss(&wire.kernel)?);
        Ok(())
    });
}

/// How long the kernel takes the segments to be that it received on its one connection.
fn received_mss(netns: &Netns) -> Result<u32> {
    let shown = netns.command("ss", "-tinH state connected")?;
    let found = shown.split_whitespace().find_map(|word| word.strip_prefix("rcvmss:"));
    Ok(found.with_context(|| format!("no rcvmss in {shown}"))?.parse()?)
}

fn wait_for(what: &str, done: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !done() {
        ensure!(start.elapsed() < Duration::from_secs(5), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[test]
fn a_host_behind_the_gateway_is_reached() {
    run("packet gateway", || {
        for (own, gw, far, hop) in
            [("10.9.0.2/24", "10.9.0.1", "10.8.0.2", "10.8.0.1/24"), ("fd09::2/64", "fd09::1", "fd08::2", "fd08::1/64")]
        {
            let wire = Wire::new()?;
            let peer = Netns::new("far")?;
            wire.kernel.sysctl("net.ipv4.ip_forward", "1")?;
            wire.kernel.sysctl("net.ipv6.conf.all.forwarding", "1")?;
            wire.kernel.ip(&format!("link add r0 type veth peer name f0 netns {}", peer.path()))?;
            wire.kernel.ip(&format!("addr add {hop} dev r0"))?;
            wire.kernel.ip("link set r0 up")?;
            let length = hop.split_once('/').context("a prefix")?.1;
            peer.ip(&format!("addr add {far}/{length} dev f0"))?;
            peer.ip("link set f0 up")?;
            peer.ip(&format!("route add default via {}", hop.split('/').next().context("an address")?))?;
            wait_for("the addresses", || !peer.ip("addr show tentative").is_ok_and(|text| text.contains("inet6")))?;
            wait_for("the addresses", || {
                !wire.kernel.ip("addr show tentative").is_ok_and(|text| text.contains("inet6"))
            })?;

            let stack = wire.stack(&format!("packet:w0,addr={own},gw={gw}"), 1)?;
            let any = if far.contains(':') { "[::]:5001" } else { "0.0.0.0:5001" };
            let listener = kernel::listen(&peer, Protocol::Tcp, any.parse()?)?;
            let (client, server) = connect(&stack, &listener, far)?;
            Transfer::both_ways(1_000_000).run(&client, &server).intact()?;
        }
        Ok(())
    });
}

#[test]
fn a_host_that_forwards_stays_out_of_it() {
    run("packet forwarding", || {
        let wire = Wire::new()?;
        wire.ours.sysctl("net.ipv4.ip_forward", "1")?;
        // The kernel knows a way to our address: back where the packets come from.
        wire.ours.ip("addr add 10.9.0.77/24 dev w0")?;
        let stack = wire.stack("packet:w0,addr=10.9.0.2/24", 1)?;
        let listener = kernel::listen(&wire.kernel, Protocol::Tcp, "0.0.0.0:5001".parse()?)?;
        let before = Counters::read(&wire.ours)?;
        let (client, server) = connect(&stack, &listener, "10.9.0.1")?;

        Transfer::both_ways(1_000_000).run(&client, &server).intact()?;

        let counted = Counters::read(&wire.ours)?.since(&before);
        ensure!(counted.get("IpForwDatagrams") == 0, "the kernel forwarded: {counted:?}");
        Ok(())
    });
}

#[test]
fn an_address_of_the_kernels_is_refused() {
    run("packet address", || {
        let wire = Wire::new()?;
        wire.ours.ip("addr add 10.9.0.2/24 dev w0")?;
        let error = wire.stack("packet:w0,addr=10.9.0.2/24", 1).expect_err("it is the kernel's");
        let text = format!("{error:#}");
        ensure!(text.contains("10.9.0.2 is the kernel's own address on w0"), "{text}");
        Ok(())
    });
}

#[test]
fn addresses_answer_pings() {
    run("packet ping", || {
        let wire = Wire::new()?;
        let _stack = wire.stack("packet:w0,addr=10.9.0.2/24,addr=fd09::2/64", 2)?;
        for addr in ["10.9.0.2", "fd09::2"] {
            wire.kernel.command("ping", &format!("-q -c2 -i0.2 -W2 {addr}"))?;
        }
        // Longer than a packet: with IPv4 a fragment is not answered, but hurts nobody.
        wire.kernel.command("ping", "-q -c1 -W2 -s1400 10.9.0.2")?;
        Ok(())
    });
}

#[test]
fn two_workers_share_a_wire() {
    for role in [Role::Client, Role::Server] {
        run("packet fanout", || {
            let plan =
                LabBuilder { layout: Layout::SameNamespace, family: Family::V4, role, join: Join::ClientSubflow };
            let start = |wires: &_, family, paths: &[PathOptions]| -> Result<Box<dyn Subject>> {
                Anabranch::start_on_veth_with(wires, family, paths, |builder| builder.workers(2))
            };
            let lab = plan.build(&start)?;
            let before = Counters::read(&lab.peer)?;
            let listener = lab.listen()?;
            let mut connections = Vec::new();
            for _ in 0..16 {
                let (client, server) = lab.connect(&*listener)?;
                greet(&*client, &*server)?;
                connections.push((client, server));
            }
            let joins = || Counters::read(&lab.peer).map(|now| now.since(&before));
            wait_for("sixteen joins", || {
                let name = if role == Role::Client { "MPTcpExtMPJoinAckRx" } else { "MPTcpExtMPJoinSynAckRx" };
                joins().is_ok_and(|counted| counted.get(name) == 16)
            })?;
            std::thread::scope(|scope| -> Result<()> {
                let transfer = |(client, server): &(Box<dyn Stream>, Box<dyn Stream>)| {
                    Transfer::both_ways(2_000_000).run(&**client, &**server).intact()
                };
                let running: Vec<_> = connections.iter().map(|both| scope.spawn(move || transfer(both))).collect();
                running.into_iter().try_for_each(|thread| thread.join().expect("no panic there"))
            })?;
            drop(connections);
            lab.wait_closed(&before)?;
            let counted = Counters::read(&lab.peer)?.since(&before);
            ensure!(counted.get("TcpOutRsts") == 0 && counted.get("TcpEstabResets") == 0, "{counted:?}");
            Ok(())
        });
    }
}

#[test]
fn a_receive_queue_that_overflows_loses_segments_and_nothing_else() {
    for reception in [Reception::Queue, Reception::Ring] {
        run("packet overflow", || {
            let wire = Wire::new()?;
            // Given room for a few frames only,
            let config = PacketConfig {
                addresses: vec![("10.9.0.2".parse()?, 24)],
                reception,
                buffer_bytes: 100_000,
                ..PacketConfig::new("w0", PathId(0))
            };
            let device = wire.ours.run(|| Packet::open(&config))?.remove(0);
            let mut path = PathConfig::new(PathId(0), vec!["10.9.0.2/24".parse().expect("an address")]);
            path.point_to_point = false;
            let stack =
                wire.ours.run(|| Stack::builder().devices(path, vec![Box::new(device) as Box<dyn Device>]).build())?;
            let listener = kernel::listen(&wire.kernel, Protocol::Tcp, "0.0.0.0:5001".parse()?)?;
            // when the kernel sends as much as it can,
            let pairs = (0..4).map(|_| connect(&stack, &listener, "10.9.0.1")).collect::<Result<Vec<_>>>()?;
            std::thread::scope(|scope| -> Result<()> {
                let transfer = |(client, server): &(_, std::net::TcpStream)| {
                    Transfer::one_way(20_000_000).run(server, client as &anabranch::TcpStream).intact()
                };
                let running: Vec<_> = pairs.iter().map(|pair| scope.spawn(move || transfer(pair))).collect();
                running.into_iter().try_for_each(|thread| thread.join().expect("no panic there"))
            })?;
            // then what found no room was sent again, and counted.
            let counters = stack.paths()[0].counters;
            ensure!(counters.rx_overflow > 0, "nothing was lost: {counters:?}");
            // A frame that the end of so small a buffer cut short counts as malformed.
            ensure!(counters.rx_malformed <= counters.rx_overflow, "{counters:?}");
            Ok(())
        });
    }
}
