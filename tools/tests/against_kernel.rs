//! The command against kernel sockets, in network namespaces.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anabranch_tests::kernel::{self, Protocol};
use anabranch_tests::tshark::{Checksums, Findings};
use anabranch_tests::{Netns, Process, permitted};
use anyhow::{Context, Result, ensure};

const COMMAND: &str = env!("CARGO_BIN_EXE_anabranch");
const PATH: &str = "tun:ab0,addr=10.9.0.2/24,host=10.9.0.1";
const SECOND_PATH: &str = "tun:ab1,addr=10.9.1.2/24,host=10.9.1.1,signal";
const SERVICES: [&str; 4] = ["serve", "discard:5001", "chargen:5002", "echo:5003"];
const COMMAND_ADDR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs a test in a namespace of its own, if that is permitted.
fn story(name: &str, test: fn(&Netns) -> Result<()>) {
    if permitted(name) {
        let netns = Netns::new(name).expect("a namespace");
        netns.ip("mptcp limits set subflows 8 add_addr_accepted 8").expect("ip mptcp");
        test(&netns).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// `anabranch serve`, ready.
fn serve(netns: &Netns, more: &[&str]) -> Result<Process> {
    let mut process = Process::start(netns, COMMAND, &[&SERVICES, more].concat(), None)?;
    let line = process.line(PATIENCE).context("anabranch serve")?;
    ensure!(line.contains("ready"), "not what says that it is ready: {line}");
    Ok(process)
}

fn connect(netns: &Netns, port: u16) -> Result<TcpStream> {
    let stream = kernel::connect(netns, Protocol::Mptcp, None, SocketAddr::from((COMMAND_ADDR, port)))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Something to send that is not the same everywhere.
fn text(bytes: u32) -> Vec<u8> {
    (0..bytes / 4).flat_map(|at| at.wrapping_mul(0x9e37_79b1).to_le_bytes()).collect()
}

/// A file with this text, at its beginning.
fn file(text: &[u8]) -> Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(text)?;
    file.rewind()?;
    Ok(file)
}

/// Sends `sent`, ends the direction, and gives what comes until the other one ends.
fn converse(mut stream: &TcpStream, sent: &[u8]) -> Result<Vec<u8>> {
    let mut received = Vec::new();
    thread::scope(|scope| -> Result<()> {
        let sender = scope.spawn(move || {
            let mut writer = stream;
            writer.write_all(sent)?;
            stream.shutdown(Shutdown::Write)
        });
        stream.read_to_end(&mut received).context("reading")?;
        sender.join().expect("the sender").context("writing")
    })?;
    Ok(received)
}

fn echoes(netns: &Netns, bytes: u32) -> Result<()> {
    let sent = text(bytes);
    let received = converse(&connect(netns, 5003)?, &sent)?;
    ensure!(received == sent, "sent {} bytes, {} came back, not the same", sent.len(), received.len());
    Ok(())
}

#[test]
fn serve_echoes_discards_and_generates() {
    story("serve", |netns| {
        let mut process = serve(netns, &["--path", PATH, "--path", SECOND_PATH])?;

        echoes(netns, 5_000_000)?;
        let received = converse(&connect(netns, 5001)?, &text(5_000_000))?;
        ensure!(received.is_empty(), "discard sent {} bytes", received.len());
        let mut lines = vec![0; 74 * 200];
        connect(netns, 5002)?.read_exact(&mut lines)?;
        check_pattern(&lines)?;

        process.interrupt()?;
        process.finish(PATIENCE)?.code(0)
    });
}

/// RFC 864: lines of 72 of the 95 printable characters, each line one character further on.
fn check_pattern(lines: &[u8]) -> Result<()> {
    let lines: Vec<&[u8]> = lines.chunks(74).collect();
    let ring = |byte: u8| if byte == b'~' { b' ' } else { byte + 1 };
    for line in &lines {
        let (characters, end) = line.split_at(72);
        ensure!(end == b"\r\n" && characters.iter().all(|byte| (b' '..=b'~').contains(byte)), "not a line: {line:?}");
        ensure!(characters.windows(2).all(|pair| pair[1] == ring(pair[0])), "a character is left out: {line:?}");
    }
    ensure!(lines.windows(2).all(|pair| pair[1][0] == ring(pair[0][0])), "a line does not follow the one before");
    Ok(())
}

#[test]
fn serve_writes_a_capture_that_tshark_likes() {
    story("pcap", |netns| {
        let dir = tempfile::tempdir()?;
        let capture = dir.path().join("serve.pcapng");
        let path = capture.to_str().context("UTF-8")?;
        let mut process = serve(netns, &["--path", PATH, "--path", SECOND_PATH, "--pcap", path])?;
        echoes(netns, 1_000_000)?;
        process.interrupt()?;
        process.finish(PATIENCE)?.code(0)?;
        let findings = Findings::of(&capture, Checksums::Complete)?;
        findings.clean()?;
        findings.without_reset()?;
        ensure!(!findings.data_fins.is_empty(), "no DATA_FIN in the capture");
        Ok(())
    });
}

#[test]
fn cat_sends_and_receives() {
    story("cat", |netns| {
        let (there, back) = (text(3_000_000), text(2_000_000));
        let listener = kernel::listen(netns, Protocol::Mptcp, (Ipv4Addr::UNSPECIFIED, 5000).into())?;
        let args = ["cat", "10.9.0.1", "5000", "--path", PATH];
        let mut process = Process::start(netns, COMMAND, &args, Some(file(&there)?))?;
        let (stream, peer) = listener.accept()?;
        ensure!(peer.ip() == COMMAND_ADDR, "a connection from {peer}");
        ensure!(converse(&stream, &back)? == there, "the kernel did not get what was sent");
        drop(stream);
        let finished = process.finish(PATIENCE)?;
        finished.code(0)?;
        ensure!(finished.stdout == back, "{} bytes on standard output, not those sent", finished.stdout.len());
        Ok(())
    });
}

#[test]
fn cat_listens() {
    story("cat -l", |netns| {
        let (there, back) = (text(2_000_000), text(3_000_000));
        let args = ["cat", "-l", "5000", "--path", PATH];
        let mut process = Process::start(netns, COMMAND, &args, Some(file(&back)?))?;
        let deadline = Instant::now() + PATIENCE;
        // It says nothing on standard output: that belongs to the peer.
        let stream = loop {
            match connect(netns, 5000) {
                Err(_) if Instant::now() < deadline && process.running()? => thread::sleep(Duration::from_millis(50)),
                other => break other.context("connecting to anabranch cat -l")?,
            }
        };
        ensure!(converse(&stream, &there)? == back, "the kernel did not get what was sent");
        drop(stream);
        let finished = process.finish(PATIENCE)?;
        finished.code(0)?;
        ensure!(finished.stdout == there, "{} bytes on standard output, not those sent", finished.stdout.len());
        Ok(())
    });
}

#[test]
fn cat_fails_when_the_peer_resets() {
    story("cat reset", |netns| {
        let listener = kernel::listen(netns, Protocol::Tcp, (Ipv4Addr::UNSPECIFIED, 5000).into())?;
        let args = ["cat", "10.9.0.1", "5000", "--path", PATH];
        let (reader, _writer) = std::io::pipe()?;
        let input = File::from(std::os::fd::OwnedFd::from(reader));
        let mut process = Process::start(netns, COMMAND, &args, Some(input))?;
        let (stream, _) = listener.accept()?;
        kernel::reset(stream)?;
        let finished = process.finish(PATIENCE)?;
        finished.code(1)?;
        finished.says(&["reset"])
    });
}

#[test]
fn cat_says_that_nobody_listens() {
    story("cat refused", |netns| {
        let args = ["cat", "10.9.0.1", "5000", "--path", PATH];
        let finished = Process::start(netns, COMMAND, &args, None)?.finish(PATIENCE)?;
        finished.code(1)?;
        finished.says(&["10.9.0.1", "refused"])
    });
}

/// Two stacks, the kernel between them as the router only.
#[test]
fn perf_measures_both_directions() {
    story("perf", |netns| {
        netns.sysctl("net.ipv4.ip_forward", "1")?;
        let server_path = "tun:srv0,addr=10.9.5.2/24,host=10.9.5.1";
        let server_args = ["perf", "server", "--port", "5201", "--path", server_path];
        let mut server = Process::start(netns, COMMAND, &server_args, None)?;
        server.line(PATIENCE).context("perf server")?;
        for direction in [&[][..], &["--reverse"]] {
            let client =
                ["perf", "client", "10.9.5.2", "--port", "5201", "--bytes", "20000000", "--json", "--path", PATH];
            let finished =
                Process::start(netns, COMMAND, &[&client[..], direction].concat(), None)?.finish(PATIENCE)?;
            finished.code(0)?;
            let lines = String::from_utf8(finished.stdout)?;
            for line in lines.lines() {
                serde_json::from_str::<serde_json::Value>(line).with_context(|| format!("not JSON: {line}"))?;
            }
            ensure!(lines.contains("20000000"), "the bytes are not in the summary: {lines}");
        }
        server.interrupt()?;
        server.finish(PATIENCE)?.code(0)
    });
}

#[test]
fn a_path_whose_interface_vanished_is_left_behind() {
    story("vanished", |netns| {
        let mut process = serve(netns, &["--path", PATH, "--path", SECOND_PATH])?;
        for command in ["link set ab1 down", "link delete ab1"] {
            netns.ip(command)?;
            echoes(netns, 1_000_000).with_context(|| format!("on the other path after ip {command}"))?;
            let before = process.cpu_time()?;
            thread::sleep(Duration::from_secs(1));
            let used = process.cpu_time()?.saturating_sub(before);
            ensure!(
                used < Duration::from_millis(200),
                "{used:?} of processor time in an idle second after ip {command}"
            );
        }
        process.interrupt()?;
        process.finish(PATIENCE)?.code(0)
    });
}

#[test]
fn a_busy_interface_is_named() {
    story("busy", |netns| {
        let _first = serve(netns, &["--path", PATH])?;
        let args = ["cat", "10.9.0.1", "5000", "--path", PATH];
        let finished = Process::start(netns, COMMAND, &args, None)?.finish(PATIENCE)?;
        finished.code(1)?;
        finished.says(&["ab0"])
    });
}

#[test]
fn a_busy_port_is_named() {
    story("busy port", |netns| {
        let args = ["serve", "echo:5001", "discard:5001", "--path", PATH];
        let finished = Process::start(netns, COMMAND, &args, None)?.finish(PATIENCE)?;
        finished.code(1)?;
        finished.says(&["5001", "in use"])
    });
}

#[test]
fn an_unknown_scheduler_is_answered_with_the_known_ones() {
    story("unknown scheduler", |netns| {
        let args = ["serve", "echo:5001", "--path", PATH, "--scheduler", "fastest"];
        let finished = Process::start(netns, COMMAND, &args, None)?.finish(PATIENCE)?;
        ensure!(!finished.status.success(), "an unknown scheduler was accepted");
        finished.says(&["fastest", "minrtt", "roundrobin", "redundant", "backup", "linux"])
    });
}

#[test]
fn without_permission_it_says_how_to_get_it() {
    story("no permission", |netns| {
        // The build's directory may be closed to others: run a copy.
        let dir =
            tempfile::Builder::new().permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).tempdir()?;
        let copy = dir.path().join("anabranch");
        std::fs::copy(COMMAND, &copy)?;
        let copy = copy.to_str().context("UTF-8")?;
        let args = [
            "--reuid",
            "65534",
            "--clear-groups",
            "--bounding-set",
            "-all",
            copy,
            "serve",
            "echo:5001",
            "--path",
            PATH,
        ];
        let finished = Process::start(netns, "setpriv", &args, None)?.finish(PATIENCE)?;
        finished.code(1)?;
        finished.says(&["ab0", "cap_net_admin"])
    });
}
