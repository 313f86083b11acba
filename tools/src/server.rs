//! Servers: a thread for each listener and each connection, as many connections as allowed, an end.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anabranch::{Stack, TcpListener, TcpStream};
use anyhow::Context as _;

use crate::signals;
use crate::stack::{GRACE, port_of};

/// Threads that wait for connections of one listener, at most: further ones end when their connection has.
const ACCEPTING_MAX: usize = 16;

/// A server of any number of listeners, until a signal ends it.
#[derive(Debug)]
pub(crate) struct Server {
    connections: Arc<Connections>,
    tell: Sender<End>,
    ended: Receiver<End>,
}

/// Why a server ends.
#[derive(Debug)]
enum End {
    Signal(&'static str),
    Broken(anyhow::Error),
}

/// How a server ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stopped {
    /// The signal that ended it.
    pub(crate) signal: &'static str,
    /// No connection had to be aborted.
    pub(crate) clean: bool,
}

impl Server {
    /// At most `limit` connections are served at once: further ones wait in the backlogs of their listeners.
    pub(crate) fn new(limit: usize) -> anyhow::Result<Self> {
        let (tell, ended) = mpsc::channel();
        let interrupted = tell.clone();
        signals::on_stop(move |signal| drop(interrupted.send(End::Signal(signal))))?;
        Ok(Self { connections: Connections::new(limit), tell, ended })
    }

    /// Serves every connection of `listener` by `handler`, each on its own thread. The handler is
    /// given the connection's number, which is no other's. `name` is what is served.
    pub(crate) fn add(
        &self,
        name: &str,
        listener: TcpListener,
        handler: impl Fn(u64, TcpStream, SocketAddr) + Send + Sync + 'static,
    ) -> anyhow::Result<()> {
        let port = port_of(&listener)?;
        let crew = Arc::new(Crew {
            name: format!("{name}-{port}"),
            title: format!("{name} on port {port}"),
            listener,
            handler,
            accepting: AtomicUsize::new(0),
            connections: Arc::clone(&self.connections),
            tell: self.tell.clone(),
        });
        crew.add_thread().context("cannot start a thread")
    }

    /// Waits for the signal that ends the server, and gives connections time to close.
    ///
    /// # Errors
    /// A listener broke.
    pub(crate) fn run(self, stack: &Stack) -> anyhow::Result<Stopped> {
        let end = self.ended.recv().context("every listener has ended")?;
        self.connections.stop();
        match end {
            End::Signal(signal) => {
                tracing::info!("{signal}: closing");
                // Whoever did not close in time was told so by a reset: that is no failure of the server.
                let clean = stack.shutdown(GRACE);
                if !clean {
                    tracing::info!("connections that had not closed after {GRACE:?} were aborted");
                }
                Ok(Stopped { signal, clean })
            }
            End::Broken(error) => {
                stack.shutdown(Duration::from_millis(500));
                Err(error)
            }
        }
    }
}

/// The threads of one listener. Who has accepted a connection serves it, too, after it made sure that another one accepts:
/// a connection costs no new thread, and no change of threads.
struct Crew<H> {
    name: String,
    title: String,
    listener: TcpListener,
    handler: H,
    /// Threads that accept or are about to.
    accepting: AtomicUsize,
    connections: Arc<Connections>,
    tell: Sender<End>,
}

impl<H: Fn(u64, TcpStream, SocketAddr) + Send + Sync + 'static> Crew<H> {
    fn add_thread(self: &Arc<Self>) -> io::Result<()> {
        let crew = Arc::clone(self);
        self.accepting.fetch_add(1, Ordering::Relaxed);
        let started = thread::Builder::new().name(self.name.clone()).spawn(move || crew.work());
        if started.is_err() {
            self.accepting.fetch_sub(1, Ordering::Relaxed);
        }
        started.map(drop)
    }

    /// Accepts and serves connections until the server stops, the listener breaks, or others enough do.
    fn work(self: &Arc<Self>) {
        while let Some(mut seat) = self.connections.wait_for_seat() {
            let accepted = self.listener.accept().and_then(|(stream, peer)| Ok((seat.take(&stream)?, stream, peer)));
            let (number, stream, peer) = match accepted {
                Ok((Some(number), stream, peer)) => (number, stream, peer),
                Ok((None, ..)) => break,
                Err(_) if self.connections.lock().stopping => break,
                Err(error) => {
                    let error = anyhow::Error::new(error).context(format!("{} cannot accept any more", self.title));
                    // The main thread has ended before us if this fails.
                    let _ = self.tell.send(End::Broken(error));
                    break;
                }
            };
            if self.accepting.fetch_sub(1, Ordering::Relaxed) == 1
                && let Err(error) = self.add_thread()
            {
                tracing::warn!("{} accepts nothing until {peer} is served: {error}", self.title);
            }
            (self.handler)(number, stream, peer);
            drop(seat);
            if self.accepting.fetch_add(1, Ordering::Relaxed) >= ACCEPTING_MAX {
                break;
            }
        }
        self.accepting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections of a server that are being served.
#[derive(Debug)]
struct Connections {
    limit: usize,
    live: Mutex<Live>,
    /// One ended, or the server is stopping.
    left: Condvar,
}

#[derive(Debug, Default)]
struct Live {
    stopping: bool,
    next: u64,
    /// Accepted or about to be.
    taken: usize,
    streams: HashMap<u64, TcpStream>,
}

/// A place for one connection; it is free again when this is dropped.
#[derive(Debug)]
struct Seat {
    connections: Arc<Connections>,
    number: Option<u64>,
}

impl Connections {
    fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), live: Mutex::default(), left: Condvar::new() })
    }

    /// Accepts no more and ends our side of the connections there are, in good order.
    fn stop(&self) {
        let streams: Vec<_> = {
            let mut live = self.lock();
            live.stopping = true;
            live.streams.drain().map(|(_, stream)| stream).collect()
        };
        self.left.notify_all();
        for stream in streams {
            // One that is over already need not be ended.
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    fn wait_for_seat(self: &Arc<Self>) -> Option<Seat> {
        let mut live = self.lock();
        while live.taken >= self.limit && !live.stopping {
            live = self.left.wait(live).unwrap_or_else(PoisonError::into_inner);
        }
        if live.stopping {
            return None;
        }
        live.taken += 1;
        Some(Seat { connections: Arc::clone(self), number: None })
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Gives the seat to a connection and returns its number; `None` if the server is stopping.
    fn take(&mut self, stream: &TcpStream) -> io::Result<Option<u64>> {
        let clone = stream.try_clone()?;
        let mut live = self.connections.lock();
        if live.stopping {
            return Ok(None);
        }
        let number = live.next;
        live.next += 1;
        live.streams.insert(number, clone);
        self.number = Some(number);
        Ok(Some(number))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut live = self.connections.lock();
        live.taken -= 1;
        let stream = self.number.and_then(|number| live.streams.remove(&number));
        drop(live);
        self.connections.left.notify_all();
        // Closing it may take a moment: not under the lock.
        drop(stream);
    }
}
