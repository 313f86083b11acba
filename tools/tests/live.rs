//! The command on live paths: strangers, signals, limits, files, and what it reports.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anabranch_tests::kernel::{self, Protocol};
use anabranch_tests::{Netns, Process, permitted};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

const COMMAND: &str = env!("CARGO_BIN_EXE_anabranch");
const SERVER_PATH: &str = "tun:srv0,addr=10.9.5.2/24,host=10.9.5.1";
const CLIENT_PATHS: [&str; 4] =
    ["--path", "tun:ab0,addr=10.9.0.2/24,host=10.9.0.1", "--path", "tun:ab1,addr=10.9.1.2/24,host=10.9.1.1,subflow"];
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 5, 2);
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test in a namespace of its own that forwards between its interfaces, if that is permitted.
fn story(name: &str, test: fn(&Netns) -> Result<()>) {
    if permitted(name) {
        let netns = Netns::new(name).expect("a namespace");
        netns.sysctl("net.ipv4.ip_forward", "1").expect("sysctl");
        test(&netns).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// Starts the command with `--json` and waits for its first event, which has to be `ready`.
fn start_server(netns: &Netns, words: &[&str]) -> Result<Process> {
    let mut process = Process::start(netns, COMMAND, &[words, &["--json", "--path", SERVER_PATH]].concat(), None)?;
    let event: Value = serde_json::from_str(&process.line(PATIENCE)?)?;
    ensure!(event["event"] == "ready", "the first event is {event}");
    Ok(process)
}

fn connect(netns: &Netns, port: u16) -> Result<TcpStream> {
    let stream = kernel::connect(netns, Protocol::Tcp, None, SocketAddr::from((SERVER, port)))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn events(lines: &[u8]) -> Result<Vec<Value>> {
    let lines = std::str::from_utf8(lines)?.lines();
    lines.map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))).collect()
}

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

fn perf_client(netns: &Netns, words: &[&str]) -> Result<Process> {
    let begin = ["perf", "client", "10.9.5.2", "--port", "5201", "--json"];
    Process::start(netns, COMMAND, &[&begin[..], &CLIENT_PATHS, words].concat(), None)
}

#[test]
fn perf_server_survives_strangers() {
    story("strangers", |netns| {
        // Given a server, and clients that speak something else, another version, half a request or nothing.
        let mut server = start_server(netns, &["perf", "server", "--port", "5201"])?;
        let mut answers = Vec::new();
        for said in
            [&b"GET / HTTP/1.1\r\nHost: anabranch.example\r\n\r\n"[..], &[b"ABPF\x09", &[0; 27][..]].concat(), b"ABPF"]
        {
            let mut stranger = connect(netns, 5201)?;
            stranger.write_all(said)?;
            stranger.shutdown(Shutdown::Write)?;
            let mut answer = Vec::new();
            // Whether a stranger reads the answer or the reset behind it first is a matter of luck.
            match stranger.read_to_end(&mut answer) {
                Err(error) if error.kind() != ErrorKind::ConnectionReset => return Err(error.into()),
                _ => answers.push(answer),
            }
        }
        let silent = connect(netns, 5201)?;

        // When a good client comes.
        let good = perf_client(netns, &["--bytes", "1000000"])?.finish(PATIENCE)?;

        // Then it is served, and the strangers were told off by name.
        good.code(0)?;
        drop(silent);
        server.interrupt()?;
        let finished = server.finish(PATIENCE)?;
        finished.code(0)?;
        let events = events(&finished.stdout)?;
        let refused = of_kind(&events, "refused");
        for part in ["not the protocol of anabranch perf", "protocol version 9", "ended before the message"] {
            ensure!(refused.iter().any(|event| event["error"].to_string().contains(part)), "{part}: {refused:?}");
        }
        ensure!(of_kind(&events, "done").len() == 1, "{events:?}");
        ensure!(answers[1].is_empty() || answers[1].starts_with(b"ABPR\x01\x01"), "{answers:?}");
        Ok(())
    });
}

#[test]
fn counters_are_shown_on_request() {
    story("counters", |netns| {
        // Given a server that somebody has talked to.
        let mut server = start_server(netns, &["serve", "echo:5003"])?;
        let mut client = connect(netns, 5003)?;
        client.write_all(b"hello")?;
        client.read_exact(&mut [0; 5])?;
        // When it is asked, then it tells, and goes on.
        server.ask_for_counters()?;
        let event: Value = loop {
            let event: Value = serde_json::from_str(&server.line(PATIENCE)?)?;
            if event["event"] == "counters" {
                break event;
            }
        };
        ensure!(event["counters"]["TcpPassiveOpens"] == 1, "{event}");
        ensure!(event["counters"]["TcpInErrs"] == 0, "{event}");
        client.write_all(b"again")?;
        client.read_exact(&mut [0; 5])?;
        drop(client);
        server.interrupt()?;
        server.finish(PATIENCE)?.code(0)
    });
}

#[test]
fn perf_reports_every_connection_and_subflow() {
    story("streams", |netns| {
        let mut server = start_server(netns, &["perf", "server", "--port", "5201"])?;
        for direction in [&[][..], &["--reverse"]] {
            let words = [&["--parallel", "2", "--bytes", "30MB"][..], direction].concat();
            let finished = perf_client(netns, &words)?.finish(PATIENCE)?;
            finished.code(0)?;
            let events = events(&finished.stdout)?;
            ensure!(of_kind(&events, "connected").len() == 2, "{events:?}");
            let summary = of_kind(&events, "summary")[0];
            ensure!(summary["bytes"] == 60_000_000, "{summary}");
            for stream in summary["streams"].as_array().context("no streams")? {
                ensure!(stream["bytes"] == 30_000_000 && stream["mptcp"] == true, "{stream}");
                let subflows = stream["subflows"].as_array().context("no subflows")?;
                let carried: u64 = subflows.iter().filter_map(|subflow| subflow["bytes"].as_u64()).sum();
                ensure!(carried >= 30_000_000, "the subflows carried {carried}: {stream}");
                ensure!(subflows.iter().any(|subflow| subflow["path"] == "ab0"), "{stream}");
            }
        }
        server.interrupt()?;
        let finished = server.finish(PATIENCE)?;
        finished.code(0)?;
        ensure!(of_kind(&events(&finished.stdout)?, "done").len() == 4, "four connections were served");
        Ok(())
    });
}

