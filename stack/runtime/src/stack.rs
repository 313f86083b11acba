use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anabranch_core::{ConnInfo, Counters, Error, Sizes, SocketOptions, SubflowInfo, WorkerId};
use parking_lot::Mutex;

use crate::buffers::WriteBuffers;
use crate::conn::Conn;
use crate::error::{stack_is_gone, to_io};
use crate::opener::OpenerSeat;
use crate::paths::Registry;
use crate::worker::{Handle, Opening};
use crate::{Builder, TcpListener, TcpStream};

/// How many connections may wait to be accepted if nobody says otherwise, as in std.
const BACKLOG: usize = 128;
/// Ports that the stack gives listeners that ask for port 0.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// A running stack: its paths and its workers. A handle; clones are cheap and mean the same stack.
#[derive(Clone, Debug)]
pub struct Stack {
    shared: Arc<Shared>,
}

/// What a stack's handles and sockets share. When it is dropped, the workers drain.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) handles: Arc<[Arc<Handle>]>,
    pub(crate) threads: Mutex<Vec<JoinHandle<usize>>>,
    pub(crate) options: Mutex<SocketOptions>,
    pub(crate) paths: Arc<Registry>,
    pub(crate) opener: Mutex<OpenerSeat>,
    pub(crate) linger: Duration,
    pub(crate) buffers: WriteBuffers,
    /// Counts connections opened, to spread them over the workers.
    pub(crate) next_worker: AtomicUsize,
    /// Connections that were aborted by a shutdown.
    pub(crate) aborted: AtomicUsize,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let linger = self.linger;
        for worker in &*self.handles {
            // An error says that it has ended already.
            let _ = worker.command(move |worker| worker.drain(linger));
        }
    }
}

/// How [`Stack::connect_with`] opens a connection.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Our address, our port or both; an unspecified address or port 0 leaves that part to the stack.
    pub local: Option<SocketAddr>,
    /// Give up after this long; `None` for the retransmission limit of the SYN.
    pub timeout: Option<Duration>,
    /// `None` for the stack's defaults.
    pub options: Option<SocketOptions>,
}

/// A connection in a list of them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Connection {
    /// The worker that it lives on.
    pub worker: WorkerId,
    /// What is known of it.
    pub info: ConnInfo,
    /// What is known of its subflows.
    pub subflows: Vec<SubflowInfo>,
}

/// What a worker has done since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Turns of its loop.
    pub turns: u64,
    /// How often it found nothing to do and slept.
    pub sleeps: u64,
    /// How often another thread had to wake it with a system call.
    pub wakeups: u64,
    /// Packets from other workers that were dropped because its mailbox was full.
    pub mail_dropped: u64,
    /// Packets to send that were dropped because a device stayed full, was down or gone.
    pub transmit_dropped: u64,
}

/// A worker as it is now.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// Its number.
    pub worker: WorkerId,
    /// Whether it works. One that has ended before the stack was shut down has failed; its connections are lost, and the
    /// others do what it had to do.
    pub alive: bool,
    /// What it has done.
    pub stats: WorkerStats,
    /// What its tables hold; nothing if it has ended.
    pub sizes: Sizes,
    /// What its part of the stack has counted; nothing if it has ended.
    pub counters: Counters,
    /// What other workers have handed to it and it has not looked at yet.
    pub mail_waiting: usize,
}

impl Stack {
    /// Says what a stack shall be.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Listens with the stack's options and a backlog of 128, as `std::net::TcpListener::bind` does.
    ///
    /// Port 0 chooses a free one. An unspecified address means all addresses of the stack: `0.0.0.0` those of
    /// IPv4, `[::]` those of both families (an IPv4 peer is shown with its IPv4 address).
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, `NotConnected` when the stack was shut down, and those of name
    /// resolution.
    pub fn listen(&self, addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        self.listen_with(addr, BACKLOG, self.socket_options())
    }

    /// Listens. `backlog` connections may wait to be accepted; `options` are those of the accepted connections.
    ///
    /// # Errors
    /// Those of [`listen`](Self::listen), and `InvalidInput` for an unknown name in `options`.
    pub fn listen_with(
        &self,
        addr: impl ToSocketAddrs,
        backlog: usize,
        options: SocketOptions,
    ) -> io::Result<TcpListener> {
        let options = Arc::new(options);
        each_address(addr, |addr| self.listen_on(addr, backlog, &options))
    }

    /// Opens a connection with the stack's options, trying the addresses of a name one after the other.
    ///
    /// # Errors
    /// `ConnectionRefused`, `TimedOut`, `NetworkUnreachable`, `AddrNotAvailable` when no port is free,
    /// `NotConnected` when the stack was shut down, and those of name resolution.
    pub fn connect(&self, addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        each_address(addr, |addr| self.connect_with(addr, ConnectOptions::default()))
    }

    /// Like [`connect`](Self::connect), for one address, giving up after `timeout`.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect), `TimedOut` after `timeout`, `InvalidInput` if it is zero.
    pub fn connect_timeout(&self, addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        self.connect_with(*addr, ConnectOptions { timeout: Some(timeout), ..ConnectOptions::default() })
    }

