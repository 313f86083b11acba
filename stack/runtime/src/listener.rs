use std::io;
use std::net::SocketAddr;

use crate::TcpStream;

/// A socket that accepts connections, like `std::net::TcpListener`. Made by [`Stack::listen`](crate::Stack::listen).
///
/// Dropping its last clone closes it; connections that wait to be accepted are reset.
#[derive(Debug)]
pub struct TcpListener {
    _todo: (),
}

impl TcpListener {
    /// Waits for a connection and returns it with the peer's address.
    ///
    /// # Errors
    /// `WouldBlock` when nonblocking and none waits; `NotConnected` when the stack was shut down.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        todo!()
    }

    /// Accepts for ever: the iterator ends never, but yields errors.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// The address that it listens on, with the port that was chosen.
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        todo!()
    }

    /// Another handle of the same listener.
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn try_clone(&self) -> io::Result<Self> {
        todo!()
    }

    /// Makes [`accept`](Self::accept) return `WouldBlock` instead of waiting, for all clones.
    ///
    /// # Errors
    /// None; the signature is that of `std::net`.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        todo!()
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
