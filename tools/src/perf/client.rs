//! The end that asks.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anabranch::{ConnInfo, SubflowInfo, TcpStream};
use anyhow::{Context as _, bail};

use super::ClientArgs;
use super::progress::{Progress, Reading, Span, client_sends};
use super::protocol::{Direction, Reply, Request, Until, Verdict};
use super::report::{Outcome, Report};
use super::transfer::{HELLO, IDLE, read_message, receive, send};
use crate::addresses;
use crate::output::Output;
use crate::stack::{GRACE, Session, path_names, shut_down};

/// Time of a line.
const TICK: Duration = Duration::from_secs(1);
const DEFAULT_MILLIS: u32 = 10_000;

/// One connection of the test, from the reporter's side.
struct Stream {
    handle: TcpStream,
    moved: Arc<AtomicU64>,
    progress: Progress,
    info: Option<ConnInfo>,
    ended: Option<End>,
}

/// What a connection's thread tells when it is done.
struct End {
    stream: usize,
    time: Duration,
    subflows: Vec<SubflowInfo>,
    /// What the server received, if we sent.
    verdict: anyhow::Result<Option<Verdict>>,
}

pub(super) fn run(args: ClientArgs, output: &mut Output) -> anyhow::Result<()> {
    let addrs = addresses::resolve(&args.addr, args.port)?;
    let request = request_of(&args)?;
    let session = Session::start(args.stack, output, Output::new)?;
    let signalled = session.abort_on_signal()?;

    let test = || {
        let mut handles = Vec::new();
        for _ in 0..request.streams {
            handles.push(session.connect(&args.addr, &addrs, args.timeout)?);
        }
        measure(&session, request, handles)
    };
    match test() {
        Ok(()) => shut_down(&session.stack, GRACE).map_err(|error| signalled.explain(error)),
        Err(error) => {
            session.stack.shutdown(Duration::ZERO);
            Err(signalled.explain(error))
        }
    }
}

fn request_of(args: &ClientArgs) -> anyhow::Result<Request> {
    let until = match (args.bytes, args.time) {
        (Some(bytes), _) => Until::Bytes(bytes),
        (None, Some(time)) => Until::Millis(u32::try_from(time.as_millis()).unwrap_or(u32::MAX)),
        (None, None) => Until::Millis(DEFAULT_MILLIS),
    };
    let direction = if args.reverse { Direction::Download } else { Direction::Upload };
    let test = getrandom::u64().context("no random number for the test")?;
    Ok(Request { direction, until, stream: 0, streams: args.parallel, test })
}

fn measure(session: &Session, request: Request, handles: Vec<TcpStream>) -> anyhow::Result<()> {
    let begin = Instant::now();
    let (tell, news) = mpsc::channel();
    let mut streams = Vec::new();
    for (number, handle) in (0..).zip(handles) {
        let moved = Arc::new(AtomicU64::new(0));
        spawn(Request { stream: number, ..request }, begin, handle.try_clone()?, Arc::clone(&moved), tell.clone())?;
        let info = handle.info().ok();
        streams.push(Stream { handle, moved, progress: Progress::new(number), info, ended: None });
    }
    drop(tell);
    let mut test = Test { request, begin, paths: path_names(&session.stack), streams };
    let mut report = Report::new(session.output, request);
    report.connected(test.streams.iter().map(|stream| (&stream.handle, stream.info.as_ref())))?;
    test.watch(&news, &mut report);
    test.conclude(&mut report)
}

/// Runs one connection's part of the test on a thread.
fn spawn(
    request: Request,
    begin: Instant,
    handle: TcpStream,
    moved: Arc<AtomicU64>,
    tell: Sender<End>,
) -> anyhow::Result<()> {
    let work = move || {
        let mut subflows = Vec::new();
        let verdict = transfer(&handle, request, &moved, &mut subflows);
        drop(handle);
        // The reporter has failed if nobody listens.
        let _ = tell.send(End { stream: request.stream.into(), time: begin.elapsed(), subflows, verdict });
    };
    thread::Builder::new().name(format!("stream-{}", request.stream)).spawn(work).context("cannot start a thread")?;
    Ok(())
}

