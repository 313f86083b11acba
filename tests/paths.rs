//! Paths that come, go and come back while a stack runs, the kernel as peer.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anabranch::{Builder, PathInfo, Stack, TcpStream};
use anabranch_tests::kernel::{self, Protocol};
use anabranch_tests::transfer::pass_megabytes;
use anabranch_tests::{Counters, Join, Netns, PORT, permitted};
use anyhow::{Context, Result, ensure};

const PATIENCE: Duration = Duration::from_secs(10);

fn run(name: &str, test: impl FnOnce() -> Result<()>) {
    if permitted(name) {
        test().unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}

fn wait_for(what: &str, done: impl Fn() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !done()? {
        ensure!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A namespace of the kernel's, and ours, with wires between them: `k0` with 10.9.0.1 and `w0`, `k1` with 10.9.1.1 and `w1`…
struct Wires {
    kernel: Netns,
    ours: Netns,
}

impl Wires {
    fn new(count: u8) -> Result<Self> {
        let (kernel, ours) = (Netns::new("kernel")?, Netns::new("ours")?);
        Join::limits(&kernel)?;
        let wires = Self { kernel, ours };
        (0..count).try_for_each(|number| wires.add(number))?;
        Ok(wires)
    }

    fn add(&self, number: u8) -> Result<()> {
        self.kernel.ip(&format!("link add k{number} type veth peer name w{number} netns {}", self.ours.path()))?;
        self.kernel.ip(&format!("addr add 10.9.{number}.1/24 dev k{number}"))?;
        self.kernel.ip(&format!("link set k{number} up"))?;
        self.ours.ip(&format!("link set w{number} up"))?;
        Ok(())
    }

    fn stack(&self, path: &str, workers: usize) -> Result<Stack> {
        let spec = path.parse()?;
        Ok(self.ours.run(|| Stack::builder().path(spec).workers(workers).build())?)
    }

    /// A connection from the stack to the kernel.
    fn connect(&self, stack: &Stack) -> Result<(TcpStream, std::net::TcpStream, std::net::TcpListener)> {
        let listener = kernel::listen(&self.kernel, Protocol::Mptcp, "0.0.0.0:5001".parse()?)?;
        let client = stack.connect(SocketAddr::new("10.9.0.1".parse()?, PORT))?;
        let (server, _) = listener.accept()?;
        client.set_read_timeout(Some(PATIENCE))?;
        server.set_read_timeout(Some(PATIENCE))?;
        Ok((client, server, listener))
    }
}

/// Sends some bytes each way and leaves the connection open.
fn exchange(client: &TcpStream, server: &std::net::TcpStream) -> Result<()> {
    pass_megabytes(client, server)?;
    pass_megabytes(server, client)
}

fn path(stack: &Stack, name: &str) -> Result<PathInfo> {
    stack.paths().into_iter().find(|path| path.name == name).with_context(|| format!("there is no path {name}"))
}

/// Given a connection over two wires on which bytes go to and fro, when some of the wires are cut and replaced, then not a byte is lost, and
/// the new wires carry bytes, too.
fn survives(cut: &[u8], pause: Duration, workers: usize) -> Result<()> {
    let wires = Wires::new(2)?;
    let paths = ["packet:w0,addr=10.9.0.2/24,gw=10.9.0.1", "packet:w1,addr=10.9.1.2/24,gw=10.9.1.1,subflow"];
    let specs = [paths[0].parse()?, paths[1].parse()?];
    let build = || specs.into_iter().fold(Stack::builder(), Builder::path).workers(workers).build();
    let stack = wires.ours.run(build)?;
    let (client, server, _listener) = wires.connect(&stack)?;
    exchange(&client, &server)?;
    let joins = || Ok::<_, anyhow::Error>(Counters::read(&wires.kernel)?.get("MPTcpExtMPJoinAckRx"));
    wait_for("the join", || Ok(client.subflows()?.len() == 2 && joins()? == 1))?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let talking = scope.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                exchange(&client, &server)?;
            }
            Ok(())
        });
        let happens = || -> Result<()> {
            for number in cut {
                wires.ours.ip(&format!("link del w{number}"))?;
            }
            std::thread::sleep(pause);
            cut.iter().try_for_each(|number| wires.add(*number))?;
            for number in cut {
                let name = format!("w{number}");
                wait_for("the path", || Ok(path(&stack, &name)?.up))?;
                let before = moved(&path(&stack, &name)?);
                wait_for("bytes on it", || Ok(moved(&path(&stack, &name)?) > before + 1_000_000))?;
            }
            Ok(())
        };
        let happened = happens();
        done.store(true, Ordering::Relaxed);
        let talked = talking.join().expect("no panic there");
        happened.and(talked)
    })?;
    ensure!(client.subflows()?.len() == 2 && joins()? == 2, "{:?}", Counters::read(&wires.kernel)?);
    ensure!(stack.paths().iter().all(|path| path.up && path.problem.is_none()));
    Ok(())
}

