use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anabranch_core::{ConnId, ConnInfo, Error, SockOpt, SocketOptions, SubflowInfo};
use smallvec::SmallVec;

use crate::Stack;
use crate::conn::{Conn, order};
use crate::error::to_io;
use crate::worker::Worker;

/// A connection, like `std::net::TcpStream`: made by [`Stack::connect`](crate::Stack::connect) or
/// [`TcpListener::accept`](crate::TcpListener::accept).
///
/// It may be read, written, cloned and shared by any number of threads at once. Timeouts, nonblocking mode and
/// every other setting belong to the connection, not to the clone.
///
/// An error of the connection (a reset, a timeout) is reported once, by whatever reads, writes or
/// [takes](Self::take_error) it first, after the bytes that came before it have been read. From then on reads return 0
/// and writes fail with `BrokenPipe`, as with kernel sockets.
#[derive(Debug)]
pub struct TcpStream {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    conn: Arc<Conn>,
    stack: Stack,
}

impl Drop for Inner {
    fn drop(&mut self) {
        match self.conn.connect_result() {
            Some(_) => {
                self.conn.linger();
                self.conn.order(order::RELEASE);
            }
            // Nobody waits for the handshake any more.
            None => self.conn.order(order::ABORT | order::RELEASE),
        }
    }
}

impl TcpStream {
    pub(crate) fn new(conn: Arc<Conn>, stack: Stack) -> Self {
        Self { inner: Arc::new(Inner { conn, stack }) }
    }

    pub(crate) fn conn(&self) -> &Arc<Conn> {
        &self.inner.conn
    }

    /// Another handle of the same connection.
    pub(crate) fn share(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }

    /// Takes bytes without waiting.
    pub(crate) fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.conn().try_write(buf, self.inner.stack.buffers())
    }

    /// Runs `question` on the connection's worker.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Worker, ConnId) -> T + Send + 'static,
    ) -> io::Result<T> {
        let conn = Arc::clone(self.conn());
        let answer = self.conn().worker().ask(move |worker| {
            let id = worker.id_of(&conn)?;
            Some(question(worker, id))
        })?;
        answer.ok_or_else(|| to_io(Error::NotConnected))
    }
}