/// One connection's part of the test. `subflows` are looked at when all data was moved: soon they are closed.
fn transfer(
    mut stream: &TcpStream,
    request: Request,
    moved: &AtomicU64,
    subflows: &mut Vec<SubflowInfo>,
) -> anyhow::Result<Option<Verdict>> {
    stream.write_all(&request.to_bytes()).context("asking the server")?;
    let reply =
        read_message(stream, HELLO).context("waiting for the server's answer: is it `anabranch perf server`?")?;
    match Reply::parse(&reply).context("the server's answer")? {
        Reply::Go => {}
        Reply::OtherVersion(version) => {
            bail!("the server speaks version {version} of the protocol: use the same anabranch at both ends")
        }
        Reply::BadRequest => bail!("the server did not understand the request"),
    }
    if !client_sends(request.direction) {
        receive(stream, moved).context("receiving")?;
        *subflows = stream.subflows().unwrap_or_default();
        check("received", moved.load(Ordering::Relaxed), request.until)?;
        stream.shutdown(Shutdown::Write).context("ending the stream")?;
        return Ok(None);
    }
    send(stream, request.until, moved).context("sending")?;
    let verdict = read_message(stream, IDLE).context("waiting for the server's result")?;
    *subflows = stream.subflows().unwrap_or_default();
    let verdict = Verdict::parse(&verdict).context("the server's result")?;
    check("sent", moved.load(Ordering::Relaxed), request.until)?;
    if verdict.bytes != moved.load(Ordering::Relaxed) {
        bail!("{} bytes were sent, but the server received {}", moved.load(Ordering::Relaxed), verdict.bytes);
    }
    if stream.read(&mut [0; 1]).context("waiting for the end of the stream")? != 0 {
        bail!("the server went on after its result");
    }
    Ok(Some(verdict))
}

fn check(what: &str, moved: u64, until: Until) -> anyhow::Result<()> {
    match until {
        Until::Bytes(wanted) if moved != wanted => bail!("{moved} bytes of {wanted} were {what}"),
        _ => Ok(()),
    }
}

/// All connections together.
struct Test {
    request: Request,
    begin: Instant,
    paths: Vec<String>,
    streams: Vec<Stream>,
}

impl Test {
    /// Reports every second until all connections are done.
    fn watch(&mut self, news: &Receiver<End>, report: &mut Report) {
        let mut next = TICK;
        let mut last = Duration::ZERO;
        while self.streams.iter().any(|stream| stream.ended.is_none()) {
            match news.recv_timeout(next.saturating_sub(self.begin.elapsed())) {
                Ok(end) => {
                    let index = end.stream;
                    self.streams[index].ended = Some(end);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let now = self.begin.elapsed();
                    report.interval(last, now, &self.advance(now));
                    last = now;
                    next = TICK * (now.as_secs() as u32 + 1);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        let now = self.begin.elapsed();
        let rest = self.advance(now);
        if now - last > TICK / 10 {
            report.interval(last, now, &rest);
        }
    }

    fn advance(&mut self, now: Duration) -> Vec<Span> {
        let sending = client_sends(self.request.direction);
        let mut spans = Vec::new();
        for stream in &mut self.streams {
            let live;
            let subflows = match &stream.ended {
                Some(end) => &end.subflows,
                None => {
                    live = stream.handle.subflows().unwrap_or_default();
                    &live
                }
            };
            let readings = subflows.iter().map(|subflow| Reading::of(subflow, sending, &self.paths)).collect();
            let mut bytes = match &stream.ended {
                // How much of what was written arrived is not known.
                Some(end) if end.verdict.is_err() => 0,
                _ => stream.moved.load(Ordering::Relaxed),
            };
            if stream.ended.is_none() {
                let info = stream.handle.info().ok();
                // What was written but not acknowledged has not been moved yet.
                if let (true, Some(info)) = (sending, &info) {
                    bytes = bytes.min(info.bytes_acked);
                }
                stream.info = info.or(stream.info.take());
            }
            spans.push(stream.progress.advance(now, bytes, readings));
        }
        spans
    }

    /// Reports the results; fails if a connection did.
    fn conclude(self, report: &mut Report) -> anyhow::Result<()> {
        let mut outcomes = Vec::new();
        let mut failure = None;
        for stream in self.streams {
            let Some(end) = stream.ended else { bail!("a stream ended without a result") };
            let (time, verdict) = match end.verdict {
                Ok(Some(verdict)) => (Duration::from_nanos(verdict.nanos), Some(verdict)),
                Ok(None) => (end.time, None),
                Err(error) => {
                    let stream = end.stream;
                    failure = failure.or(Some(error.context(format!("stream {stream}"))));
                    (end.time, None)
                }
            };
            let total = stream.progress.total(time);
            outcomes.push(Outcome { time, total, received_by_peer: verdict.map(|it| it.bytes), info: stream.info });
        }
        report.summary(self.begin.elapsed(), &outcomes);
        match failure {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }
}
