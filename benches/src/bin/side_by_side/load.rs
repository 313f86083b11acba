//! The client.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::peers::chunk;
use crate::socket::Connector;
use crate::task::{Load, Quantity, Sample, Service, Traffic};
use anabranch_benches::{Stream, cpu};

/// Round trips that are not counted.
const WARM_UP: Duration = Duration::from_millis(300);
/// How often a reader that gets nothing looks at the clock.
const LOOK: Duration = Duration::from_millis(100);
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

fn bulk(load: &Load, connector: &Connector) -> Result<Sample> {
    let sends = load.what == Traffic::Send;
    let service = if sends { Service::Discard } else { Service::Chargen };
    // One after the other: no queue of SYNs overflows.
    let streams: Result<Vec<Stream>> =
        (0..load.connections).map(|_| connector.connect(remote(load, service))).collect();
    let streams = streams?;
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(load.seconds);
    let bytes = in_threads(&streams, |stream| {
        let mut buffer = vec![b'x'; chunk(load.connections)];
        if !sends {
            return receive(stream, end, &mut buffer);
        }
        let bytes = send(stream, end, &mut buffer)?;
        connector.check(stream)?;
        finish(stream)?;
        Ok(bytes)
    })?;
    let bytes: u64 = bytes.iter().sum();
    ensure!(bytes > 0, "nothing was transferred");
    Ok(Sample::from([(Quantity::Gbps, bytes as f64 * 8e-9 / begin.elapsed().as_secs_f64())]))
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

/// Writes until `end`.
fn send(mut stream: &Stream, end: Instant, buffer: &mut [u8]) -> Result<u64> {
    let mut bytes = 0;
    while Instant::now() < end {
        stream.write_all(buffer).context("writing")?;
        bytes += buffer.len() as u64;
    }
    Ok(bytes)
}

/// Reads until `end`. A connection that others starve gets what it gets.
fn receive(mut stream: &Stream, end: Instant, buffer: &mut [u8]) -> Result<u64> {
    stream.set_read_timeout(LOOK)?;
    let mut bytes = 0;
    while Instant::now() < end {
        match stream.read(buffer) {
            Ok(0) => bail!("the server closed early"),
            Ok(count) => bytes += count as u64,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error).context("reading"),
        }
    }
    Ok(bytes)
}

/// Ends our stream and waits until the server has read all of it and ended its own. A service that is still
/// sending is none for this.
fn finish(mut stream: &Stream) -> Result<()> {
    stream.finish().context("ending the stream")?;
    let rest = stream.read(&mut [0; 16]).context("waiting for the server to close")?;
    ensure!(rest == 0, "the server sent something");
    Ok(())
}

/// When round trips are counted.
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
            finish(&connector.connect(remote(load, Service::Echo))?)?;
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
