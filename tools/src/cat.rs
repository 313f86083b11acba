//! `anabranch cat`: standard input to the peer, the peer to standard output.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anabranch::TcpStream;
use anyhow::{Context as _, anyhow};
use serde::Serialize;

use crate::addresses;
use crate::format::{Bytes, Rate};
use crate::options::StackArgs;
use crate::output::Output;
use crate::stack::{GRACE, Session, port_of, shut_down};

/// Bytes moved in one go.
const CHUNK: usize = 256 * 1024;

const EXAMPLES: &str = "\
Examples:
  Talk to a service of the kernel at the other end of a TUN interface:
    anabranch cat 10.9.0.1 7 --path tun:ab0,addr=10.9.0.2/24,host=10.9.0.1

  Receive a file, and send one from the kernel's side with any netcat:
    anabranch cat -l 5000 --path tun:ab0,addr=10.9.0.2/24,host=10.9.0.1 > copy
    nc -N 10.9.0.2 5000 < file

Standard output carries the peer's bytes only; with --json the events go to standard error.
The exit code is 0 only when both directions ended in good order.";

/// Netcat: standard input to the peer, the peer to standard output.
///
/// The end of standard input ends our direction of the stream (half-close); the other one goes on
/// until the peer ends it.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The peer: an IPv4 or IPv6 address, with or without brackets, or a name (the system resolves it).
    #[arg(value_name = "ADDR", required_unless_present = "listen", requires = "port")]
    addr: Option<String>,
    /// The peer's port.
    #[arg(value_name = "PORT")]
    port: Option<u16>,
    /// Waits for one connection on PORT instead of opening one; port 0 chooses one.
    #[arg(short, long, value_name = "PORT", conflicts_with_all = ["addr", "port"])]
    listen: Option<u16>,
    /// Gives up connecting after this long.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    stack: StackArgs,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event {
    Ready { port: u16 },
    Connected { local: SocketAddr, peer: SocketAddr, mptcp: bool },
    Closed { seconds: f64, bytes_sent: u64, bytes_received: u64 },
}

/// News from the threads that do the work.
enum News {
    /// Standard input ended; so many bytes were sent.
    Sent(u64),
    /// The peer's stream ended; so many bytes were received.
    Received(u64),
    Failed(anyhow::Error),
}

pub(crate) fn run(args: Args, output: &mut Output) -> anyhow::Result<()> {
    let addrs = match (&args.addr, args.port) {
        (Some(host), Some(port)) => addresses::resolve(host, port)?,
        _ => Vec::new(),
    };
    let session = Session::start(args.stack, output, Output::beside_data)?;
    let signalled = session.abort_on_signal()?;
    let stream = match (args.listen, &args.addr) {
        (Some(port), _) => accept(&session, port),
        (None, host) => session.connect(host.as_deref().unwrap_or_default(), &addrs, args.timeout),
    };
    match stream.and_then(|stream| converse(&session, stream)) {
        Ok(()) => shut_down(&session.stack, GRACE)
            .context("the peer did not acknowledge the end of the stream")
            .map_err(|error| signalled.explain(error)),
        Err(error) => {
            // The peer shall hear that this was no good end.
            session.stack.shutdown(Duration::ZERO);
            Err(signalled.explain(error))
        }
    }
}

fn accept(session: &Session, port: u16) -> anyhow::Result<TcpStream> {
    let listener = session.listen(port)?;
    let port = port_of(&listener)?;
    tracing::info!("listening on port {port}");
    session.output.event(&Event::Ready { port });
    // The listener goes with the first connection: further ones are refused.
    Ok(listener.accept().context("cannot accept")?.0)
}

