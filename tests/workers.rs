//! Several workers over the kernel's TUN queues. The kernel steers a flow to the queue that last wrote to it, but remembers
//! that for 4096 flows only and for 3 s: flows do move between queues, and nobody may notice.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anabranch::{ConnectOptions, Sizes, SocketOptions, Stack};
use anabranch_tests::kernel::{self, Protocol};
use anabranch_tests::transfer::{Stream, Transfer, greet};
use anabranch_tests::{Anabranch, Counters, Family, Join, Lab, LabBuilder, Layout, PORT, Role, Subject, permitted};
use anyhow::{Context, Result, ensure};

/// Longer than the kernel remembers where a flow goes.
const IDLE: Duration = Duration::from_secs(5);
const WORKERS: usize = 2;

/// A lab, and the stack that is its subject.
fn lab(layout: Layout, role: Role, join: Join) -> Result<(Lab, Stack)> {
    let slot = Mutex::new(None);
    let start = |wires: &_, family, paths: &[_]| {
        let tune = |builder: anabranch::Builder| builder.workers(WORKERS).time_wait(Duration::from_secs(1));
        let subject = Anabranch::over_tun(wires, family, paths, tune)?;
        *slot.lock().expect("nobody panicked with it") = Some(subject.stack().clone());
        Ok(Box::new(subject) as Box<dyn Subject>)
    };
    let lab = LabBuilder { layout, family: Family::V4, role, join }.build(&start)?;
    let stack = slot.into_inner().expect("nobody panicked with it").context("the stack was built")?;
    Ok((lab, stack))
}

/// Neither side has reset or dropped anything that was established, nor did a worker lose mail.
fn assert_quiet(lab: &Lab, stack: &Stack, before: &Counters) -> Result<()> {
    let grown = Counters::read(&lab.peer)?.since(before);
    let kernel = grown.nonzero(&["TcpEstabResets", "TcpOutRsts", "TcpExtTCPAbortOnTimeout", "TcpExtTCPAbortOnData"]);
    let ours = stack.counters();
    // A FIN that went twice is acknowledged twice; the second time nobody is there any more.
    let twice = ours.tcp_out_rsts <= ours.tcp_retrans_segs;
    let ours = (ours.tcp_out_rsts, ours.tcp_estab_resets, ours.mp_rst_tx);
    ensure!(kernel.is_empty() && twice && (ours.1, ours.2) == (0, 0), "resets: kernel {kernel:?}, ours {ours:?}");
    let dropped: u64 = stack.worker_stats().iter().map(|stats| stats.mail_dropped).sum();
    ensure!(dropped == 0, "{dropped} packets found a mailbox full");
    Ok(())
}