    /// Opens a connection to one address.
    ///
    /// # Errors
    /// Those of [`connect_timeout`](Self::connect_timeout); `AddrInUse` and `AddrNotAvailable` for
    /// `connect.local`, `InvalidInput` for an unknown name in `connect.options`.
    pub fn connect_with(&self, addr: SocketAddr, connect: ConnectOptions) -> io::Result<TcpStream> {
        let deadline = match connect.timeout {
            Some(Duration::ZERO) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot set a timeout of zero"));
            }
            timeout => timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        };
        let stream = self.start_connect(addr, connect)?;
        let conn = stream.conn();
        match conn.worker().wait(&conn.tx_gate, deadline, || conn.connect_result()) {
            Some(result) => result.map(|()| stream),
            None => Err(io::Error::new(io::ErrorKind::TimedOut, "connection timed out")),
        }
    }

    /// What sockets are opened with unless they say otherwise.
    #[must_use]
    pub fn socket_options(&self) -> SocketOptions {
        self.shared.options.lock().clone()
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.shared.handles.len()
    }

    /// Counts since the start, over all workers.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for counters in self.handles().iter().filter_map(|worker| worker.ask(|worker| worker.counters()).ok()) {
            sum.merge(&counters);
        }
        sum
    }

    /// The connections that sockets of this process hold, at one moment for each worker.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        let of_worker = |handle: &Arc<Handle>| {
            let known = handle.ask(|worker| worker.connections()).unwrap_or_default();
            let worker = handle.id;
            known.into_iter().map(move |(info, subflows)| Connection { worker, info, subflows })
        };
        self.handles().iter().flat_map(of_worker).collect()
    }

    /// Shuts the stack down. Listeners close and nothing new is opened; connections go on until their
    /// sockets are dropped and they have closed in good order. What is left after `timeout` is
    /// aborted (MP_FASTCLOSE, RST). Returns when the workers have ended: `true` if nothing
    /// had to be aborted. Sockets that still exist give errors from then on.
    pub fn shutdown(&self, timeout: Duration) -> bool {
        for worker in self.handles() {
            // An error says that it has ended already.
            let _ = worker.command(move |worker| worker.drain(timeout));
        }
        // Held until they have ended: a second caller waits, too.
        let mut threads = self.shared.threads.lock();
        for thread in threads.drain(..) {
            // A worker that panicked took its connections with it.
            let aborted = thread.join().unwrap_or(1);
            self.shared.aborted.fetch_add(aborted, Ordering::Relaxed);
        }
        self.shared.opener.lock().end();
        self.shared.aborted.load(Ordering::Relaxed) == 0
    }

    /// What each worker has done since its start.
    #[must_use]
    pub fn worker_stats(&self) -> Vec<WorkerStats> {
        self.handles().iter().map(|worker| worker.stats.read()).collect()
    }

    /// The workers as they are now, by their numbers.
    #[must_use]
    pub fn worker_info(&self) -> Vec<WorkerInfo> {
        let info = |worker: &Arc<Handle>| {
            let account = worker.ask(|worker| worker.account()).ok();
            let (sizes, counters) = account.unwrap_or_default();
            let (stats, mail_waiting) = (worker.stats.read(), worker.mail.len());
            WorkerInfo { worker: worker.id, alive: account.is_some(), stats, sizes, counters, mail_waiting }
        };
        self.handles().iter().map(info).collect()
    }

    // --- for the crate ---------------------------------------------------------------------------

    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn add_thread(&self, thread: JoinHandle<usize>) {
        self.shared.threads.lock().push(thread);
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn handles(&self) -> &[Arc<Handle>] {
        &self.shared.handles
    }

    pub(crate) fn buffers(&self) -> &WriteBuffers {
        &self.shared.buffers
    }

    /// Begins to open a connection. The stream is not to be given to anybody before its connection says that
    /// it is there; dropping it gives the attempt up.
    pub(crate) fn start_connect(&self, remote: SocketAddr, connect: ConnectOptions) -> io::Result<TcpStream> {
        let worker = match connect.local.filter(|local| local.port() != 0) {
            // Only one worker knows whether the port is in use.
            Some(local) => self.next_worker()?.ask(move |worker| worker.opener(local, remote))?,
            None => Arc::clone(self.next_worker()?),
        };
        let options = connect.options.unwrap_or_else(|| self.socket_options());
        let conn = Conn::new(Arc::clone(&worker), &options);
        let opening = Opening::new(Arc::clone(&conn));
        worker.command(move |worker| opening.open(worker, connect.local, remote, &options))?;
        Ok(TcpStream::new(conn, self.clone()))
    }

    /// The workers in turn, as long as they are there.
    fn next_worker(&self) -> io::Result<&Arc<Handle>> {
        let first = self.shared.next_worker.fetch_add(1, Ordering::Relaxed);
        let all = self.handles();
        let mut in_turn = (0..all.len()).map(|step| &all[first.wrapping_add(step) % all.len()]);
        in_turn.find(|worker| !worker.ended.stands()).ok_or_else(stack_is_gone)
    }

    fn listen_on(&self, addr: SocketAddr, backlog: usize, options: &Arc<SocketOptions>) -> io::Result<TcpListener> {
        if addr.port() != 0 {
            return TcpListener::bind(self, &families(addr), backlog, Arc::clone(options));
        }
        let count = u32::from(EPHEMERAL.end() - EPHEMERAL.start()) + 1;
        let first = getrandom::u32().map_err(io::Error::other)? % count;
        for step in 0..count {
            let port = EPHEMERAL.start() + ((first + step) % count) as u16;
            let addr = SocketAddr::new(addr.ip(), port);
            match TcpListener::bind(self, &families(addr), backlog, Arc::clone(options)) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                result => return result,
            }
        }
        Err(to_io(Error::AddrInUse(addr)))
    }
}

/// The addresses to listen on for `addr`: the unspecified one of IPv6 stands for both families.
fn families(addr: SocketAddr) -> Vec<SocketAddr> {
    match addr.ip() {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => vec![addr, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), addr.port())],
        _ => vec![addr],
    }
}

/// Tries the addresses of a name one after the other, like std.
fn each_address<T>(addr: impl ToSocketAddrs, mut attempt: impl FnMut(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let mut last = None;
    for addr in addr.to_socket_addrs()? {
        match attempt(addr) {
            Ok(done) => return Ok(done),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the name has no address")))
}
