use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anabranch_core::{Error, ListenerId, SockOpt, SocketOptions};
use crossbeam_queue::SegQueue;

use crate::conn::{Conn, order};
use crate::error::{stack_is_gone, to_io};
use crate::sync::{Announcement, Gate, spin};
use crate::worker::Handle;
use crate::{Stack, TcpStream};

/// Connections that workers hand over ahead of `accept`. The others wait in the stack, which minds the backlog.
pub(crate) const ACCEPT_AHEAD: usize = 16;

/// Where workers put the connections of one listener, and where `accept` takes them.
#[derive(Debug)]
pub(crate) struct Accepting {
    local: SocketAddr,
    backlog: usize,
    options: Arc<SocketOptions>,
    pub(crate) queue: SegQueue<Arc<Conn>>,
    /// A worker has more and waits for room.
    pub(crate) starved: Announcement,
    pub(crate) gate: Gate,
    /// Listeners of workers that may still have something to accept.
    workers: AtomicUsize,
    closed: AtomicBool,
}

impl Accepting {
    /// The address that was asked for.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(crate) fn options(&self) -> &SocketOptions {
        &self.options
    }

    /// Each worker gets its share of the backlog, and at least one place.
    pub(crate) fn backlog_of_a_worker(&self, workers: usize) -> usize {
        self.backlog.div_ceil(workers).max(1)
    }

    /// A worker ended and will have nothing more to accept.
    pub(crate) fn leave(&self) {
        if self.workers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.close();
        }
    }

    /// Nobody accepts any more, or no worker has anything to accept: what waits is reset.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        while let Some(conn) = self.queue.pop() {
            conn.order(order::ABORT | order::RELEASE);
        }
        self.gate.open();
    }
}

/// A socket that accepts connections, like `std::net::TcpListener`. Made by [`Stack::listen`].
///
/// Dropping its last clone closes it; connections that wait to be accepted are reset.
#[derive(Debug)]
pub struct TcpListener {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    accepting: Arc<Accepting>,
    /// The listeners that stand behind it: one for each worker and family.
    members: Vec<(Arc<Handle>, ListenerId)>,
    nonblocking: AtomicBool,
    stack: Stack,
}

impl TcpListener {
    /// Listens on all workers, at each of `locals`, which differ in their family only.
    pub(crate) fn bind(
        stack: &Stack,
        locals: &[SocketAddr],
        backlog: usize,
        options: Arc<SocketOptions>,
    ) -> io::Result<Self> {
        let workers: Vec<_> = stack.handles().iter().filter(|worker| !worker.ended.stands()).collect();
        let accepting = Arc::new(Accepting {
            local: locals[0],
            backlog,
            options,
            queue: SegQueue::new(),
            starved: Announcement::new(),
            gate: Gate::new(),
            workers: AtomicUsize::new(locals.len() * workers.len()),
            closed: AtomicBool::new(false),
        });
        let mut inner = Inner {
            accepting: Arc::clone(&accepting),
            members: Vec::new(),
            nonblocking: AtomicBool::new(false),
            stack: stack.clone(),
        };
        for &local in locals {
            for &worker in &workers {
                let accepting = Arc::clone(&accepting);
                match worker.ask(move |worker| worker.listen(local, accepting))? {
                    Ok(id) => inner.members.push((Arc::clone(worker), id)),
                    // What was opened before closes when `inner` is dropped.
                    Err(error) => return Err(to_io(error)),
                }
            }
        }
        match inner.members.is_empty() {
            true => Err(stack_is_gone()),
            false => Ok(Self { inner: Arc::new(inner) }),
        }
    }

    /// Waits for a connection and returns it with the peer's address.
    ///
    /// # Errors
    /// `WouldBlock` when nonblocking and none waits; `NotConnected` when the stack was shut down.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        if let Some(result) = self.try_accept() {
            return result;
        }
        if self.inner.nonblocking.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let gate = &self.inner.accepting.gate;
        let accepted = match self.inner.stack.handles() {
            [worker] => worker.wait(gate, None, || self.try_accept()),
            // Any of them may bring a connection.
            [first, ..] => {
                spin(first.busy_poll, || self.try_accept()).or_else(|| gate.wait(None, || self.try_accept()))
            }
            [] => None,
        };
        // Without a deadline the wait ends with a connection or an error.
        accepted.unwrap_or_else(|| Err(stack_is_gone()))
    }

    /// A connection if one waits, an error if none will ever come.
    pub(crate) fn try_accept(&self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        let accepting = &self.inner.accepting;
        // Before the queue is looked at: what came before the end is in the queue when the end is seen.
        let closed = accepting.closed.load(Ordering::Acquire);
        let Some(conn) = accepting.queue.pop() else { return closed.then(|| Err(stack_is_gone())) };
        if accepting.starved.stands() && accepting.queue.len() <= ACCEPT_AHEAD / 2 && accepting.starved.take() {
            for (worker, id) in &self.inner.members {
                let id = *id;
                let _ = worker.command(move |worker| worker.refill_accepting(id));
            }
        }
        let stream = TcpStream::new(conn, self.inner.stack.clone());
        let peer = stream.peer_addr();
        Some(peer.map(|peer| (stream, peer)))
    }

    /// Where to wait for [`try_accept`](Self::try_accept).
    #[cfg(feature = "tokio")]
    pub(crate) fn gate(&self) -> &Gate {
        &self.inner.accepting.gate
    }

    /// Accepts for ever: the iterator never ends, but may yield errors.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Changes an option of the connections that are accepted from now on, for all clones.
    ///
    /// # Errors
    /// `InvalidInput` for a value that it cannot have, `NotConnected` when the stack was shut down.
    pub fn set_option(&self, option: SockOpt) -> io::Result<()> {
        let members = &self.inner.members;
        for ((worker, id), option) in members.iter().zip(std::iter::repeat_n(option, members.len())) {
            let id = *id;
            worker.ask(move |worker| worker.shard.set_listener_option(id, option))?.map_err(to_io)?;
        }
        Ok(())
    }

    /// All options of the connections that are accepted from now on.
    ///
    /// # Errors
    /// `NotConnected` when the stack was shut down.
    pub fn options(&self) -> io::Result<SocketOptions> {
        let (worker, id) = self.inner.members.first().ok_or_else(stack_is_gone)?;
        let id = *id;
        worker.ask(move |worker| worker.shard.listener_options(id).cloned())?.ok_or_else(|| to_io(Error::NotConnected))
    }

    /// The address that it listens on, with the port that was chosen.
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.inner.accepting.local)
    }

    /// Another handle of the same listener.
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { inner: Arc::clone(&self.inner) })
    }

    /// Makes [`accept`](Self::accept) return `WouldBlock` instead of waiting, for all clones.
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.inner.nonblocking.store(nonblocking, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for (worker, id) in std::mem::take(&mut self.members) {
            let accepting = Arc::clone(&self.accepting);
            // Reset what waits only when the worker adds nothing more.
            let _ = worker.command(move |worker| {
                worker.close_listener(id);
                accepting.close();
            });
        }
    }
}

/// Connections as they come, see [`TcpListener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}
