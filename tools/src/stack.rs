//! Bringing up a stack, and the complaints of people who could not.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anabranch::{ConnectOptions, Error, SockOpt, Stack, TcpListener, TcpStream, WorkerInfo, cc, pm, sched};
use anyhow::{Context as _, anyhow};
use bytesize::ByteSize;
use serde::Serialize;

use crate::control::Control;
use crate::options::StackArgs;
use crate::output::Output;
use crate::signals;
use crate::usage::Usage;

/// How long connections may take to close when a command ends.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// A stack and what goes with it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) stack: Stack,
    pub(crate) output: Output,
    /// Where it can be told things as long as it lasts.
    _control: Option<Control>,
}

impl Session {
    /// Reads the configuration, starts the log and brings up the stack. `output` is set as early as
    /// is known how the caller wants to be spoken to; `make` chooses where it goes.
    pub(crate) fn start(args: StackArgs, output: &mut Output, make: fn(bool) -> Output) -> anyhow::Result<Self> {
        *output = make(args.talk.json.unwrap_or(false));
        let args = args.with_file()?;
        *output = make(args.talk.json.unwrap_or(false));
        args.talk.start_log();
        let control = args.control.clone();
        let stack = build(args)?;
        let control = control.map(|path| Control::start(&path, stack.clone())).transpose()?;
        let (reported, talk) = (stack.clone(), *output);
        signals::on_report(move || report_counters(&reported, talk))?;
        Ok(Self { stack, output: *output, _control: control })
    }

    /// From now on a signal aborts the stack, so that whatever blocks on it fails.
    pub(crate) fn abort_on_signal(&self) -> anyhow::Result<Signalled> {
        let signalled = Signalled::default();
        let (stack, signal) = (self.stack.clone(), Arc::clone(&signalled.0));
        signals::on_stop(move |name| {
            // It is the only one: `on_stop` calls once.
            let _ = signal.set(name);
            stack.shutdown(Duration::ZERO);
        })?;
        Ok(signalled)
    }

    /// Listens on `port`, on every address of the stack; port 0 chooses one.
    pub(crate) fn listen(&self, port: u16) -> anyhow::Result<TcpListener> {
        self.stack.listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).map_err(|error| cannot_listen(port, &error))
    }

    /// Connects to the first of `addrs` that answers; `host` is what the user called it.
    pub(crate) fn connect(&self, host: &str, addrs: &[SocketAddr], timeout: Duration) -> anyhow::Result<TcpStream> {
        let mut tried = String::new();
        let one = addrs.len() == 1;
        for &addr in addrs {
            let options = ConnectOptions { timeout: Some(timeout), ..ConnectOptions::default() };
            match self.stack.connect_with(addr, options) {
                Ok(stream) => return Ok(stream),
                Err(error) if one => return Err(anyhow!("cannot connect to {addr}: {error}")),
                Err(error) => {
                    let separator = if tried.is_empty() { "" } else { "; " };
                    // Writing to a string cannot fail.
                    let _ = write!(tried, "{separator}{addr}: {error}");
                }
            }
        }
        Err(anyhow!("cannot connect to {host}: {tried}"))
    }
}

#[derive(Serialize)]
struct CountersEvent {
    event: &'static str,
    counters: BTreeMap<&'static str, u64>,
    workers: Vec<WorkerEvent>,
}

#[derive(Serialize)]
struct WorkerEvent {
    worker: u16,
    alive: bool,
    connections: usize,
    half_open: usize,
    time_waits: usize,
    forwards: usize,
    handed_over_tx: u64,
    handed_over_rx: u64,
    mail_waiting: usize,
    mail_dropped: u64,
    transmit_dropped: u64,
    turns: u64,
    sleeps: u64,
}

impl From<WorkerInfo> for WorkerEvent {
    fn from(info: WorkerInfo) -> Self {
        Self {
            worker: info.worker,
            alive: info.alive,
            connections: info.sizes.connections,
            half_open: info.sizes.half_open,
            time_waits: info.sizes.time_waits,
            forwards: info.sizes.forwards,
            handed_over_tx: info.counters.handed_over_tx,
            handed_over_rx: info.counters.handed_over_rx,
            mail_waiting: info.mail_waiting,
            mail_dropped: info.stats.mail_dropped,
            transmit_dropped: info.stats.transmit_dropped,
            turns: info.stats.turns,
            sleeps: info.stats.sleeps,
        }
    }
}

/// Says what the stack has counted, under the kernel's names, and what each worker holds; for people without
/// what is zero.
fn report_counters(stack: &Stack, output: Output) {
    let counters = stack.counters();
    for (name, count) in counters.iter().filter(|(_, count)| *count > 0) {
        output.line(format_args!("{name:<36} {count}"));
    }
    let workers: Vec<WorkerEvent> = stack.worker_info().into_iter().map(WorkerEvent::from).collect();
    for worker in &workers {
        let state = if worker.alive { "" } else { " (ended)" };
        output.line(format_args!(
            "worker {}{state}: {} connections, {} in TIME-WAIT, {} packets handed over, {} taken over, {} dropped",
            worker.worker,
            worker.connections,
            worker.time_waits,
            worker.handed_over_tx,
            worker.handed_over_rx,
            worker.mail_dropped,
        ));
    }
    output.event(&CountersEvent { event: "counters", counters: counters.iter().collect(), workers });
}

