//! One row of the matrix, from end to end.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anabranch::{
    Endpoint, EndpointFlags, IpCidr, Limits, NewEndpoint, SockOpt, SocketOptions, Stack, SynCookies, TcpStream,
};
use anyhow::{Context, Result, bail, ensure};

use super::{End, Expect, Row, Set, Step};
use crate::kernel::{self, Protocol};
use crate::transfer::Stream;
use crate::tshark::rows;
use crate::{Anabranch, Capture, Counters, Join, Lab, LabBuilder, Layout, PORT, PathOptions, Role};

/// Bytes of each exchange, each way.
const BYTES: usize = 200_000;
/// How long something may take to come about.
const PATIENCE: Duration = Duration::from_secs(12);
/// Longer than an acknowledgement is delayed, and than the kernel waits for a DATA_ACK.
const SILENCE: Duration = Duration::from_millis(600);

/// A row's network, with the stack on it.
pub(super) struct Case<'a> {
    row: &'a Row,
    lab: Lab,
    stack: Stack,
    before: Counters,
}

/// Both ends of a connection, as what they are.
struct Ends {
    ours: TcpStream,
    kernel: std::net::TcpStream,
    /// The kernel accepts joins as long as its is open.
    _listener: Listener,
}

/// On a busy machine a DATA_ACK may take so long that data is repeated. Whoever has done that never falls back afterwards, so
/// a row about falling back has to begin anew.
#[derive(Clone, Copy, Debug)]
pub(super) struct RepeatedBefore;

impl fmt::Display for RepeatedBefore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("data was repeated at connection level before the options were stripped")
    }
}

impl std::error::Error for RepeatedBefore {}

/// The server's side before the connection.
enum Listener {
    Kernel(std::net::TcpListener),
    Ours(anabranch::TcpListener),
}

impl<'a> Case<'a> {
    pub(super) fn new(row: &'a Row) -> Result<Self> {
        let made = Mutex::new(None);
        let start = |wires: &_, family, _: &[PathOptions]| {
            let words = row.given.iter().find_map(|set| if let Set::Path(words) = set { Some(*words) } else { None });
            let paths = ["", words.unwrap_or("")];
            let anabranch = Anabranch::over_tun_with_words(wires, family, &paths, |builder| configured(builder, row))?;
            *made.lock().expect("no panic here") = Some(anabranch.stack().clone());
            Ok(Box::new(anabranch) as Box<_>)
        };
        let plan = LabBuilder { layout: Layout::Routed, family: row.family, role: row.role, join: Join::Single };
        let lab = plan.build(&start)?;
        let stack = made.into_inner()?.context("the stack was made")?;
        lab.wires.command("nft", "add table inet middle")?;
        lab.wires.command("nft", "add chain inet middle forward { type filter hook forward priority 0 ; }")?;
        let before = Counters::read(&lab.peer)?;
        let case = Self { row, lab, stack, before };
        row.given.iter().try_for_each(|set| case.set(set).with_context(|| format!("{set:?}")))?;
        Ok(case)
    }

    fn set(&self, set: &Set) -> Result<()> {
        let peer = &self.lab.peer;
        match set {
            Set::Endpoint(words) => self.add_endpoint(words)?,
            Set::KernelLimits(subflows, accepted) => {
                peer.ip(&format!("mptcp limits set subflows {subflows} add_addr_accepted {accepted}"))?;
            }
            Set::Sysctl(name, value) => peer.sysctl(name, value)?,
            Set::FastOpen => peer.sysctl("net.ipv4.tcp_fastopen", "1027")?,
            Set::Nft(rule) => self.nft(rule)?,
            Set::Path(_) | Set::Manager(_) | Set::Checksum | Set::Limits(..) | Set::DenyJoin | Set::SynCookies => {}
        }
        Ok(())
    }

    fn nft(&self, rule: &str) -> Result<()> {
        self.lab.wires.command("nft", &format!("add rule inet middle forward {rule}")).map(drop)
    }

    fn add_endpoint(&self, words: &str) -> Result<()> {
        let (addr, device) = (self.lab.peer_addr(1), self.lab.peer_device(1));
        self.lab.peer.ip(&format!("mptcp endpoint add {addr} dev {device} id 9 {words}")).map(drop)
    }

