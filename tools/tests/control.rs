//! A command that is told things while it runs: `anabranch mptcp` beside `anabranch serve --control`, the kernel as peer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anabranch_tests::kernel::{self, Protocol};
use anabranch_tests::{Counters, Netns, Process, permitted};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

const COMMAND: &str = env!("CARGO_BIN_EXE_anabranch");
const PATIENCE: Duration = Duration::from_secs(15);
const PATHS: [&str; 4] =
    ["--path", "tun:ab0,addr=10.9.0.2/24,host=10.9.0.1,id=1", "--path", "tun:ab1,addr=10.9.1.2/24,host=10.9.1.1,id=2"];

/// A server in a namespace, its control socket, and a kernel that takes what is announced.
struct Lab {
    netns: Netns,
    server: Process,
    dir: tempfile::TempDir,
}

impl Lab {
    fn new(name: &str, words: &[&str]) -> Result<Self> {
        let netns = Netns::new(name)?;
        netns.ip("mptcp limits set subflows 8 add_addr_accepted 8")?;
        let dir = tempfile::tempdir()?;
        let socket = dir.path().join("control");
        let socket = ["--control", socket.to_str().context("a path in UTF-8")?];
        let all = [&["serve", "echo:5003"], &PATHS[..], &socket, words].concat();
        let mut server = Process::start(&netns, COMMAND, &all, None)?;
        ensure!(server.line(PATIENCE)?.contains("ready"));
        Ok(Self { netns, server, dir })
    }

    fn start(&self, words: &[&str]) -> Result<Process> {
        let socket = self.dir.path().join("control");
        let socket = ["mptcp", "--control", socket.to_str().context("a path in UTF-8")?];
        Process::start(&self.netns, COMMAND, &[&socket, words].concat(), None)
    }

    /// What `anabranch mptcp` says; an error if it refuses.
    fn say(&self, words: &[&str]) -> Result<String> {
        let finished = self.start(words)?.finish(PATIENCE)?;
        ensure!(finished.status.success(), "{words:?}: {}", finished.stderr);
        Ok(String::from_utf8(finished.stdout)?)
    }

    fn connect(&self) -> Result<TcpStream> {
        let remote = SocketAddr::from((Ipv4Addr::new(10, 9, 0, 2), 5003));
        let stream = kernel::connect(&self.netns, Protocol::Mptcp, None, remote)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        echo(&stream)?;
        Ok(stream)
    }