#[test]
fn an_interface_is_deleted_and_comes_back_and_carries_bytes_again() {
    for workers in [1, 2] {
        run("path back", || survives(&[1], Duration::from_millis(50), workers));
    }
}

#[test]
fn the_first_interface_comes_back_and_is_joined_from_whatever_its_flags() {
    run("first path back", || survives(&[0], Duration::ZERO, 1));
}

#[test]
fn every_interface_is_deleted_and_the_connection_waits_for_them() {
    run("all paths back", || survives(&[1, 0], Duration::from_millis(500), 1));
}

/// Bytes that passed a path, either way.
fn moved(path: &PathInfo) -> u64 {
    path.counters.rx_bytes + path.counters.tx_bytes
}

/// A path gets a share of what is exchanged. How much at a time is the schedulers' business on either side.
fn carries(stack: &Stack, name: &str, exchange: impl Fn() -> Result<()>) -> Result<()> {
    wait_for("bytes on the path", || {
        exchange()?;
        let info = path(stack, name)?;
        ensure!(info.up, "{info:?}");
        Ok(moved(&info) > 100_000)
    })
}

#[test]
fn a_path_that_is_added_carries_a_subflow_and_one_that_is_removed_is_left() {
    for workers in [1, 3] {
        run("path added", || {
            // Given a stack with one path and a connection on it, in a namespace in which this thread is not,
            let wires = Wires::new(2)?;
            let stack = wires.stack("packet:w0,addr=10.9.0.2/24", workers)?;
            let (client, server, _listener) = wires.connect(&stack)?;
            exchange(&client, &server)?;
            ensure!(client.subflows()?.len() == 1);
            let before = Counters::read(&wires.kernel)?;
            // when another path is added, then it is joined from, and carries bytes.
            let added = stack.add_path("packet:w1,addr=10.9.1.2/24,gw=10.9.1.1,subflow,id=7".parse()?)?;
            wait_for("the join", || Ok(client.subflows()?.len() == 2))?;
            ensure!(client.subflows()?[1].path == added && client.subflows()?[1].local_id == 7);
            carries(&stack, "w1", || exchange(&client, &server))?;
            // When the first one is removed, then its subflow goes, the kernel is told, and the stream goes on.
            let first = path(&stack, "w0")?.id;
            stack.remove_path(first)?;
            ensure!(path(&stack, "w0").is_err() && client.subflows()?.len() == 1);
            exchange(&client, &server)?;
            let counted = Counters::read(&wires.kernel)?.since(&before);
            ensure!(counted.get("MPTcpExtRmAddr") == 1 && counted.get("MPTcpExtMPRstRx") == 1, "{counted:?}");
            // It can be added again, and is another path then.
            let again = stack.add_path("packet:w0,addr=10.9.0.2/24,subflow".parse()?)?;
            ensure!(again != first && again != added);
            wait_for("the join", || Ok(client.subflows()?.len() == 2))?;
            carries(&stack, "w0", || exchange(&client, &server))?;
            Ok(())
        });
    }
}