    pub(super) fn run(self) -> Result<()> {
        let ends = self.open().context("opening")?;
        self.go_on(&ends).with_context(|| self.state(&ends))?;
        self.end(ends)?;
        self.counted()?;
        let Self { lab, stack, .. } = self;
        drop(stack);
        // What is still to be said may be said.
        lab.wires.command("nft", "flush table inet middle")?;
        lab.subject.end(Duration::from_secs(5))
    }

    fn go_on(&self, ends: &Ends) -> Result<()> {
        self.exchange(ends).context("the first bytes")?;
        self.has_subflows(ends, self.row.subflows.0)?;
        self.exchange(ends).context("bytes on all subflows")?;
        for step in self.row.then {
            self.step(ends, step).with_context(|| format!("{step:?}"))?;
            self.exchange(ends).with_context(|| format!("bytes after {step:?}"))?;
        }
        self.has_subflows(ends, self.row.subflows.1)?;
        self.exchange(ends).context("the last bytes")
    }

    /// Neither side has repeated data at connection level.
    fn nothing_repeated(&self) -> Result<()> {
        const REPEATED: &str = "MPTcpExtMPTCPRetrans";
        let kernel = Counters::read(&self.lab.peer)?.since(&self.before).get(REPEATED);
        let ours = self.stack.counters().iter().filter(|(name, _)| *name == REPEATED).map(|(_, count)| count).sum();
        ensure!((ours, kernel) == (0, 0), RepeatedBefore);
        Ok(())
    }

    /// What is known when something is wrong.
    fn state(&self, ends: &Ends) -> String {
        let ours: Vec<_> = self.stack.counters().iter().filter(|(_, count)| *count > 0).collect();
        let kernel = Counters::read(&self.lab.peer).map(|now| now.since(&self.before));
        format!("{}\nwe counted {ours:?}\nthe kernel counted {kernel:?}", ends.ours.describe())
    }

    fn open(&self) -> Result<Ends> {
        let anywhere = SocketAddr::new(self.row.family.unspecified(), PORT);
        let listener = match self.row.role {
            Role::Client => Listener::Kernel(kernel::listen(&self.lab.peer, Protocol::Mptcp, anywhere)?),
            Role::Server => Listener::Ours(self.stack.listen(anywhere)?),
        };
        if self.row.given.contains(&Set::FastOpen) {
            // The first one asks for a cookie.
            drop(self.open_once(&listener)?);
        }
        let (ours, kernel) = self.open_once(&listener)?;
        Ok(Ends { ours, kernel, _listener: listener })
    }

    fn open_once(&self, listener: &Listener) -> Result<(TcpStream, std::net::TcpStream)> {
        let fast = self.row.given.contains(&Set::FastOpen);
        let mut hello = [0; 5];
        let (ours, kernel) = match listener {
            Listener::Kernel(listener) => {
                let ours = self.stack.connect((self.lab.peer_addr(0), PORT))?;
                (&ours).write_all(b"hello")?;
                let kernel = listener.accept()?.0;
                kernel.receive(&mut hello)?;
                (ours, kernel)
            }
            Listener::Ours(listener) => {
                let remote = SocketAddr::new(self.row.family.subject(0), PORT);
                let kernel = match fast {
                    true => kernel::connect_fast(&self.lab.peer, remote, b"hello")?,
                    false => {
                        let stream = kernel::connect(&self.lab.peer, Protocol::Mptcp, None, remote)?;
                        stream.send_all(b"hello")?;
                        stream
                    }
                };
                let ours = listener.accept()?.0;
                ours.receive(&mut hello)?;
                (ours, kernel)
            }
        };
        ensure!(hello == *b"hello", "the greeting was {hello:?}");
        for stream in [&ours as &dyn Stream, &kernel] {
            stream.set_patience(PATIENCE)?;
        }
        Ok((ours, kernel))
    }

    /// Bytes both ways at once.
    fn exchange(&self, ends: &Ends) -> Result<()> {
        let (ours, kernel): (&dyn Stream, &dyn Stream) = (&ends.ours, &ends.kernel);
        std::thread::scope(|scope| {
            let ways = [(ours, kernel, 1), (kernel, ours, 7)];
            let moving = ways.map(|(from, to, seed)| scope.spawn(move || one_way(from, to, seed)));
            moving.into_iter().try_for_each(|way| way.join().expect("no panic"))
        })
    }