    /// Waits until the kernel has counted something.
    fn counted(&self, name: &str, at_least: u64) -> Result<()> {
        let start = Instant::now();
        while Counters::read(&self.netns)?.get(name) < at_least {
            ensure!(start.elapsed() < PATIENCE, "{name}: {:?}", Counters::read(&self.netns)?);
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

fn echo(mut stream: &TcpStream) -> Result<()> {
    let mut answer = [0; 5];
    stream.write_all(b"hello")?;
    stream.read_exact(&mut answer)?;
    ensure!(answer == *b"hello");
    Ok(())
}

/// The next event of this kind.
fn event(monitor: &mut Process, kind: &str) -> Result<Value> {
    loop {
        let line = monitor.line(PATIENCE).with_context(|| format!("waiting for {kind}"))?;
        let event: Value = serde_json::from_str(&line)?;
        if event["event"] == kind {
            return Ok(event);
        }
    }
}

#[test]
fn a_program_manages_the_paths_of_a_server() -> Result<()> {
    if !permitted("external path manager") {
        return Ok(());
    }
    // Given a server that leaves its paths to a program, which listens when the kernel connects,
    let lab = Lab::new("external", &["--path-manager", "external"])?;
    let mut monitor = lab.start(&["monitor"])?;
    std::thread::sleep(Duration::from_millis(300));
    let stream = lab.connect()?;
    let created = event(&mut monitor, "created")?;
    ensure!(created["server_side"] == true && created["local"] == "10.9.0.2:5003", "{created}");
    let token = created["token"].as_u64().context("a token")?.to_string();
    ensure!(event(&mut monitor, "established")?["token"] == created["token"]);
    // when the program announces the second address with a port, then the kernel joins there,
    lab.say(&["announce", &token, "--id", "2", "--port", "10080"])?;
    let joined = event(&mut monitor, "sub-established")?;
    ensure!(joined["local"] == "10.9.1.2:10080" && joined["loc_id"] == 2, "{joined}");
    lab.counted("MPTcpExtMPJoinPortSynAckRx", 1)?;
    ensure!(lab.say(&["connections"])?.contains("10.9.1.2:10080"));
    // when it makes that a backup, then the kernel hears of it,
    let subflow = joined["subflow"].to_string();
    lab.say(&["set-flags", &token, &subflow, "backup"])?;
    lab.counted("MPTcpExtMPPrioRx", 1)?;
    // when it withdraws the address and closes the subflow, then both are gone, and the first subflow goes on.
    lab.say(&["remove", &token, "--id", "2"])?;
    lab.counted("MPTcpExtRmAddr", 1)?;
    let gone = event(&mut monitor, "sub-closed")?;
    ensure!(gone["subflow"] == joined["subflow"], "{gone}");
    echo(&stream)?;
    drop(stream);
    ensure!(event(&mut monitor, "closed")?["token"] == created["token"]);
    // A connection that is gone takes no commands.
    ensure!(lab.say(&["remove", &token, "--id", "2"]).is_err());
    Ok(())
}

#[test]
fn endpoints_and_limits_change_while_a_server_runs() -> Result<()> {
    if !permitted("endpoints at run time") {
        return Ok(());
    }
    let mut lab = Lab::new("endpoints", &["--workers", "2"])?;
    let stream = lab.connect()?;
    // A flag that comes announces the address, and the kernel joins.
    lab.say(&["endpoint", "change", "--id", "2", "signal"])?;
    lab.counted("MPTcpExtMPJoinSynAckRx", 1)?;
    // An address that comes with it, too.
    let id = lab.say(&["endpoint", "add", "10.9.1.3/24", "--path", "ab1", "signal"])?;
    lab.counted("MPTcpExtMPJoinSynAckRx", 2)?;
    let shown = lab.say(&["endpoint", "show"])?;
    ensure!(shown.contains("10.9.1.3/24 id 3 signal path ab1") && id == "id 3\n", "{shown}");
    // One that goes is withdrawn.
    lab.say(&["endpoint", "delete", "--id", "3"])?;
    lab.counted("MPTcpExtRmAddr", 1)?;
    echo(&stream)?;
    // Limits hold for what comes.
    lab.say(&["limits", "set", "--subflows", "1", "--add-addr-accepted", "0"])?;
    ensure!(lab.say(&["limits", "show"])? == "add_addr_accepted 0 subflows 1\n");
    // What cannot be is refused with a reason.
    for (words, reason) in [
        (&["endpoint", "add", "10.9.1.4/24", "--path", "nowhere"][..], "there is no path nowhere"),
        (&["endpoint", "add", "10.9.0.2/24", "--path", "ab0"], "in use"),
        (&["endpoint", "change", "--id", "2", "signal", "fullmesh"], "do not go together"),
        (&["endpoint", "change", "--id", "2", "signals"], "unknown flag 'signals'"),
        (&["endpoint", "delete", "--id", "99"], "no such endpoint"),
    ] {
        let refused = lab.say(words).expect_err("it cannot be").to_string();
        ensure!(refused.contains(reason), "{words:?}: {refused}");
    }
    // The socket goes with the server.
    drop(stream);
    lab.server.interrupt()?;
    lab.server.finish(PATIENCE)?;
    ensure!(!lab.dir.path().join("control").exists());
    Ok(())
}

#[test]
fn paths_come_and_go_while_a_server_runs() -> Result<()> {
    if !permitted("paths at run time") {
        return Ok(());
    }
    let lab = Lab::new("paths", &["--workers", "2"])?;
    let stream = lab.connect()?;
    // A path that comes with an address to announce is joined, and shown.
    lab.say(&["path", "add", "tun:ab2,addr=10.9.2.2/24,host=10.9.2.1,signal"])?;
    lab.counted("MPTcpExtMPJoinSynAckRx", 1)?;
    let shown = lab.say(&["path", "show"])?;
    ensure!(shown.contains("ab2 10.9.2.2/24 mtu 1500 up reopened 0"), "{shown}");
    // One that goes is withdrawn, and its interface with it.
    lab.say(&["path", "delete", "ab2"])?;
    lab.counted("MPTcpExtRmAddr", 1)?;
    ensure!(!lab.say(&["path", "show"])?.contains("ab2") && lab.netns.ip("link show ab2").is_err());
    echo(&stream)?;
    for (words, reason) in [
        (&["path", "add", "tun:ab0,addr=10.9.3.2/24"][..], "is there already"),
        (&["path", "add", "tun:ab3"], "no address of ours"),
        (&["path", "delete", "ab2"], "there is no path ab2"),
    ] {
        let refused = lab.say(words).expect_err("it cannot be").to_string();
        ensure!(refused.contains(reason), "{words:?}: {refused}");
    }
    Ok(())
}