#[test]
fn plain_tcp_ends_with_its_path() {
    run("path removed", || {
        let wires = Wires::new(1)?;
        let stack = wires.stack("packet:w0,addr=10.9.0.2/24", 1)?;
        let listener = kernel::listen(&wires.kernel, Protocol::Tcp, "0.0.0.0:5001".parse()?)?;
        let mut client = stack.connect(SocketAddr::new("10.9.0.1".parse()?, PORT))?;
        let (mut server, _) = listener.accept()?;
        server.set_read_timeout(Some(PATIENCE))?;
        client.set_read_timeout(Some(PATIENCE))?;
        stack.remove_path(path(&stack, "w0")?.id)?;
        // The last words of a path are its resets.
        let error = client.read(&mut [0; 10]).expect_err("it has nowhere to go");
        ensure!(error.kind() == std::io::ErrorKind::NetworkUnreachable, "{error}");
        ensure!(server.read(&mut [0; 10]).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
        Ok(())
    });
}

#[test]
fn what_cannot_be_added_changes_nothing() {
    run("path refused", || {
        let wires = Wires::new(2)?;
        let stack = wires.stack("packet:w0,addr=10.9.0.2/24,id=3", 2)?;
        for (spec, problem) in [
            ("packet:w0,addr=10.9.1.2/24", "path w0: is there already"),
            ("packet:w1,addr=10.9.0.2/24", "its address 10.9.0.2 is that of w0, too"),
            ("packet:w1,addr=10.9.1.2/24,id=3", "id=3 is that of 10.9.0.2"),
            ("packet:w9,addr=10.9.1.2/24", "there is no interface w9 here"),
        ] {
            let error = stack.add_path(spec.parse()?).expect_err("it cannot be").to_string();
            ensure!(error.contains(problem), "{spec}: {error}");
        }
        ensure!(stack.paths().len() == 1 && stack.endpoints()?.len() == 1);
        let added = stack.add_path("packet:w1,addr=10.9.1.2/24".parse()?)?;
        ensure!(stack.remove_path(added).is_ok() && stack.remove_path(added).is_err());
        Ok(())
    });
}

#[test]
fn an_interface_that_cannot_be_opened_again_says_why_and_is_tried_again() {
    run("path problem", || {
        // Given a connection whose interface vanishes,
        let wires = Wires::new(1)?;
        let stack = wires.stack("packet:w0,addr=10.9.0.2/24", 2)?;
        let (client, server, _listener) = wires.connect(&stack)?;
        exchange(&client, &server)?;
        let counted = path(&stack, "w0")?.counters;
        wires.ours.ip("link del w0")?;
        wait_for("the end of the interface", || Ok(path(&stack, "w0")?.gone))?;
        // when it is there again, but the kernel has taken our address, then that can be seen;
        wires.ours.ip("addr add 10.9.0.2/32 dev lo")?;
        wires.add(0)?;
        wait_for("the problem", || Ok(path(&stack, "w0")?.problem.is_some()))?;
        let info = path(&stack, "w0")?;
        ensure!(info.gone && !info.up && info.problem.is_some_and(|why| why.contains("the kernel's own address")));
        // when that is mended, the connection goes on, and nothing that was counted is forgotten.
        wires.ours.ip("addr del 10.9.0.2/32 dev lo")?;
        wait_for("the path", || Ok(path(&stack, "w0")?.up))?;
        let info = path(&stack, "w0")?;
        ensure!((info.gone, info.problem.is_none(), info.reopened) == (false, true, 1));
        exchange(&client, &server)?;
        let more = path(&stack, "w0")?.counters;
        ensure!(more.tx_bytes >= counted.tx_bytes + 5_000_000, "{counted:?} before, {more:?} after");
        Ok(())
    });
}

#[test]
fn a_tun_interface_that_was_there_before_is_adopted_again() {
    for (workers, flags) in [(1, ""), (2, "multi_queue")] {
        run("tun back", || {
            let netns = Netns::new("tun")?;
            let add = || netns.ip(&format!("tuntap add ab0 mode tun {flags}"));
            add()?;
            let spec = "tun:ab0,addr=10.9.0.2/24,host=10.9.0.1".parse()?;
            let stack = netns.run(|| Stack::builder().path(spec).workers(workers).build())?;
            let listener = kernel::listen(&netns, Protocol::Tcp, "0.0.0.0:5001".parse()?)?;
            let client = stack.connect(SocketAddr::new("10.9.0.1".parse()?, PORT))?;
            let (server, _) = listener.accept()?;
            server.set_read_timeout(Some(PATIENCE))?;
            exchange(&client, &server)?;
            netns.ip("link del ab0")?;
            wait_for("the end of the interface", || Ok(path(&stack, "ab0")?.gone))?;
            // Nobody makes one unasked.
            std::thread::sleep(Duration::from_millis(100));
            ensure!(path(&stack, "ab0")?.gone && netns.ip("link show ab0").is_err());
            add()?;
            wait_for("the path", || Ok(path(&stack, "ab0")?.up))?;
            exchange(&client, &server)
        });
    }
}
