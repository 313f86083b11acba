use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use anabranch_core::config::Keepalive;
use anabranch_core::{ConnInfo, SubflowInfo};

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
    _todo: (),
}

impl TcpStream {
    /// The peer's address, that of the first subflow.
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        todo!()
    }

    /// Our address, that of the first subflow.
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        todo!()
    }

    /// Shuts down reading, writing or both. What was written before is still sent.
    ///
    /// # Errors
    /// `NotConnected` when the connection is over.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        todo!()
    }

    /// Another handle of the same connection.
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn try_clone(&self) -> io::Result<Self> {
        todo!()
    }

    /// Ends the connection at once, for all clones: MP_FASTCLOSE, or RST on plain TCP. What was not
    /// sent yet is lost; the peer reads `ConnectionReset`, and so do we (`ConnectionAborted`).
    pub fn abort(&self) {
        todo!()
    }

    /// Lets reads give up with `WouldBlock` after this long; `None` waits for ever.
    ///
    /// # Errors
    /// `InvalidInput` for zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        todo!()
    }

    /// Lets writes give up with `WouldBlock` after this long; `None` waits for ever.
    ///
    /// # Errors
    /// `InvalidInput` for zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        todo!()
    }

    /// See [`set_read_timeout`](Self::set_read_timeout).
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        todo!()
    }

    /// See [`set_write_timeout`](Self::set_write_timeout).
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        todo!()
    }

    /// Makes reads and writes return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        todo!()
    }

    /// Switches Nagle's algorithm off or on.
    ///
    /// # Errors
    /// `NotConnected` when the connection is over.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        todo!()
    }

    /// Whether Nagle's algorithm is off.
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn nodelay(&self) -> io::Result<bool> {
        todo!()
    }

    /// Sets or clears keepalive probes.
    ///
    /// # Errors
    /// `NotConnected` when the connection is over.
    pub fn set_keepalive(&self, keepalive: Option<Keepalive>) -> io::Result<()> {
        todo!()
    }

    /// Like `read`, but leaves the bytes to be read again.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        todo!()
    }

    /// The connection's error, if there is one that nobody was told of yet.
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        todo!()
    }

    /// What can be known of the connection.
    ///
    /// # Errors
    /// `NotConnected` when the stack was shut down.
    pub fn info(&self) -> io::Result<ConnInfo> {
        todo!()
    }

    /// What can be known of its subflows.
    ///
    /// # Errors
    /// `NotConnected` when the stack was shut down.
    pub fn subflows(&self) -> io::Result<Vec<SubflowInfo>> {
        todo!()
    }

    /// Changes the packet scheduler of the live connection.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown name, `NotConnected` when the connection is over.
    pub fn set_scheduler(&self, name: &str) -> io::Result<()> {
        todo!()
    }

    /// Asks the peer (MP_PRIO) to use, or not to use, a subflow as a backup.
    ///
    /// # Errors
    /// `NotConnected` if there is no such subflow.
    pub fn set_backup(&self, subflow: u8, backup: bool) -> io::Result<()> {
        todo!()
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        todo!()
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        todo!()
    }
}

impl Write for &TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        todo!()
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        todo!()
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
