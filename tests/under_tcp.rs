//! What happens under TCP, against the kernel: a router whose next link takes less than the ones before it, with and
//! without its messages, and marks of congestion.

use std::sync::Mutex;
use std::time::Duration;

use anabranch::{Builder, Ecn, MtuProbing, PmtuConfig, SocketOptions, Stack};
use anabranch_tests::transfer::{Transfer, greet};
use anabranch_tests::{
    Anabranch, Connection, Counters, Family, Join, Lab, LabBuilder, Layout, Role, Subject, permitted,
};
use anyhow::{Context, Result, ensure};

const BYTES: u64 = 20_000_000;
/// What the router's link to the peer takes, in bytes.
const MTU: u16 = 1300;

/// A lab behind a router, and the stack that is its subject.
fn lab(plan: LabBuilder, tune: impl Fn(Builder) -> Builder + Sync, wire: bool) -> Result<(Lab, Option<Stack>)> {
    let slot = Mutex::new(None);
    let on_tun = |wires: &_, family, paths: &[_]| {
        let subject = Anabranch::over_tun(wires, family, paths, &tune)?;
        *slot.lock().expect("nobody panicked with it") = Some(subject.stack().clone());
        Ok(Box::new(subject) as Box<dyn Subject>)
    };
    let on_wire = |wires: &_, family, paths: &[_]| Anabranch::start_on_veth_with(wires, family, paths, &tune);
    let lab = if wire { plan.build(&on_wire) } else { plan.build(&on_tun) }?;
    Ok((lab, slot.into_inner().expect("nobody panicked with it")))
}

fn routed(family: Family, join: Join) -> LabBuilder {
    LabBuilder { layout: Layout::Routed, family, role: Role::Client, join }
}

/// The link from the router to the peer takes less from now on.
fn narrow(lab: &Lab) -> Result<()> {
    let family = lab.plan.family;
    let route = format!("default via {} dev va0 table 100 mtu lock {MTU}", family.far(0));
    lab.wires.ip(&format!("{} route replace {route}", family.option()))?;
    Ok(())
}

/// The router says nothing of it.
fn silence(lab: &Lab) -> Result<()> {
    lab.wires.command("nft", "add table inet quiet")?;
    lab.wires.command("nft", "add chain inet quiet out { type filter hook output priority 0 ; }")?;
    lab.wires.command("nft", "add rule inet quiet out icmp type destination-unreachable drop")?;
    lab.wires.command("nft", "add rule inet quiet out icmpv6 type packet-too-big drop")?;
    Ok(())
}

/// Sends to the peer, and returns how long that took.
fn send(lab: &Lab, bytes: u64) -> Result<Duration> {
    let Connection { client, server, listener } = lab.open()?;
    greet(&*client, &*server)?;
    let began = std::time::Instant::now();
    Transfer::one_way(bytes).run(&*client, &*server).intact()?;
    drop((client, server, listener));
    Ok(began.elapsed())
}