/// Every table of every worker is empty in the end.
fn wait_until_empty(stack: &Stack) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        let infos = stack.worker_info();
        if infos.iter().all(|info| info.sizes == Sizes::default() && info.mail_waiting == 0) {
            return Ok(());
        }
        let left: Vec<_> = infos.iter().map(|info| (info.sizes, info.mail_waiting)).collect();
        ensure!(Instant::now() < limit, "the workers still hold {left:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The ends of a connection.
type Pair = (Box<dyn Stream>, Box<dyn Stream>);

/// Says `text` at one end and hears it at the other, both ways.
fn talk((one, other): &Pair, text: &[u8]) -> Result<()> {
    let mut heard = vec![0; text.len()];
    for (from, to) in [(one, other), (other, one)] {
        from.send_all(text)?;
        let mut at = 0;
        while at < heard.len() {
            let n = to.receive(&mut heard[at..])?;
            ensure!(n > 0, "the stream ended after {at} bytes");
            at += n;
        }
        ensure!(heard == text, "something else arrived");
    }
    Ok(())
}

fn idle_and_resume(role: Role, join: Join) -> Result<()> {
    let (lab, stack) = lab(Layout::SameNamespace, role, join)?;
    let before = Counters::read(&lab.peer)?;
    let listener = lab.listen()?;
    let flows: Vec<_> = (0..40).map(|_| lab.connect(&*listener)).collect::<Result<_>>()?;
    for (client, server) in &flows {
        greet(&**client, &**server)?;
    }
    if join.joins() {
        let limit = Instant::now() + Duration::from_secs(10);
        let joined = || stack.connections().iter().filter(|connection| connection.subflows.len() > 1).count();
        while joined() < flows.len() {
            ensure!(Instant::now() < limit, "{} of {} were joined", joined(), flows.len());
            thread::sleep(Duration::from_millis(5));
        }
    }
    for round in 0..2 {
        for (at, flow) in flows.iter().enumerate() {
            talk(flow, &vec![at as u8; 20_000]).with_context(|| format!("round {round}, flow {at}"))?;
        }
        thread::sleep(if round == 0 { IDLE } else { Duration::ZERO });
    }
    assert_quiet(&lab, &stack, &before)?;
    for info in stack.worker_info() {
        ensure!(info.sizes.connections > 0, "worker {} has no connection", info.worker);
    }
    // And then in bulk, to the end.
    for some in flows.chunks(8) {
        thread::scope(|scope| {
            let run = |(a, b): &'_ Pair| Transfer::both_ways(300_000).run(&**a, &**b).intact();
            let threads: Vec<_> = some.iter().map(|flow| scope.spawn(move || run(flow))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a flow's thread"))
        })?;
    }
    drop(flows);
    lab.wait_closed(&before)?;
    wait_until_empty(&stack)
}

#[test]
fn flows_that_were_idle_go_on() {
    for role in [Role::Server, Role::Client] {
        for join in [Join::PlainTcp, Join::ClientSubflow, Join::ServerSignal] {
            if permitted("idle flows") {
                idle_and_resume(role, join).unwrap_or_else(|error| panic!("{role:?} {join:?}: {error:#}"));
            }
        }
    }
}

/// Five hundred connections come and go; joins come in at whatever queue the kernel likes.
fn churn(role: Role, join: Join) -> Result<()> {
    const AT_ONCE: usize = 50;
    const ROUNDS: usize = 10;
    let (lab, stack) = lab(Layout::SameNamespace, role, join)?;
    let before = Counters::read(&lab.peer)?;
    let listener = lab.listen()?;
    for round in 0..ROUNDS {
        thread::scope(|scope| {
            let connections: Vec<_> = (0..AT_ONCE)
                .map(|at| (at, lab.connect(&*listener)))
                .map(|(at, pair)| {
                    scope.spawn(move || -> Result<()> {
                        let (client, server) = pair?;
                        greet(&*client, &*server)?;
                        Transfer::both_ways((at * 700) as u64).run(&*client, &*server).intact()
                    })
                })
                .collect();
            connections.into_iter().try_for_each(|thread| thread.join().expect("a connection's thread"))
        })
        .with_context(|| format!("round {round}"))?;
    }
    lab.wait_closed(&before)?;
    let infos = stack.worker_info();
    let opened = |info: &anabranch::WorkerInfo| info.counters.tcp_passive_opens + info.counters.tcp_active_opens;
    for info in &infos {
        ensure!(opened(info) >= (AT_ONCE * ROUNDS / 4) as u64, "worker {} had {}", info.worker, opened(info));
        ensure!(info.stats.mail_dropped == 0, "worker {} lost mail", info.worker);
    }
    let counters = stack.counters();
    ensure!(counters.mp_join_ack_rx + counters.mp_join_syn_tx > 0, "nothing was joined");
    ensure!(counters.handed_over_tx > 0, "nothing was handed over");
    ensure!(counters.handed_over_tx == counters.handed_over_rx, "mail was lost");
    wait_until_empty(&stack)
}

#[test]
fn a_thousand_connections_leave_nothing() {
    for (role, join) in [(Role::Server, Join::ClientSubflow), (Role::Client, Join::ServerSignal)] {
        if permitted("churn") {
            churn(role, join).unwrap_or_else(|error| panic!("{role:?} {join:?}: {error:#}"));
        }
    }
}

/// A process may open so many files.
fn allow_files(count: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted =
        Rlimit { current: limit.current.map(|now| now.max(count)), maximum: limit.maximum.map(|most| most.max(count)) };
    setrlimit(Resource::Nofile, wanted).with_context(|| format!("allowing {count} open files"))
}

/// Half of them opened by the kernel, half by us.
fn ten_thousand() -> Result<()> {
    const HALF: usize = 5_000;
    allow_files(2 * HALF as u64 + 1_000)?;
    let (lab, stack) = lab(Layout::SameNamespace, Role::Server, Join::PlainTcp)?;
    let before = Counters::read(&lab.peer)?;
    let options = SocketOptions { mptcp: false, ..stack.socket_options() };
    let inward = SocketAddr::new(Family::V4.subject(0), PORT);
    let outward = SocketAddr::new(lab.peer_addr(0), PORT);
    let ours = stack.listen_with(inward, 1024, options.clone())?;
    let theirs = kernel::listen(&lab.peer, Protocol::Tcp, outward)?;
    let mut flows: Vec<Pair> = Vec::new();
    let connect = ConnectOptions { options: Some(options), ..ConnectOptions::default() };
    for at in 0..HALF {
        let client = kernel::connect(&lab.peer, Protocol::Tcp, None, inward).with_context(|| format!("flow {at}"))?;
        let (server, _) = ours.accept()?;
        flows.push((Box::new(client), Box::new(server)));
        let client = stack.connect_with(outward, connect.clone()).with_context(|| format!("flow {at} of ours"))?;
        let (server, _) = theirs.accept()?;
        flows.push((Box::new(client), Box::new(server)));
    }
    for (client, server) in &flows {
        client.set_patience(Duration::from_secs(20))?;
        server.set_patience(Duration::from_secs(20))?;
    }
    let everybody_talks = || {
        thread::scope(|scope| {
            let talk_all = |some: &[Pair]| some.iter().try_for_each(|flow| talk(flow, b"are you still there?"));
            let threads: Vec<_> = flows.chunks(HALF / 2).map(|some| scope.spawn(move || talk_all(some))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a thread that talks"))
        })
    };
    everybody_talks().context("at first")?;
    thread::sleep(IDLE);
    everybody_talks().context("after a rest")?;
    assert_quiet(&lab, &stack, &before)?;
    for info in stack.worker_info() {
        let share = info.sizes.connections;
        ensure!(share > HALF / 2, "worker {} has {share} of {} connections", info.worker, 2 * HALF);
    }
    ensure!(stack.counters().handed_over_rx > 0, "the kernel's queues are where the connections are");
    drop(flows);
    wait_until_empty(&stack)
}

#[test]
fn ten_thousand_flows_at_once() {
    if permitted("ten thousand flows") {
        ten_thousand().unwrap_or_else(|error| panic!("{error:#}"));
    }
}