/// Whether a signal came, see [`Session::abort_on_signal`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Signalled(Arc<OnceLock<&'static str>>);

impl Signalled {
    /// What failed because of the signal failed by the signal.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        match self.0.get() {
            Some(signal) => anyhow!("ended by {signal}"),
            None => error,
        }
    }
}

fn build(args: StackArgs) -> anyhow::Result<Stack> {
    if args.paths.is_empty() {
        return Err(Usage::error(
            "no path: give the stack one, such as --path tun:ab0,addr=10.9.0.2/24,host=10.9.0.1, \
             here or in the file of --config",
        ));
    }
    check_names(&args)?;
    let mut builder = Stack::builder();
    for path in args.paths {
        builder = builder.path(path);
    }
    if let Some(name) = args.scheduler {
        builder = builder.scheduler(name);
    }
    if let Some(name) = args.congestion {
        builder = builder.congestion(name);
    }
    if let Some(name) = args.path_manager {
        builder = builder.path_manager(name);
    }
    if let Some(on) = args.checksum {
        builder = builder.checksum(on);
    }
    if let Some(allow) = args.allow_join_initial_addr_port {
        builder = builder.option(SockOpt::AllowJoinInitialAddrPort(allow));
    }
    if let Some(no_mptcp) = args.no_mptcp {
        builder = builder.mptcp(!no_mptcp);
    }
    if let Some(time) = args.close_timeout {
        builder = builder.close_timeout(time);
    }
    if let Some(time) = args.blackhole_timeout {
        builder = builder.blackhole_timeout(time);
    }
    if let Some(workers) = args.workers {
        builder = builder.workers(workers);
    }
    if let Some(budget) = args.busy_poll {
        builder = builder.busy_poll(budget);
    }
    if let Some(ByteSize(bytes)) = args.memory {
        builder = builder.memory(bytes);
    }
    // What does not fit is out of range, too: the stack says so.
    if let Some(ByteSize(bytes)) = args.send_buffer {
        builder = builder.send_buffer(u32::try_from(bytes).unwrap_or(u32::MAX));
    }
    if let Some(ByteSize(bytes)) = args.recv_buffer {
        builder = builder.recv_buffer(u32::try_from(bytes).unwrap_or(u32::MAX));
    }
    for option in args.socket.options() {
        builder = builder.option(option);
    }
    if let Some(file) = args.pcap {
        builder = builder.pcap(file);
    }
    builder.build().map_err(explain)
}

/// Wrong names are the user's, so they are told apart from what fails later.
fn check_names(args: &StackArgs) -> anyhow::Result<()> {
    check_name("--scheduler", args.scheduler.as_deref(), sched::NAMES)?;
    check_name("--congestion", args.congestion.as_deref(), cc::NAMES)?;
    match args.path_manager.as_deref() {
        // Its name may have a number in it.
        Some(name) if pm::by_name(name).is_ok() => Ok(()),
        name => check_name("--path-manager", name, pm::NAMES),
    }
}

/// Complains if `name` is none of the `known`, which are separated by commas.
pub(crate) fn check_name(option: &str, name: Option<&str>, known: &str) -> anyhow::Result<()> {
    match name {
        Some(name) if !known.split(", ").any(|word| word == name) => {
            Err(Usage::error(format!("{option} {name}: there is no such one; known are {known}")))
        }
        _ => Ok(()),
    }
}

fn explain(error: Error) -> anyhow::Error {
    match error {
        Error::UnknownName { .. } | Error::Setting { .. } | Error::SocketOptions(_) => Usage::error(error.to_string()),
        // Its text has the source's in it.
        error => anyhow!("cannot bring up the stack: {error}"),
    }
}

fn cannot_listen(port: u16, error: &io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow!("cannot listen on port {port}: it is in use; give another one, or 0 to have one chosen")
        }
        _ => anyhow!("cannot listen on port {port}: {error}"),
    }
}

/// Lets connections close in good order for at most `grace`; complains if some had to be aborted.
pub(crate) fn shut_down(stack: &Stack, grace: Duration) -> anyhow::Result<()> {
    match stack.shutdown(grace) {
        true => Ok(()),
        false => Err(anyhow!("connections were still open after {grace:?} and had to be aborted")),
    }
}

/// What a path is called by people: its interface.
pub(crate) fn path_names(stack: &Stack) -> Vec<String> {
    stack.paths().into_iter().map(|path| path.name).collect()
}

/// The port of a listener.
pub(crate) fn port_of(listener: &TcpListener) -> anyhow::Result<u16> {
    Ok(listener.local_addr().context("a listener without an address")?.port())
}