impl TcpStream {
    /// The peer's address, that of the first subflow.
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.conn().addrs().map(|(_, remote)| remote).ok_or_else(|| to_io(Error::NotConnected))
    }

    /// Our address, that of the first subflow.
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.conn().addrs().map(|(local, _)| local).ok_or_else(|| to_io(Error::NotConnected))
    }

    /// Shuts down reading, writing or both. What was written before is still sent.
    ///
    /// # Errors
    /// `NotConnected` when the connection is over.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let conn = self.conn();
        if conn.is_closed() {
            return Err(to_io(Error::NotConnected));
        }
        if how != Shutdown::Write {
            conn.order(order::SHUT_READ);
        }
        if how != Shutdown::Read {
            conn.order_shut_write();
        }
        Ok(())
    }

    /// Another handle of the same connection.
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(self.share())
    }

    /// Ends the connection at once, for all clones: MP_FASTCLOSE, or RST on plain TCP. What was not
    /// sent yet is lost; the peer reads `ConnectionReset`, and so do we (`ConnectionAborted`).
    pub fn abort(&self) {
        self.conn().order(order::ABORT);
    }

    /// Lets reads give up with `WouldBlock` after this long; `None` waits for ever.
    ///
    /// # Errors
    /// `InvalidInput` for zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.conn().settings.read_timeout().store(timeout)
    }

    /// Lets writes give up with `WouldBlock` after this long; `None` waits for ever.
    ///
    /// # Errors
    /// `InvalidInput` for zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.conn().settings.write_timeout().store(timeout)
    }

    /// See [`set_read_timeout`](Self::set_read_timeout).
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.conn().settings.read_timeout().load())
    }

    /// See [`set_write_timeout`](Self::set_write_timeout).
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.conn().settings.write_timeout().load())
    }

    /// Makes reads and writes return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.conn().settings.nonblocking.store(nonblocking, Ordering::Relaxed);
        Ok(())
    }

    /// Changes an option of the connection.
    ///
    /// # Errors
    /// `InvalidInput` for a value that it cannot have, or not on a live connection; `NotConnected` when the
    /// connection is over.
    pub fn set_option(&self, option: SockOpt) -> io::Result<()> {
        let options = self.ask(move |worker, id| {
            worker.shard.set_option(worker.now(), id, option)?;
            worker.shard.options(id).ok_or(Error::NotConnected)
        })?;
        self.conn().settings.note(&options.map_err(to_io)?);
        Ok(())
    }

    /// All options of the connection, as they are now.
    ///
    /// # Errors
    /// `NotConnected` when the connection is over.
    pub fn options(&self) -> io::Result<SocketOptions> {
        self.ask(|worker, id| worker.shard.options(id))?.ok_or_else(|| to_io(Error::NotConnected))
    }

    /// Switches Nagle's algorithm off or on.
    ///
    /// # Errors
    /// Those of [`set_option`](Self::set_option).
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.set_option(SockOpt::Nodelay(nodelay))
    }

    /// Whether Nagle's algorithm is off.
    ///
    /// # Errors
    /// Those of [`options`](Self::options).
    pub fn nodelay(&self) -> io::Result<bool> {
        Ok(self.options()?.nodelay)
    }

    /// Says what happens when the last handle is dropped: `None`: what was written is sent behind the application's back;
    /// zero: the connection is reset; otherwise dropping waits so long for everything to be acknowledged.
    ///
    /// # Errors
    /// Those of [`set_option`](Self::set_option).
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        self.set_option(SockOpt::Linger(linger))
    }

    /// See [`set_linger`](Self::set_linger).
    ///
    /// # Errors
    /// Those of [`options`](Self::options).
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        Ok(self.options()?.linger)
    }

    /// Like `read`, but leaves the bytes to be read again.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        let conn = self.conn();
        conn.block_on_read(|| conn.try_peek(buf))
    }

    /// The connection's error, if there is one that nobody was told of yet.
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.conn().take_error())
    }

    /// What can be known of the connection.
    ///
    /// # Errors
    /// `NotConnected` when the stack was shut down.
    pub fn info(&self) -> io::Result<ConnInfo> {
        self.ask(|worker, id| worker.shard.info(id))?.ok_or_else(|| to_io(Error::NotConnected))
    }

    /// What can be known of its subflows.
    ///
    /// # Errors
    /// `NotConnected` when the stack was shut down.
    pub fn subflows(&self) -> io::Result<Vec<SubflowInfo>> {
        let subflows = self.ask(|worker, id| worker.shard.subflows(id))?;
        subflows.map(SmallVec::into_vec).ok_or_else(|| to_io(Error::NotConnected))
    }

    /// Uses a subflow only when no other works, or no longer so, and asks the peer (MP_PRIO) to do the same.
    ///
    /// # Errors
    /// `NotConnected` if there is no such subflow.
    pub fn set_backup(&self, subflow: u8, backup: bool) -> io::Result<()> {
        self.ask(move |worker, id| worker.shard.set_backup(worker.now(), id, subflow, backup))?.map_err(to_io)
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let conn = self.conn();
        conn.block_on_read(|| conn.try_read(&mut [&mut *buf]))
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let conn = self.conn();
        let mut bufs: SmallVec<[&mut [u8]; 8]> = bufs.iter_mut().map(|buf| &mut **buf).collect();
        conn.block_on_read(|| conn.try_read(&mut bufs))
    }
}

impl Write for &TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let conn = self.conn();
        conn.block_on_write(|| self.try_write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = 0;
        for buf in bufs {
            // The first one may wait, the others take what room is left.
            let result = if taken == 0 { self.write(buf) } else { self.try_write(buf) };
            match result {
                Ok(n) if n == buf.len() => taken += n,
                Ok(n) => return Ok(taken + n),
                Err(error) if taken == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl Write for TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
