//! tshark has nothing to say against what anabranch puts on the wire, checksums included.

use std::net::SocketAddr;
use std::time::Duration;

use anabranch_tests::kernel::Protocol;
use anabranch_tests::transfer::{Transfer, greet};
use anabranch_tests::tshark::{Checksums, Findings};
use anabranch_tests::{
    Anabranch, Capture, Connection, Counters, Family, Join, Kernel, LabBuilder, Layout, PORT, Role, permitted,
};
use anyhow::{Context, Result, ensure};

/// anabranch's own capture has the whole packets, their checksums completed.
fn clean(role: Role, family: Family, join: Join) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("subject.pcapng");
    let start =
        |wires: &_, family, paths: &[_]| Anabranch::start_with(wires, family, paths, |builder| builder.pcap(&file));
    let lab = LabBuilder { layout: Layout::SameNamespace, family, role, join }.build(&start)?;
    let before = Counters::read(&lab.peer)?;
    let Connection { client, server, listener } = lab.open()?;
    greet(&*client, &*server)?;
    lab.wait_joined(&before)?;
    Transfer::both_ways(5_000_000).run(&*client, &*server).intact()?;
    drop((client, server, listener));
    lab.wait_closed(&before)?;
    lab.subject.end(Duration::from_secs(5))?;

    let findings = Findings::of(&file, Checksums::Complete).context("reading the capture")?;
    ensure!(findings.packets > 100, "only {} packets in the capture", findings.packets);
    findings.clean()?;
    findings.without_reset()
}

/// The checker does find what it looks for: offloaded checksums taken at face value, and a reset.
#[test]
fn control() {
    if !permitted("captures") {
        return;
    }
    let plan =
        LabBuilder { layout: Layout::SameNamespace, family: Family::V4, role: Role::Client, join: Join::PlainTcp };
    let lab = plan.build(&Kernel::start).expect("a lab of the kernel alone");
    let capture = Capture::start(&lab.peer, 65535).expect("tcpdump");
    let nobody_there = SocketAddr::new(lab.peer_addr(0), PORT);
    lab.subject.connect(Protocol::Tcp, nobody_there).err().expect("a refused connection");
    let capture = capture.stop().expect("a whole capture");
    let findings = Findings::of(&capture.path(), Checksums::Complete).expect("tshark");
    assert_eq!(findings.packets, 2);
    assert_eq!(findings.resets.len(), 1);
    assert!(findings.without_reset().is_err());
    assert_eq!(findings.bad_checksums.len(), 1);
    assert!(findings.clean().is_err());
}

fn check(role: Role, family: Family, join: Join) {
    if permitted("captures") {
        clean(role, family, join).unwrap_or_else(|error| panic!("{role:?} {family:?} {join:?}: {error:#}"));
    }
}

#[test]
fn plain_tcp() {
    check(Role::Client, Family::V4, Join::PlainTcp);
}

#[test]
fn one_subflow() {
    check(Role::Server, Family::V6, Join::Single);
}

#[test]
fn client_joins() {
    check(Role::Client, Family::V6, Join::ClientSubflow);
}

#[test]
fn client_hears_of_addresses() {
    check(Role::Client, Family::V4, Join::ServerSignal);
}

#[test]
fn server_is_joined() {
    check(Role::Server, Family::V4, Join::ClientSubflow);
}

#[test]
fn server_announces() {
    check(Role::Server, Family::V6, Join::ServerSignal);
}