fn converse(session: &Session, stream: TcpStream) -> anyhow::Result<()> {
    let (tell, news) = mpsc::channel();
    let begin = Instant::now();
    let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
    let mptcp = stream.info().is_ok_and(|info| info.mptcp);
    tracing::info!(%local, %peer, mptcp, "connected");
    session.output.event(&Event::Connected { local, peer, mptcp });

    let writer = stream.try_clone()?;
    spawn("sender", &tell, move || send(descriptor(rustix::stdio::stdin())?, &writer).map(News::Sent))?;
    spawn("receiver", &tell, move || receive(&stream, descriptor(rustix::stdio::stdout())?).map(News::Received))?;

    let (mut sent, mut received) = (None, None);
    while sent.is_none() || received.is_none() {
        match news.recv().context("nobody has news")? {
            News::Sent(bytes) => sent = Some(bytes),
            News::Received(bytes) => received = Some(bytes),
            News::Failed(error) => return Err(error),
        }
    }
    let (sent, received, time) = (sent.unwrap_or(0), received.unwrap_or(0), begin.elapsed());
    let rates = [Rate::of(sent, time), Rate::of(received, time)];
    tracing::info!("sent {} ({}), received {} ({})", Bytes(sent), rates[0], Bytes(received), rates[1]);
    session.output.event(&Event::Closed { seconds: time.as_secs_f64(), bytes_sent: sent, bytes_received: received });
    Ok(())
}

/// Runs `work` on a thread of its own. It cannot be joined: reading from a terminal has no end.
fn spawn(
    name: &str,
    tell: &Sender<News>,
    work: impl FnOnce() -> anyhow::Result<News> + Send + 'static,
) -> anyhow::Result<()> {
    let tell = tell.clone();
    // What `work` holds of the connection is dropped before its news is told. Nobody listens to it
    // any more after a failure of the other direction.
    let run = move || drop(tell.send(work().unwrap_or_else(News::Failed)));
    thread::Builder::new().name(name.into()).spawn(run).context("cannot start a thread")?;
    Ok(())
}

/// The descriptor without the standard library's buffer around it.
fn descriptor(fd: BorrowedFd<'_>) -> anyhow::Result<File> {
    Ok(File::from(fd.as_fd().try_clone_to_owned().context("cannot use a standard descriptor")?))
}

fn send(mut input: impl Read, mut stream: &TcpStream) -> anyhow::Result<u64> {
    let bytes = copy(|buffer| input.read(buffer), |bytes| stream.write_all(bytes)).map_err(|fault| match fault {
        Fault::Read(error) => anyhow!("standard input: {error}"),
        Fault::Write(error) => anyhow!("sending: {error}"),
    })?;
    stream.shutdown(Shutdown::Write).context("sending the end of the stream")?;
    Ok(bytes)
}

fn receive(mut stream: &TcpStream, mut sink: impl Write) -> anyhow::Result<u64> {
    let bytes = copy(|buffer| stream.read(buffer), |bytes| sink.write_all(bytes)).map_err(|fault| match fault {
        Fault::Read(error) => anyhow!("receiving: {error}"),
        Fault::Write(error) => anyhow!("standard output: {error}"),
    })?;
    sink.flush().context("standard output")?;
    Ok(bytes)
}

/// Which side of a copy failed.
#[derive(Debug)]
enum Fault {
    Read(io::Error),
    Write(io::Error),
}

/// Moves bytes until `read` returns none, and says how many.
fn copy(
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<u64, Fault> {
    let mut buffer = vec![0; CHUNK];
    let mut moved = 0;
    loop {
        let bytes = match read(&mut buffer) {
            Ok(0) => return Ok(moved),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Fault::Read(error)),
        };
        write(&buffer[..bytes]).map_err(Fault::Write)?;
        moved += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_counts_and_survives_interruptions() {
        let mut reads = vec![Ok(3), Err(io::ErrorKind::Interrupted.into()), Ok(4), Ok(0)].into_iter();
        let mut written = 0;
        let moved = copy(
            |_| reads.next().unwrap_or(Ok(0)),
            |bytes| {
                written += bytes.len();
                Ok(())
            },
        )
        .unwrap();
        assert_eq!((moved, written), (7, 7));
    }

    #[test]
    fn a_copy_says_which_side_failed() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(matches!(copy(|_| Err(broken()), |_| Ok(())), Err(Fault::Read(_))));
        assert!(matches!(copy(|_| Ok(1), |_| Err(broken())), Err(Fault::Write(_))));
    }
}
