//! What the matrix leaves out: every scheduler, several workers, lossy paths, backup paths, many connections.

use std::thread;
use std::time::Duration;

use anabranch::Builder;
use anabranch_tests::transfer::{Transfer, greet};
use anabranch_tests::{Anabranch, Connection, Counters, Family, Join, Lab, LabBuilder, Layout, Role, permitted};
use anyhow::{Context, Result, ensure};

const TWO_SUBFLOWS: LabBuilder =
    LabBuilder { layout: Layout::Routed, family: Family::V4, role: Role::Client, join: Join::ClientSubflow };

/// Both ways at once over two shaped paths; gives what each path has carried (from the subject, to it).
fn carry(
    plan: LabBuilder,
    bytes: u64,
    options: impl Fn(Builder) -> Builder + Send + Sync,
    before_start: impl Fn(&Lab) -> Result<()>,
    at_the_end: impl Fn(&Lab) -> Result<()>,
) -> Result<[(u64, u64); 2]> {
    let start = |wires: &_, family, paths: &[_]| Anabranch::start_with(wires, family, paths, &options);
    let lab = plan.build(&start)?;
    lab.shape(300)?;
    before_start(&lab)?;
    let before = Counters::read(&lab.peer)?;
    let Connection { client, server, listener } = lab.open()?;
    greet(&*client, &*server)?;
    lab.wait_joined(&before)?;
    let carried = [lab.carried(0)?, lab.carried(1)?];
    let report = Transfer::both_ways(bytes).run(&*client, &*server);
    let counted = || Counters::read(&lab.peer).map(|now| now.since(&before));
    report.intact().with_context(|| format!("the kernel counted {:?}", counted()))?;
    let mut now = [lab.carried(0)?, lab.carried(1)?];
    for (now, before) in now.iter_mut().zip(carried) {
        *now = (now.0 - before.0, now.1 - before.1);
    }
    drop((client, server, listener));
    lab.wait_closed(&before)?;
    at_the_end(&lab)?;
    lab.subject.end(Duration::from_secs(5))?;
    Ok(now)
}

fn scheduler(name: &str) -> [u64; 2] {
    if !permitted(name) {
        return [0; 2];
    }
    let carried = carry(TWO_SUBFLOWS, 20_000_000, |builder| builder.scheduler(name), |_| Ok(()), |_| Ok(()));
    let carried = carried.unwrap_or_else(|error| panic!("{name}: {error:#}"));
    carried.map(|(from_subject, _)| from_subject)
}

/// Whether both paths carried at least a twentieth of what the scheduler was given to send. More would be
/// luck: in so short a time the congestion window of one path may have stopped growing early.
fn both_carried(carried: [u64; 2]) {
    assert!(carried == [0; 2] || carried.iter().all(|bytes| *bytes > 1_000_000), "the paths carried {carried:?}");
}

#[test]
fn scheduler_minrtt() {
    both_carried(scheduler("minrtt"));
}

#[test]
fn scheduler_linux() {
    both_carried(scheduler("linux"));
}

#[test]
fn scheduler_roundrobin() {
    both_carried(scheduler("roundrobin"));
}

#[test]
fn scheduler_redundant() {
    let carried = scheduler("redundant");
    // Everything goes twice, but for what the other path has had acknowledged already.
    assert!(carried == [0; 2] || carried.iter().sum::<u64>() > 25_000_000, "the paths carried {carried:?}");
    both_carried(carried);
}

#[test]
fn scheduler_backup() {
    let carried = scheduler("backup");
    assert!(carried == [0; 2] || carried.iter().sum::<u64>() > 20_000_000, "the paths carried {carried:?}");
}

#[test]
fn two_workers() {
    for role in [Role::Client, Role::Server] {
        for join in [Join::ClientSubflow, Join::ServerSignal] {
            if permitted("two workers") {
                let plan = LabBuilder { role, join, ..TWO_SUBFLOWS };
                carry(plan, 20_000_000, |builder| builder.workers(2), |_| Ok(()), |_| Ok(()))
                    .unwrap_or_else(|error| panic!("{role:?} {join:?}: {error:#}"));
            }
        }
    }
}