#[test]
fn perf_goes_on_when_a_path_dies() {
    story("dying path", |netns| {
        let _server = start_server(netns, &["perf", "server", "--port", "5201"])?;
        let mut client = perf_client(netns, &["--time", "3.5"])?;
        let mut interval = || -> Result<Value> {
            loop {
                let event: Value = serde_json::from_str(&client.line(PATIENCE)?)?;
                if event["event"] == "interval" {
                    return Ok(event);
                }
            }
        };
        interval()?;
        netns.ip("link set ab0 down")?;
        interval()?;
        let after = interval()?;
        let subflows = after["streams"][0]["subflows"].as_array().context("no subflows")?;
        ensure!(subflows.iter().all(|subflow| subflow["path"] == "ab1"), "{after}");
        ensure!(after["bytes"].as_u64() > Some(1_000_000), "{after}");
        client.finish(PATIENCE)?.code(0)
    });
}

#[test]
fn a_server_ends_in_time_whatever_its_clients_do() {
    story("signal", |netns| {
        // Given a client that reads on and on, and one that has stopped reading.
        let mut server = start_server(netns, &["serve", "chargen:5002"])?;
        let mut reader = connect(netns, 5002)?;
        let mut lazy = connect(netns, 5002)?;
        lazy.read_exact(&mut [0; 100])?;
        reader.read_exact(&mut [0; 1_000_000])?;

        // When the server is told to end.
        server.interrupt()?;

        // Then the reader comes to the end of its stream, and the server does not wait for the lazy one.
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).context("the reader")?;
        let finished = server.finish(PATIENCE)?;
        finished.code(0)?;
        let events = events(&finished.stdout)?;
        let stopped = of_kind(&events, "stopped")[0];
        ensure!(stopped["signal"] == "SIGINT" && stopped["clean"] == false, "{stopped}");
        Ok(())
    });
}

#[test]
fn connections_beyond_the_limit_wait() {
    story("limit", |netns| {
        let _server = start_server(netns, &["serve", "echo:5003", "--max-connections", "1"])?;
        let first = connect(netns, 5003)?;
        let mut second = connect(netns, 5003)?;
        second.write_all(b"hello")?;
        second.set_read_timeout(Some(Duration::from_millis(300)))?;
        let early = second.read(&mut [0; 5]);
        ensure!(early.is_err(), "served beside the first one: {early:?}");

        drop(first);
        second.set_read_timeout(Some(PATIENCE))?;
        let mut answer = [0; 5];
        second.read_exact(&mut answer).context("the second one's turn")?;
        ensure!(&answer == b"hello", "{answer:?}");
        Ok(())
    });
}

#[test]
fn a_file_names_the_paths_and_brackets_an_address() {
    story("file", |netns| {
        let dir = tempfile::tempdir()?;
        let config = dir.path().join("ab.toml");
        fs::write(
            &config,
            r#"
            scheduler = "roundrobin"
            json = true
            [[path]]
            driver = "tun"
            name = "ab0"
            addr = ["10.9.0.2/24", "fd00:9::2/64"]
            host = ["10.9.0.1", "fd00:9::1"]
            "#,
        )?;
        let listener = kernel::listen(netns, Protocol::Mptcp, (Ipv6Addr::UNSPECIFIED, 5000).into())?;
        let config = config.display().to_string();
        let mut process = Process::start(netns, COMMAND, &["cat", "[fd00:9::1]", "5000", "--config", &config], None)?;
        let (mut stream, peer) = listener.accept()?;
        ensure!(peer.ip() == "fd00:9::2".parse::<Ipv6Addr>()?, "a connection from {peer}");
        stream.write_all(b"hello")?;
        drop(stream);
        let finished = process.finish(PATIENCE)?;
        finished.code(0)?;
        ensure!(finished.stdout == b"hello", "{:?}", finished.stdout);
        // Standard output is the peer's, so what is said goes elsewhere.
        let said = events(finished.stderr.as_bytes())?;
        ensure!(of_kind(&said, "connected").len() == 1 && of_kind(&said, "closed").len() == 1, "{said:?}");
        Ok(())
    });
}

#[test]
fn an_interrupted_cat_tells_its_peer() {
    story("interrupted", |netns| {
        let listener = kernel::listen(netns, Protocol::Tcp, (Ipv4Addr::UNSPECIFIED, 5000).into())?;
        let (input, _open) = std::io::pipe()?;
        let words = [&["cat", "10.9.0.1", "5000"][..], &CLIENT_PATHS].concat();
        let mut process = Process::start(netns, COMMAND, &words, Some(File::from(OwnedFd::from(input))))?;
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"hello")?;
        process.line(Duration::from_millis(300)).err().context("there was no whole line")?;

        process.interrupt()?;

        let finished = process.finish(PATIENCE)?;
        finished.code(1)?;
        finished.says(&["ended by SIGINT"])?;
        let error = stream.read(&mut [0; 1]).err().context("the peer read something")?;
        ensure!(error.kind() == ErrorKind::ConnectionReset, "the peer met {error}");
        Ok(())
    });
}
