//! The servers: the kernel's own, and the `anabranch` command.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use anabranch_tests::Netns;
use anabranch_tests::kernel::{self, Protocol};
use anyhow::{Context, Result, bail};

/// Bytes of one read or write, on both sides and for all peers.
pub(crate) const CHUNK: usize = 256 << 10;

/// What a server does with a connection, and on which port: one for MPTCP (and for TCP on anabranch, which
/// does both on one), one for a kernel socket that is TCP only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub(crate) enum Service {
    /// Reads until the end (RFC 863).
    Discard,
    /// Writes until the other side closes (RFC 864).
    Chargen,
}

impl Service {
    /// Its port.
    pub(crate) fn port(self, protocol: Protocol) -> u16 {
        let base = if protocol == Protocol::Mptcp { 5001 } else { 6001 };
        base + u16::from(self == Self::Chargen)
    }
}

/// A server process; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// This very program as the kernel's server.
    pub(crate) fn kernel(netns: &Netns, congestion: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve-kernel", congestion]);
        Self::start(netns, command)
    }

    /// `anabranch serve` on two TUN devices, the second one's address announced.
    pub(crate) fn anabranch(netns: &Netns, program: &Path, paths: [String; 2], more: &str) -> Result<Self> {
        let mut command = Command::new(program);
        let services = [Service::Discard, Service::Chargen].map(|service| {
            let name = if service == Service::Discard { "discard" } else { "chargen" };
            format!("{name}:{}", service.port(Protocol::Mptcp))
        });
        command.arg("serve").args(services).args(more.split_whitespace());
        for path in paths {
            command.args(["--path", &path]);
        }
        Self::start(netns, command).with_context(|| {
            format!("{}: build it with `cargo build --release`, or use --kernel-only", program.display())
        })
    }

    /// Waits for the first line of output, which says that it is ready.
    fn start(netns: &Netns, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = Self { child: netns.run(|| command.spawn()).context("starting the server")? };
        let stdout = server.child.stdout.take().context("a pipe was asked for")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        if stdout.read_line(&mut line)? == 0 {
            bail!("the server ended before it was ready: {}", server.child.wait()?);
        }
        // Whatever else it says must not fill the pipe.
        thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves both services with kernel sockets until standard input ends.
pub(crate) fn serve_kernel(congestion: &str) -> Result<()> {
    let netns = Netns::current()?;
    for protocol in [Protocol::Tcp, Protocol::Mptcp] {
        for service in [Service::Discard, Service::Chargen] {
            let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, service.port(protocol)));
            let listener = kernel::listen_with(&netns, protocol, addr, &[congestion])?;
            thread::spawn(move || accept(&listener, service));
        }
    }
    println!("ready");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

fn accept(listener: &TcpListener, service: Service) {
    for stream in listener.incoming().flatten() {
        // The client sees how it ends; there is nobody else to tell.
        thread::spawn(move || match service {
            Service::Discard => discard(stream).unwrap_or_default(),
            Service::Chargen => chargen(stream).unwrap_or_default(),
        });
    }
}

fn discard(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

fn chargen(mut stream: TcpStream) -> std::io::Result<()> {
    let buffer = vec![b'x'; CHUNK];
    loop {
        stream.write_all(&buffer)?;
    }
}
