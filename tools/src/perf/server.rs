//! The end that waits.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant};

use anabranch::TcpStream;
use anyhow::{Context as _, anyhow};

use super::ServerArgs;
use super::progress::{Progress, Reading};
use super::protocol::{Direction, Reply, Request, STREAMS_MAX, Verdict};
use super::report::{self, Served};
use super::transfer::{HELLO, IDLE, read_message, receive, send};
use crate::output::Output;
use crate::server::Server;
use crate::stack::{Session, path_names, port_of};

/// Connections at once: some tests of the largest kind.
const CONNECTIONS: usize = 4 * STREAMS_MAX as usize;

/// Between the result and the end of the stream, so that the client can look at its subflows before
/// they are closed. Not part of what is measured.
const LAST_LOOK: Duration = Duration::from_millis(20);

pub(super) fn run(args: ServerArgs, output: &mut Output) -> anyhow::Result<()> {
    let session = Session::start(args.stack, output, Output::new)?;
    let server = Server::new(CONNECTIONS)?;
    let listener = session.listen(args.port)?;
    let paths: Arc<[String]> = path_names(&session.stack).into();
    report::ready(session.output, port_of(&listener)?, &paths);
    let output = session.output;
    server.add("perf", listener, move |connection, stream, peer| {
        match serve(&stream, peer, &paths) {
            Ok(served) => report::served(output, connection, &served),
            Err(error) => {
                tracing::info!(connection, %peer, "{error:#}");
                report::refused(output, connection, peer, &error);
            }
        };
    })?;
    let stopped = server.run(&session.stack)?;
    report::stopped(session.output, stopped);
    Ok(())
}

fn serve(stream: &TcpStream, peer: SocketAddr, paths: &[String]) -> anyhow::Result<Served> {
    let request = read_request(stream)?;
    answer(stream, Reply::Go).context("answering the request")?;
    let begin = Instant::now();
    let moved = AtomicU64::new(0);
    let result = match request.direction {
        Direction::Upload => receive(stream, &moved),
        Direction::Download => send(stream, request.until, &moved),
    };
    let mut time = begin.elapsed();
    let bytes = moved.into_inner();
    result.with_context(|| format!("after {bytes} bytes"))?;
    let subflows = match request.direction {
        Direction::Upload => {
            let subflows = stream.subflows();
            give_verdict(stream, bytes, time).context("reporting the result")?;
            subflows
        }
        // What was written has not left yet; the peer ends its direction when it has everything.
        Direction::Download => {
            wait_for_end(stream).context("waiting for the peer to receive everything")?;
            time = begin.elapsed();
            stream.subflows()
        }
    };
    let mut progress = Progress::new(request.stream);
    let sending = request.direction == Direction::Download;
    let readings = subflows.iter().flatten().map(|subflow| Reading::of(subflow, sending, paths)).collect();
    progress.advance(time, bytes, readings);
    Ok(Served { peer, request, time, span: progress.total(time) })
}

fn read_request(stream: &TcpStream) -> anyhow::Result<Request> {
    let message = read_message(stream, HELLO).context("waiting for the request")?;
    Request::parse(&message).map_err(|malformed| {
        // The peer is told if it can be; either way we are done with it.
        let told = answer(stream, Reply::answer_to(malformed)).and_then(|()| stream.shutdown(Shutdown::Write));
        let told = told.err().map(|error| format!(" (and could not be told: {error})")).unwrap_or_default();
        anyhow!("refused: {malformed}{told}")
    })
}

fn answer(mut stream: &TcpStream, reply: Reply) -> io::Result<()> {
    stream.write_all(&reply.to_bytes())
}

fn give_verdict(mut stream: &TcpStream, bytes: u64, time: Duration) -> io::Result<()> {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    stream.write_all(&Verdict { bytes, nanos }.to_bytes())?;
    thread::sleep(LAST_LOOK);
    stream.shutdown(Shutdown::Write)
}

fn wait_for_end(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    match stream.read(&mut [0; 1])? {
        0 => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the peer sent data that was not asked for")),
    }
}