    fn has_subflows(&self, ends: &Ends, wanted: usize) -> Result<()> {
        self.wait(&format!("{wanted} subflows"), || {
            let subflows = ends.ours.subflows()?;
            let usable = subflows.iter().filter(|one| one.state == anabranch::TcpState::Established).count();
            Ok((usable == wanted).then_some(()).ok_or_else(|| format!("{usable} of {}", subflows.len())))
        })
    }

    fn wait(&self, what: &str, done: impl Fn() -> Result<Result<(), String>>) -> Result<()> {
        let start = Instant::now();
        loop {
            let Err(problem) = done()? else { return Ok(()) };
            if start.elapsed() > PATIENCE {
                bail!("waited in vain for {what}: {problem}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn our_endpoint(&self, path: u8) -> Result<Endpoint> {
        let addr = self.row.family.subject(path);
        let endpoints = self.stack.endpoints()?;
        endpoints.into_iter().find(|endpoint| endpoint.addr == addr).context("our endpoint is there")
    }

    fn step(&self, ends: &Ends, step: &Step) -> Result<()> {
        let peer = &self.lab.peer;
        match step {
            Step::Change(words) => self.stack.change_endpoint(self.our_endpoint(1)?.id, flags(words)?, None)?,
            Step::Remove => self.stack.remove_endpoint(self.our_endpoint(1)?.id)?,
            Step::RemoveFirst => self.stack.remove_endpoint(self.our_endpoint(0)?.id)?,
            Step::AddFirst(words) => {
                let family = self.row.family;
                let addr = IpCidr::new(family.subject(0), family.network_prefix()).context("an address")?;
                let path = self.stack.paths().first().context("our first path")?.id;
                self.stack.add_endpoint(NewEndpoint { path, addr, id: 0, flags: flags(words)?, port: None })?;
            }
            Step::Endpoint(words) => self.add_endpoint(words)?,
            Step::EndpointChange(words) => drop(peer.ip(&format!("mptcp endpoint change id 9 {words}"))?),
            Step::EndpointDelete => drop(peer.ip("mptcp endpoint delete id 9")?),
            Step::EndpointDeleteFirst => {
                drop(peer.ip(&format!("mptcp endpoint delete id 0 {}", self.lab.peer_addr(0)))?);
            }
            Step::Nft(rule) => self.nft(rule)?,
            Step::NftAtRest(rule) => {
                self.nft_at_rest(rule)?;
                one_way(&ends.ours, &ends.kernel, 3)?;
            }
            Step::NftBeforeKernel(rule) => {
                self.nft_at_rest(rule)?;
                one_way(&ends.kernel, &ends.ours, 5)?;
                std::thread::sleep(SILENCE);
            }
            Step::Pause(millis) => std::thread::sleep(Duration::from_millis(*millis)),
        }
        // Long enough for a word to arrive, and for what follows from it to begin.
        std::thread::sleep(Duration::from_millis(100));
        Ok(())
    }

    fn nft_at_rest(&self, rule: &str) -> Result<()> {
        std::thread::sleep(SILENCE);
        self.nothing_repeated()?;
        self.nft(rule)
    }

    fn end(&self, ends: Ends) -> Result<()> {
        match self.row.end {
            End::Close => {
                for stream in [&ends.ours as &dyn Stream, &ends.kernel] {
                    stream.finish()?;
                }
                for stream in [&ends.ours as &dyn Stream, &ends.kernel] {
                    ensure!(read(stream, &mut [0]).context("the end of the stream")? == 0, "bytes behind the end");
                }
            }
            End::OurAbort => {
                ends.ours.abort();
                ensure!(ends.kernel.receive(&mut [0]).is_err(), "the kernel did not hear of our abort");
            }
            End::KernelAbort => {
                kernel::reset(ends.kernel)?;
                ensure!(ends.ours.receive(&mut [0]).is_err(), "we did not hear of the kernel's abort");
            }
            End::TooLate(rule) => self.too_late(&ends, rule)?,
        }
        Ok(())
    }

    fn too_late(&self, ends: &Ends, rule: &str) -> Result<()> {
        self.nft(rule)?;
        one_way(&ends.kernel, &ends.ours, 5)?;
        std::thread::sleep(SILENCE);
        let capture = Capture::start(&self.lab.peer, 256)?;
        ends.ours.send_all(b"without a mapping")?;
        self.has_subflows(ends, 0)?;
        let resets = rows(&capture.stop()?.path(), "tcp.flags.reset == 1", &["tcp.options.mptcp.rst_reason"])?;
        let middlebox = resets.iter().flatten().any(|reason| reason == "0x06");
        ensure!(middlebox, "no reset of the kernel names a middlebox: {resets:?}");
        ends.ours.abort();
        Ok(())
    }

    /// Both ends counted what they should have.
    fn counted(&self) -> Result<()> {
        let wrong = |expected: &[Expect], value: &dyn Fn(&str) -> u64| -> Vec<String> {
            let wrong = expected.iter().filter(|expect| !expect.holds(value(expect.name)));
            wrong.map(|expect| format!("{} is {}, expected {expect:?}", expect.name, value(expect.name))).collect()
        };
        let look = || -> Result<Vec<String>> {
            let kernel = Counters::read(&self.lab.peer)?.since(&self.before);
            let ours = self.stack.counters();
            let ours =
                |name: &str| ours.iter().find(|(known, _)| *known == name).map_or(u64::MAX - 1, |(_, value)| value);
            let mut all = wrong(self.row.kernel, &|name| kernel.get(name));
            all.extend(wrong(self.row.ours, &ours).into_iter().map(|text| format!("ours: {text}")));
            if !all.is_empty() {
                all.push(format!("the kernel counted {kernel:?}"));
                let counters = self.stack.counters();
                all.push(format!("we counted {:?}", counters.iter().filter(|(_, n)| *n > 0).collect::<Vec<_>>()));
            }
            Ok(all)
        };
        let start = Instant::now();
        loop {
            let wrong = look()?;
            if wrong.is_empty() {
                return Ok(());
            }
            ensure!(start.elapsed() < Duration::from_secs(3), "{}", wrong.join("\n"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn flags(words: &str) -> Result<EndpointFlags> {
    let mut flags = EndpointFlags::default();
    for word in words.split(',') {
        ensure!(flags.set(word, true), "{word}");
    }
    Ok(flags)
}

/// Reads, whatever signals come.
fn read(stream: &dyn Stream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.receive(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Bytes from one end to the other.
fn one_way(from: &dyn Stream, to: &dyn Stream, seed: usize) -> Result<()> {
    let bytes: Vec<u8> = (0..BYTES).map(|at| (at * seed % 251) as u8).collect();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| from.send_all(&bytes));
        let received = receive(to, &bytes);
        sender.join().expect("no panic").context("sending")?;
        received
    })
}

fn receive(stream: &dyn Stream, expected: &[u8]) -> Result<()> {
    let mut at = 0;
    let mut buffer = vec![0; 64 << 10];
    while at < expected.len() {
        let most = buffer.len().min(expected.len() - at);
        let count = read(stream, &mut buffer[..most]).with_context(|| format!("reading after {at} bytes"))?;
        ensure!(count > 0, "the stream ended after {at} bytes");
        ensure!(buffer[..count] == expected[at..at + count], "other bytes than were sent, from {at} on");
        at += count;
    }
    Ok(())
}

/// A builder with what a row wants of us.
fn configured(mut builder: anabranch::Builder, row: &Row) -> anabranch::Builder {
    for set in row.given {
        builder = match *set {
            Set::Checksum => builder.checksum(true),
            Set::Limits(subflows, add_addr_accepted) => {
                builder.option(SockOpt::Limits(Limits { subflows, add_addr_accepted }))
            }
            Set::Manager(name) => builder.path_manager(name),
            Set::DenyJoin => builder.option(SockOpt::AllowJoinInitialAddrPort(false)),
            Set::SynCookies => builder.syn_cookies(SynCookies::Always),
            Set::FastOpen => builder.socket_options(SocketOptions {
                fastopen: 16,
                fastopen_connect: true,
                ..SocketOptions::default()
            }),
            _ => builder,
        };
    }
    builder
}
