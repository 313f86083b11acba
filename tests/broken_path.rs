//! A path breaks while data flows: the stream ends intact over the other one, whoever sends.

use std::sync::Mutex;
use std::time::Duration;

use anabranch_tests::transfer::{Transfer, greet};
use anabranch_tests::{
    Anabranch, Breakage, Capture, Connection, Counters, Family, Join, Kernel, LabBuilder, Layout, Role, Start,
    keep_captures, permitted,
};
use anyhow::{Context, Result, ensure};

/// Small enough for a quick test, and at this rate too much to be over before the break.
const BYTES: u64 = 60_000_000;
const BREAK_AT: u64 = 15_000_000;
const MBIT: u32 = 400;

/// Longest time that nothing may arrive. The kernel gives a silent subflow up after some retransmission
/// timeouts, which is the larger part of it.
const LONGEST_GAP: Duration = Duration::from_secs(10);

/// Who sends the bulk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sender {
    Subject,
    Kernel,
    Both,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    plan: LabBuilder,
    sender: Sender,
    breakage: Breakage,
    path: u8,
}

fn survives(case: Case, start: Start<'_>) -> Result<()> {
    let lab = case.plan.build(start)?;
    lab.shape(MBIT)?;
    let before = Counters::read(&lab.peer)?;
    let capture = keep_captures().then(|| Capture::start(&lab.peer, 256)).transpose()?;
    let Connection { client, server, listener } = lab.open()?;
    greet(&*client, &*server)?;
    lab.wait_joined(&before)?;

    // Given a transfer over both paths, from the first stream to the second, ...
    let subject_first = (case.plan.role == Role::Client) == (case.sender != Sender::Kernel);
    let (first, second) = if subject_first { (&*client, &*server) } else { (&*server, &*client) };
    let transfer = if case.sender == Sender::Both { Transfer::both_ways(BYTES) } else { Transfer::one_way(BYTES) };
    let struck = Mutex::new(None);
    let other = 1 - case.path;
    // ... when one of them breaks in the middle, ...
    let report = transfer
        .at(BREAK_AT, || {
            let strike = || -> Result<_> {
                let carried = [lab.carried(0)?, lab.carried(1)?];
                case.breakage.strike(&lab, case.path)?;
                Ok(carried)
            };
            *struck.lock().expect("no panic here") = Some(strike());
        })
        .run(first, second);

    if let Some(capture) = capture {
        let plan = case.plan;
        capture.stop()?.keep(&format!("{:?}-{:?}-{:?}-{}", case.breakage, plan.role, case.sender, case.path));
    }

    // ... then the stream is whole, and what was left of it went by the other path.
    let carried = struck.into_inner()?.context("the transfer was over before the path broke")??;
    let kernel = Counters::read(&lab.peer)?.since(&before);
    report.intact().with_context(|| format!("the kernel counted {kernel:?}"))?;
    let used = |path: usize, (from, to): (u64, u64)| match case.sender {
        Sender::Subject => from - carried[path].0,
        Sender::Kernel => to - carried[path].1,
        Sender::Both => (from - carried[path].0).min(to - carried[path].1),
    };
    let idle = |(from, to): (u64, u64)| if case.sender == Sender::Kernel { to } else { from };
    let (broken, whole) = (usize::from(case.path), usize::from(other));
    ensure!(idle(carried[broken]) > 500_000, "the path that broke had carried only {} bytes", idle(carried[broken]));
    let after = used(whole, lab.carried(other)?);
    ensure!(after > BYTES / 4, "the other path carried only {after} bytes after the break");
    for flow in [&report.forward, &report.backward] {
        ensure!(
            flow.longest_gap < LONGEST_GAP,
            "nothing arrived for {:?}; the kernel counted {kernel:?}",
            flow.longest_gap
        );
    }
    drop((client, server, listener));
    Ok(())
}

fn check(layout: Layout, role: Role, sender: Sender, breakage: Breakage, path: u8, start: Start<'_>) {
    // Both ways of joining and both families have their turn.
    let join = if role == Role::Client { Join::ServerSignal } else { Join::ClientSubflow };
    let family = if path == 0 { Family::V4 } else { Family::V6 };
    let case = Case { plan: LabBuilder { layout, family, role, join }, sender, breakage, path };
    if permitted("broken path") {
        survives(case, start).unwrap_or_else(|error| panic!("{case:?}: {error:#}"));
    }
}

macro_rules! cases {
    ($($name:ident: $receiving:ident, $breakage:ident;)*) => {$(
        mod $name {
            use super::*;

            // Only behind a router can the rate of what the subject sends be limited.
            #[test]
            fn first_path_while_sending() {
                check(Layout::Routed, Role::Client, Sender::Subject, Breakage::$breakage, 0, &Anabranch::start);
            }

            #[test]
            fn second_path_while_sending() {
                check(Layout::Routed, Role::Server, Sender::Subject, Breakage::$breakage, 1, &Anabranch::start);
            }

            #[test]
            fn first_path_while_receiving() {
                check(Layout::$receiving, Role::Server, Sender::Kernel, Breakage::$breakage, 0, &Anabranch::start);
            }

            #[test]
            fn second_path_while_receiving() {
                check(Layout::$receiving, Role::Client, Sender::Kernel, Breakage::$breakage, 1, &Anabranch::start);
            }
        }
    )*};
}

cases! {
    device_down: SameNamespace, DeviceDown;
    link_down: Routed, LinkDown;
    firewall: SameNamespace, Firewall;
    blackhole: Routed, Blackhole;
}

#[test]
fn firewall_both_ways() {
    check(Layout::Routed, Role::Client, Sender::Both, Breakage::Firewall, 0, &Anabranch::start);
}

/// The same asked of the kernel on both sides: the harness breaks what it says it breaks.
mod control {
    use super::*;

    #[test]
    fn device_down() {
        check(Layout::SameNamespace, Role::Client, Sender::Kernel, Breakage::DeviceDown, 1, &Kernel::start);
    }

    #[test]
    fn link_down() {
        check(Layout::Routed, Role::Client, Sender::Subject, Breakage::LinkDown, 1, &Kernel::start);
    }

    #[test]
    fn firewall() {
        check(Layout::SameNamespace, Role::Client, Sender::Subject, Breakage::Firewall, 0, &Kernel::start);
    }

    #[test]
    fn blackhole() {
        check(Layout::Routed, Role::Server, Sender::Both, Breakage::Blackhole, 0, &Kernel::start);
    }
}