#[test]
fn checksums_asked_by_either_side() {
    for (role, ours, theirs) in [
        (Role::Client, true, false),
        (Role::Server, true, false),
        (Role::Client, false, true),
        (Role::Server, false, true),
    ] {
        if !permitted("checksums") {
            return;
        }
        let ask = |lab: &Lab| lab.peer.sysctl("net.mptcp.checksum_enabled", if theirs { "1" } else { "0" });
        let right = |lab: &Lab| {
            let wrong = Counters::read(&lab.peer)?.get("MPTcpExtDataCsumErr");
            ensure!(wrong == 0, "the kernel found {wrong} wrong checksums");
            Ok(())
        };
        let plan = LabBuilder { role, ..TWO_SUBFLOWS };
        let carried = carry(plan, 20_000_000, |builder| builder.checksum(ours), ask, right)
            .unwrap_or_else(|error| panic!("{role:?}, we ask: {ours}, they ask: {theirs}: {error:#}"));
        both_carried(carried.map(|(from_subject, _)| from_subject));
    }
}

/// Three packets of a hundred are lost, whichever way it goes; super-segments are lost whole.
fn lossy(role: Role, family: Family, join: Join) {
    if !permitted("lossy paths") {
        return;
    }
    let lose = |lab: &Lab| -> Result<()> {
        lab.wires.command("nft", "add table inet lossy")?;
        lab.wires.command("nft", "add chain inet lossy forward { type filter hook forward priority 0 ; }")?;
        lab.wires.command("nft", "add rule inet lossy forward numgen random mod 100 < 3 counter drop")?;
        Ok(())
    };
    let lost = |lab: &Lab| -> Result<()> {
        let rules = lab.wires.command("nft", "list table inet lossy")?;
        ensure!(!rules.contains("counter packets 0 "), "nothing was lost: {rules}");
        Ok(())
    };
    carry(LabBuilder { role, family, join, ..TWO_SUBFLOWS }, 10_000_000, |builder| builder, lose, lost)
        .unwrap_or_else(|error| panic!("{role:?} {family:?} {join:?}: {error:#}"));
}

#[test]
fn lossy_plain_tcp() {
    lossy(Role::Client, Family::V4, Join::PlainTcp);
    lossy(Role::Server, Family::V6, Join::PlainTcp);
}

#[test]
fn lossy_one_subflow() {
    lossy(Role::Client, Family::V6, Join::Single);
    lossy(Role::Server, Family::V4, Join::Single);
}

#[test]
fn lossy_two_subflows() {
    lossy(Role::Client, Family::V4, Join::ServerSignal);
    lossy(Role::Server, Family::V6, Join::ClientSubflow);
}

/// Connections come and go, many at once.
#[test]
fn many_connections() {
    if permitted("many connections") {
        for (role, workers) in [(Role::Client, 1), (Role::Server, 1), (Role::Server, 2)] {
            come_and_go(role, workers).unwrap_or_else(|error| panic!("{role:?}, {workers} workers: {error:#}"));
        }
    }
}

fn come_and_go(role: Role, workers: usize) -> Result<()> {
    const AT_ONCE: u64 = 16;
    const ROUNDS: u64 = 4;
    let plan = LabBuilder { layout: Layout::SameNamespace, role, ..TWO_SUBFLOWS };
    let start = |wires: &_, family, paths: &[_]| {
        Anabranch::start_with(wires, family, paths, |builder| builder.workers(workers))
    };
    let lab = plan.build(&start)?;
    let before = Counters::read(&lab.peer)?;
    let listener = lab.listen()?;
    for round in 0..ROUNDS {
        thread::scope(|scope| {
            let connections: Vec<_> = (0..AT_ONCE)
                .map(|_| lab.connect(&*listener))
                .map(|pair| {
                    scope.spawn(move || -> Result<()> {
                        let (client, server) = pair?;
                        greet(&*client, &*server)?;
                        Transfer::both_ways(200_000).run(&*client, &*server).intact()
                    })
                })
                .collect();
            connections.into_iter().try_for_each(|thread| thread.join().expect("a connection's thread"))
        })
        .with_context(|| format!("round {round}"))?;
    }
    lab.wait_closed(&before)?;
    let grown = Counters::read(&lab.peer)?.since(&before);
    let capable = if role == Role::Client { "MPTcpExtMPCapableACKRX" } else { "MPTcpExtMPCapableSYNACKRX" };
    ensure!(grown.get(capable) == AT_ONCE * ROUNDS, "not all spoke MPTCP: {grown:?}");
    lab.subject.end(Duration::from_secs(5))
}
