//! One case of the matrix, from end to end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::{Connection, Join, LabBuilder, Role};
use crate::subject::Start;
use crate::transfer::{Transfer, greet};
use crate::tshark::{Checksums, Findings};
use crate::{Capture, Counters, Lab};

/// Enough for every header, and little enough for tcpdump to keep up.
const HEADERS: usize = 256;

/// The least that each path of two has to carry each way.
const SHARE: u64 = 256 << 10;

/// What the kernel must not have counted on a connection where all went well.
const TROUBLE: [&str; 22] = [
    "TcpOutRsts",
    "TcpEstabResets",
    "TcpInErrs",
    "TcpExtTCPAbortOnData",
    "TcpExtTCPAbortOnTimeout",
    "MPTcpExtMPCapableFallbackACK",
    "MPTcpExtMPCapableFallbackSYNACK",
    "MPTcpExtMPCapableDataFallback",
    "MPTcpExtMPFallbackTokenInit",
    "MPTcpExtMPJoinAckHMacFailure",
    "MPTcpExtMPJoinSynAckHMacFailure",
    "MPTcpExtMPJoinNoTokenFound",
    "MPTcpExtDSSNotMatching",
    "MPTcpExtDSSCorruptionFallback",
    "MPTcpExtDSSCorruptionReset",
    "MPTcpExtDSSNoMatchTCP",
    "MPTcpExtDssFallback",
    "MPTcpExtInfiniteMapRx",
    "MPTcpExtMPFastcloseRx",
    "MPTcpExtMPFastcloseTx",
    "MPTcpExtMPRstRx",
    "MPTcpExtMPRstTx",
];

/// Moves `bytes` each way at once and shows that everything was as it should be: both streams whole,
/// both paths used, the kernel's counters, an orderly close, nothing odd on the wire.
///
/// # Errors
/// The first thing that was not.
pub fn prove(plan: LabBuilder, start: Start<'_>, bytes: u64) -> Result<()> {
    let lab = plan.build(start)?;
    let before = Counters::read(&lab.peer)?;
    let capture = Capture::start(&lab.peer, HEADERS)?;

    let Connection { client, server, listener } = lab.open()?;
    greet(&*client, &*server)?;
    lab.wait_joined(&before)?;
    let carried = [lab.carried(0)?, lab.carried(1)?];
    let report = Transfer::both_ways(bytes).run(&*client, &*server);
    let counted = || Counters::read(&lab.peer).map(|now| now.since(&before));
    report.intact().with_context(|| format!("the kernel counted {:?}", counted()))?;
    both_used(&lab, carried)?;

    drop((client, server, listener));
    lab.wait_closed(&before)?;
    let grown = counted()?;
    ensure!(grown.nonzero(&TROUBLE).is_empty(), "the kernel counted {:?}", grown.nonzero(&TROUBLE));
    joins_counted(plan, &grown)?;
    lab.subject.end(Duration::from_secs(5)).context("ending the stack")?;

    let capture = capture.stop()?;
    capture.keep(&format!("{:?}-{:?}-{:?}-{:?}", plan.role, plan.family, plan.join, plan.layout));
    let findings = Findings::of(&capture.path(), Checksums::Offloaded)?;
    findings.clean()?;
    findings.without_reset()?;
    let fins = findings.data_fins.len();
    let expected = if plan.join == Join::PlainTcp { 0..=0 } else { 2..=usize::MAX };
    ensure!(expected.contains(&fins), "{fins} packets with DATA_FIN, expected {expected:?}");
    Ok(())
}

/// With two subflows both devices carried a share, with one only the first did.
fn both_used(lab: &Lab, before: [(u64, u64); 2]) -> Result<()> {
    for (path, before) in (0..).zip(before) {
        let after = lab.carried(path)?;
        let (from, to) = (after.0 - before.0, after.1 - before.1);
        if path == 0 || lab.plan.join.joins() {
            ensure!(from.min(to) >= SHARE, "path {path} carried only {from} bytes from the subject and {to} to it");
        } else {
            ensure!(from.max(to) < SHARE, "path {path} carried {from} and {to} bytes without a subflow there");
        }
    }
    Ok(())
}

/// The kernel counted exactly the handshakes that there should have been.
fn joins_counted(plan: LabBuilder, grown: &Counters) -> Result<()> {
    let mptcp = u64::from(plan.join != Join::PlainTcp);
    let join = u64::from(plan.join.joins());
    let signal = u64::from(plan.join == Join::ServerSignal);
    let expected: &[(&str, u64)] = match plan.role {
        // The kernel is the server.
        Role::Client => &[
            ("MPTcpExtMPCapableACKRX", mptcp),
            ("MPTcpExtMPJoinSynRx", join),
            ("MPTcpExtMPJoinAckRx", join),
            ("MPTcpExtAddAddrTx", signal),
            ("MPTcpExtEchoAdd", signal),
        ],
        Role::Server => &[
            ("MPTcpExtMPCapableSYNACKRX", mptcp),
            ("MPTcpExtMPJoinSynTx", join),
            ("MPTcpExtMPJoinSynAckRx", join),
            ("MPTcpExtAddAddr", signal),
            ("MPTcpExtEchoAddTx", signal),
        ],
    };
    for &(name, value) in expected {
        ensure!(
            grown.get(name) == value,
            "{name} is {}, expected {value}; the kernel counted {grown:?}",
            grown.get(name)
        );
    }
    Ok(())
}