fn run(name: &str, test: impl FnOnce() -> Result<()>) {
    if permitted(name) {
        test().unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}

#[test]
fn a_router_says_what_its_link_takes() {
    for family in [Family::V4, Family::V6] {
        for join in [Join::PlainTcp, Join::Single] {
            run(&format!("path MTU {family:?} {join:?}"), || {
                let (lab, stack) = lab(routed(family, join), |builder| builder, false)?;
                narrow(&lab)?;
                let took = send(&lab, BYTES)?;
                let counters = stack.context("a stack on TUN devices")?.counters();
                ensure!(counters.icmp_in_pkt_too_bigs > 0, "the router said nothing");
                ensure!(counters.out_of_window_icmps == 0 && counters.icmp_in_errors == 0, "{counters:?}");
                ensure!(took < Duration::from_secs(5), "{took:?}");
                Ok(())
            });
        }
    }
}

#[test]
fn so_it_does_on_an_ethernet() {
    for family in [Family::V4, Family::V6] {
        run(&format!("path MTU on a wire {family:?}"), || {
            let (lab, _) = lab(routed(family, Join::PlainTcp), |builder| builder, true)?;
            narrow(&lab)?;
            let took = send(&lab, BYTES)?;
            ensure!(took < Duration::from_secs(5), "{took:?}");
            Ok(())
        });
    }
}

#[test]
fn a_router_that_says_nothing_is_found_out() {
    for (family, join) in [(Family::V4, Join::PlainTcp), (Family::V6, Join::Single)] {
        run(&format!("black hole {family:?} {join:?}"), || {
            let pmtu = PmtuConfig { mtu_probing: MtuProbing::BlackHole, ..PmtuConfig::default() };
            let (lab, stack) = lab(routed(family, join), move |builder| builder.pmtu(pmtu), false)?;
            narrow(&lab)?;
            silence(&lab)?;
            let took = send(&lab, BYTES)?;
            let counters = stack.context("a stack on TUN devices")?.counters();
            ensure!(counters.icmp_in_pkt_too_bigs == 0, "the router was to be silent");
            ensure!(counters.tcp_mtu_black_holes > 0 && counters.tcp_mtup_success > 0, "{counters:?}");
            ensure!(took < Duration::from_secs(20), "{took:?}");
            Ok(())
        });
    }
}

#[test]
fn a_port_where_nobody_listens_behind_a_filter() {
    for family in [Family::V4, Family::V6] {
        run(&format!("rejected by ICMP {family:?}"), || {
            let (lab, stack) = lab(routed(family, Join::PlainTcp), |builder| builder, false)?;
            lab.wires.command("nft", "add table inet shut")?;
            lab.wires.command("nft", "add chain inet shut through { type filter hook forward priority 0 ; }")?;
            lab.wires
                .command("nft", "add rule inet shut through tcp dport 5001 reject with icmpx type host-unreachable")?;
            let stack = stack.context("a stack on TUN devices")?;
            let began = std::time::Instant::now();
            let remote = std::net::SocketAddr::new(lab.peer_addr(0), 5001);
            let error = stack.connect(remote).err().context("the filter let it through")?;
            ensure!(error.kind() == std::io::ErrorKind::HostUnreachable, "{error:?}");
            ensure!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
            Ok(())
        });
    }
}

/// Marks some of what passes, both ways.
fn mark(lab: &Lab) -> Result<()> {
    lab.wires.command("nft", "add table inet marks")?;
    lab.wires.command("nft", "add chain inet marks through { type filter hook forward priority 0 ; }")?;
    for field in ["ip ecn", "ip6 ecn"] {
        let rule = format!("{field} ect0 numgen random mod 100 < 2 {field} set ce");
        lab.wires.command("nft", &format!("add rule inet marks through {rule}"))?;
    }
    Ok(())
}

#[test]
fn marks_are_echoed_and_heeded_on_both_sides() {
    for (role, family) in
        [(Role::Client, Family::V4), (Role::Server, Family::V4), (Role::Client, Family::V6), (Role::Server, Family::V6)]
    {
        run(&format!("ECN {role:?} {family:?}"), || {
            // The side that connects asks; the kernel does when it is told to.
            let options = SocketOptions { ecn: Ecn::Request, congestion: "cubic".into(), ..SocketOptions::default() };
            let plan = LabBuilder { role, ..routed(family, Join::PlainTcp) };
            let (lab, stack) = lab(plan, move |builder| builder.socket_options(options.clone()), false)?;
            lab.peer.sysctl("net.ipv4.tcp_ecn", "1")?;
            lab.shape(200)?;
            mark(&lab)?;
            let before = Counters::read(&lab.peer)?;
            let Connection { client, server, listener } = lab.open()?;
            greet(&*client, &*server)?;
            Transfer::both_ways(BYTES).run(&*client, &*server).intact()?;
            drop((client, server, listener));
            let ours = stack.context("a stack on TUN devices")?.counters();
            let kernel = Counters::read(&lab.peer)?.since(&before);
            ensure!(ours.ip_in_ce > 0 && ours.tcp_delivered_ce > 0, "{ours:?}");
            // Each side echoed marks, which the other one noticed.
            ensure!(kernel.get("TcpExtTCPDeliveredCE") > 0, "{kernel:?}");
            Ok(())
        });
    }
}
