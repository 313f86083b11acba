//! The socket at which a command that runs can be told things.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anabranch::{IpCidr, Limits, NewEndpoint, PathId, PathReports, Stack};
use anyhow::Context as _;
use rustix::fs::Mode;
use rustix::process::umask;
use serde::Serialize;

use super::protocol::{Answer, EndpointLine, Event, Request, flags_of};
use crate::usage::Usage;

/// Longest request, in bytes.
const REQUEST_MAX: u64 = 64 << 10;
/// Clients at once.
const CLIENTS_MAX: usize = 32;
/// How often a monitor without news looks whether it is still listened to.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A control socket. Its file goes with it.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
}

impl Drop for Control {
    fn drop(&mut self) {
        // Somebody may have been quicker.
        let _ = fs::remove_file(&self.path);
    }
}

impl Control {
    /// Listens on a socket that only this user may use.
    pub(crate) fn start(path: &Path, stack: Stack) -> anyhow::Result<Self> {
        let shown = path.display();
        if UnixStream::connect(path).is_ok() {
            return Err(Usage::error(format!("--control {shown}: another process listens there; give another one")));
        }
        if fs::symlink_metadata(path).is_ok_and(|file| std::os::unix::fs::FileTypeExt::is_socket(&file.file_type())) {
            // What a process that was killed left behind.
            fs::remove_file(path).with_context(|| format!("--control {shown}"))?;
        }
        let before = umask(Mode::RWXG | Mode::RWXO);
        let bound = UnixListener::bind(path);
        umask(before);
        let listener = bound.map_err(|error| Usage::error(format!("--control {shown}: {error}")))?;
        let clients = Arc::new(AtomicUsize::new(0));
        thread::Builder::new().name("control".into()).spawn(move || accept(&listener, &stack, &clients))?;
        Ok(Self { path: path.into() })
    }
}

fn accept(listener: &UnixListener, stack: &Stack, clients: &Arc<AtomicUsize>) {
    for client in listener.incoming() {
        let Ok(client) = client else { continue };
        if clients.fetch_add(1, Ordering::Relaxed) >= CLIENTS_MAX {
            clients.fetch_sub(1, Ordering::Relaxed);
            // It may not even listen.
            let _ = say(&client, &Answer::failed("too many clients"));
            continue;
        }
        let (stack, counted) = (stack.clone(), Arc::clone(clients));
        let spawned = thread::Builder::new().name("control-client".into()).spawn(move || {
            if let Err(error) = serve(&client, &stack) {
                tracing::debug!(%error, "a control client");
            }
            counted.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Answers a client's requests, until it goes.
fn serve(client: &UnixStream, stack: &Stack) -> io::Result<()> {
    let mut requests = BufReader::new(client);
    let mut line = String::new();
    loop {
        line.clear();
        let read = (&mut requests).take(REQUEST_MAX).read_line(&mut line)?;
        if read == 0 {
            return Ok(());
        }
        if read as u64 == REQUEST_MAX && !line.ends_with('\n') {
            return say(client, &Answer::failed(format!("a request has at most {REQUEST_MAX} bytes")));
        }
        match serde_json::from_str(&line) {
            Ok(Request::Monitor) => return monitor(client, stack),
            Ok(request) => say(client, &answer(&request, stack))?,
            Err(error) => say(client, &Answer::failed(format!("not a request: {error}")))?,
        }
    }
}

fn say(mut client: &UnixStream, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    client.write_all(&line)
}

pub(super) fn answer(request: &Request, stack: &Stack) -> Answer {
    carry_out(request, stack).unwrap_or_else(|error| Answer::failed(format!("{error:#}")))
}

fn carry_out(request: &Request, stack: &Stack) -> anyhow::Result<Answer> {
    if let Some((token, command)) = request.path_command() {
        stack.path_command(token, command)?;
        return Ok(Answer::done());
    }
    match request {
        Request::EndpointShow => {
            let paths = stack.paths();
            let name = |id| paths.iter().find(|path| path.id == id).map_or_else(String::new, |path| path.name.clone());
            let endpoints = stack.endpoints()?;
            let lines = endpoints.iter().map(|endpoint| EndpointLine::new(endpoint, name(endpoint.path))).collect();
            return Ok(Answer { endpoints: Some(lines), ..Answer::done() });
        }
        Request::EndpointAdd { addr, path, id, port, flags } => {
            let addr: IpCidr = addr.parse().with_context(|| format!("addr {addr}"))?;
            let flags = flags_of(flags).map_err(anyhow::Error::msg)?;
            let path = path_of(stack, path)?;
            let id = stack.add_endpoint(NewEndpoint { path, addr, id: *id, flags, port: *port })?;
            return Ok(Answer { id: Some(id), ..Answer::done() });
        }
        Request::EndpointChange { id, port, flags } => {
            stack.change_endpoint(*id, flags_of(flags).map_err(anyhow::Error::msg)?, *port)?;
        }
        Request::EndpointDelete { id } => stack.remove_endpoint(*id)?,
        Request::PathShow => {
            let paths = stack.paths().into_iter().map(Into::into).collect();
            return Ok(Answer { paths: Some(paths), ..Answer::done() });
        }
        Request::PathAdd { path } => {
            stack.add_path(path.parse()?)?;
        }
        Request::PathDelete { path } => stack.remove_path(path_of(stack, path)?)?,
        Request::LimitsShow => {
            return Ok(Answer { limits: Some(stack.socket_options().limits.into()), ..Answer::done() });
        }
        Request::LimitsSet { subflows, add_addr_accepted } => {
            stack.set_limits(Limits { subflows: *subflows, add_addr_accepted: *add_addr_accepted })?;
        }
        Request::Connections => {
            let connections = stack.connections().into_iter().map(Into::into).collect();
            return Ok(Answer { connections: Some(connections), ..Answer::done() });
        }
        _ => anyhow::bail!("that is no single request"),
    }
    Ok(Answer::done())
}

/// The path that is called so.
fn path_of(stack: &Stack, name: &str) -> anyhow::Result<PathId> {
    let known = stack.paths().into_iter().find(|known| known.name == name);
    Ok(known.with_context(|| format!("there is no path {name}"))?.id)
}

/// Tells everything that happens until the client goes or the stack ends.
fn monitor(client: &UnixStream, stack: &Stack) -> io::Result<()> {
    let reports = stack.path_reports()?;
    say(client, &Answer::done())?;
    client.set_read_timeout(Some(Duration::from_millis(1)))?;
    let mut lost = 0;
    loop {
        match reports.next_within(LOOK_EVERY) {
            Ok(report) => {
                lost = tell_lost(client, &reports, lost)?;
                if let Some(event) = Event::new(&report) {
                    say(client, &event)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                lost = tell_lost(client, &reports, lost)?;
                if has_gone(client) {
                    return Ok(());
                }
            }
            Err(_) => return Ok(()),
        }
    }
}

/// Says how many reports were lost, if that has changed.
fn tell_lost(client: &UnixStream, reports: &PathReports, told: u64) -> io::Result<u64> {
    let lost = reports.lost();
    if lost != told {
        say(client, &Event::lost(lost - told))?;
    }
    Ok(lost)
}

fn has_gone(mut client: &UnixStream) -> bool {
    let mut byte = [0];
    match client.read(&mut byte) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
    }
}
