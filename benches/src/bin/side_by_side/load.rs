//! The client.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cpu;
use crate::peers::chunk;
use crate::socket::{Connector, Stream};
use crate::task::{Load, Quantity, Sample, Service, Traffic};

/// Not counted: windows open, subflows are joined, buffers get their pages.
const WARM_UP: Duration = Duration::from_millis(300);
/// The stack of a thread, of which there may be a thousand.
const STACK: usize = 128 << 10;

/// Runs a client and gives what it measured.
pub(crate) fn run(load: &Load) -> Result<Sample> {
    cpu::pin(&load.cpus)?;
    let connector = Connector::new(&load.stack)?;
    match load.what {
        Traffic::Send | Traffic::Receive => bulk(load, &connector),
        Traffic::Echo(bytes) => echo(load, &connector, bytes),
        Traffic::Connect => connect(load, &connector),
    }
}

fn remote(load: &Load, service: Service) -> SocketAddr {
    SocketAddr::from((load.remote, service.port()))
}

/// When a transfer is counted.
#[derive(Clone, Copy)]
struct Window {
    begin: Instant,
    end: Instant,
}

impl Window {
    fn new(load: &Load) -> Self {
        let begin = Instant::now() + WARM_UP;
        Self { begin, end: begin + Duration::from_secs_f64(load.seconds) }
    }
}

/// What one connection moved, and when.
struct Moved {
    bytes: u64,
    begin: Instant,
    end: Instant,
}

fn bulk(load: &Load, connector: &Connector) -> Result<Sample> {
    let sends = load.what == Traffic::Send;
    let service = if sends { Service::Discard } else { Service::Chargen };
    // One after the other: no queue of SYNs overflows.
    let streams: Result<Vec<Stream>> =
        (0..load.connections).map(|_| connector.connect(remote(load, service))).collect();
    let streams = streams?;
    let window = Window::new(load);
    let moved = in_threads(&streams, |stream| {
        let mut buffer = vec![b'x'; chunk(load.connections)];
        let moved = if sends { send(stream, window, &mut buffer) } else { receive(stream, window, &mut buffer) };
        moved.and_then(|moved| connector.check(stream).map(|()| moved))
    })?;
    let bytes: u64 = moved.iter().map(|moved| moved.bytes).sum();
    let begin = moved.iter().map(|moved| moved.begin).min().context("at least one connection")?;
    let end = moved.iter().map(|moved| moved.end).max().context("at least one connection")?;
    ensure!(bytes > 0, "nothing was transferred");
    Ok(Sample::from([(Quantity::Gbps, bytes as f64 * 8e-9 / (end - begin).as_secs_f64())]))
}

/// Runs `work` for each item on a thread of its own.
fn in_threads<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> Result<T> + Sync) -> Result<Vec<T>> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Result<Vec<_>, _> = items
            .iter()
            .map(|item| thread::Builder::new().stack_size(STACK).spawn_scoped(scope, move || work(item)))
            .collect();
        threads?.into_iter().map(|thread| thread.join().expect("no panic in a client")).collect()
    })
}

/// Writes until the end, then waits until the server has read it all and closed: that counts, too.
fn send(mut stream: &Stream, window: Window, buffer: &mut [u8]) -> Result<Moved> {
    let mut bytes = 0;
    let mut begin = None;
    loop {
        let now = Instant::now();
        if now >= window.end {
            break;
        }
        if now >= window.begin && begin.is_none() {
            begin = Some(now);
        }
        stream.write_all(buffer).context("writing")?;
        bytes += if begin.is_some() { buffer.len() as u64 } else { 0 };
    }
    stream.finish().context("ending the stream")?;
    let rest = stream.read(buffer).context("waiting for the server to close")?;
    ensure!(rest == 0, "a discard server sent something");
    Ok(Moved { bytes, begin: begin.context("no write was done in time")?, end: Instant::now() })
}

/// Reads until the end.
fn receive(mut stream: &Stream, window: Window, buffer: &mut [u8]) -> Result<Moved> {
    let mut bytes = 0;
    let mut begin = None;
    loop {
        let count = stream.read(buffer).context("reading")?;
        ensure!(count > 0, "the server closed early");
        let now = Instant::now();
        match begin {
            Some(begin) => {
                bytes += count as u64;
                if now >= window.end {
                    return Ok(Moved { bytes, begin, end: now });
                }
            }
            None if now >= window.begin => begin = Some(now),
            None => {}
        }
    }
}

fn echo(load: &Load, connector: &Connector, bytes: usize) -> Result<Sample> {
    let mut stream = &connector.connect(remote(load, Service::Echo))?;
    let window = Window::new(load);
    let mut buffer = vec![b'x'; bytes];
    let mut times = Vec::with_capacity(1 << 18);
    let mut at = Instant::now();
    while at < window.end {
        stream.write_all(&buffer).context("writing")?;
        stream.read_exact(&mut buffer).context("reading")?;
        let now = Instant::now();
        if at >= window.begin {
            times.push(now - at);
        }
        at = now;
    }
    connector.check(stream)?;
    latencies(times, load.seconds)
}

fn connect(load: &Load, connector: &Connector) -> Result<Sample> {
    let window = Window::new(load);
    let loops = vec![(); load.connections];
    let times = in_threads(&loops, |()| {
        let mut times = Vec::with_capacity(1 << 16);
        let mut at = Instant::now();
        while at < window.end {
            let mut stream = &connector.connect(remote(load, Service::Echo))?;
            stream.finish().context("ending the stream")?;
            let rest = stream.read(&mut [0; 16]).context("waiting for the server to close")?;
            ensure!(rest == 0, "an echo server sent something");
            let now = Instant::now();
            if at >= window.begin {
                times.push(now - at);
            }
            at = now;
        }
        Ok(times)
    })?;
    latencies(times.concat(), load.seconds)
}

fn latencies(mut times: Vec<Duration>, seconds: f64) -> Result<Sample> {
    ensure!(!times.is_empty(), "not one round trip in {seconds} s");
    times.sort_unstable();
    let micros = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    Ok(Sample::from([
        (Quantity::PerSecond, times.len() as f64 / seconds),
        (Quantity::P50Us, micros(0.5)),
        (Quantity::P99Us, micros(0.99)),
    ]))
}
