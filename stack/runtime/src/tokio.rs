//! Sockets for async programs, like those of `tokio::net`. They work on any executor.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{ConnectOptions, Stack};

/// A connection, like `tokio::net::TcpStream`.
///
/// As with tokio's, each direction wakes only the task that polled it last.
#[derive(Debug)]
pub struct TcpStream {
    inner: crate::TcpStream,
}

impl TcpStream {
    /// Opens a connection with the stack's options. Dropping the future before it is ready gives the
    /// attempt up.
    ///
    /// # Errors
    /// Those of [`Stack::connect`].
    pub async fn connect(stack: &Stack, addr: SocketAddr) -> io::Result<Self> {
        Self::connect_with(stack, addr, ConnectOptions::default()).await
    }

    /// Opens a connection. `connect.timeout` must be `None`: wrap the future in the executor's timeout instead.
    ///
    /// # Errors
    /// Those of [`Stack::connect_with`].
    pub async fn connect_with(stack: &Stack, addr: SocketAddr, connect: ConnectOptions) -> io::Result<Self> {
        todo!()
    }

    /// The blocking socket made async. Its nonblocking mode and timeouts do not matter here.
    #[must_use]
    pub fn from_blocking(stream: crate::TcpStream) -> Self {
        Self { inner: stream }
    }

    /// The same connection as a blocking socket.
    #[must_use]
    pub fn into_blocking(self) -> crate::TcpStream {
        self.inner
    }

    /// The same connection as a blocking socket, for its getters and settings.
    #[must_use]
    pub fn as_blocking(&self) -> &crate::TcpStream {
        &self.inner
    }

    /// Two halves that may go to different tasks. Dropping the write half shuts down writing.
    #[must_use]
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        todo!()
    }
}

/// The reading half of a connection, see [`TcpStream::into_split`].
#[derive(Debug)]
pub struct OwnedReadHalf {
    _todo: (),
}

/// The writing half of a connection, see [`TcpStream::into_split`]. Dropping it shuts down writing.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    _todo: (),
}

impl AsRef<crate::TcpStream> for OwnedReadHalf {
    fn as_ref(&self) -> &crate::TcpStream {
        todo!()
    }
}

impl AsRef<crate::TcpStream> for OwnedWriteHalf {
    fn as_ref(&self) -> &crate::TcpStream {
        todo!()
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        todo!()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
}

impl AsyncRead for OwnedReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
}

impl AsyncWrite for OwnedWriteHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        todo!()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
}

/// A socket that accepts connections, like `tokio::net::TcpListener`.
#[derive(Debug)]
pub struct TcpListener {
    inner: crate::TcpListener,
}

impl TcpListener {
    /// Listens with the stack's options and a backlog of 128.
    ///
    /// # Errors
    /// Those of [`Stack::listen`].
    pub fn bind(stack: &Stack, addr: SocketAddr) -> io::Result<Self> {
        stack.listen(addr).map(Self::from_blocking)
    }

    /// The blocking listener made async.
    #[must_use]
    pub fn from_blocking(listener: crate::TcpListener) -> Self {
        Self { inner: listener }
    }

    /// Waits for a connection. Dropping the future loses none; several tasks may wait at once.
    ///
    /// # Errors
    /// `NotConnected` when the stack was shut down.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        todo!()
    }

    /// Polls for a connection. Wakes only the task that polled last.
    ///
    /// # Errors
    /// Those of [`accept`](Self::accept).
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        todo!()
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// None; the signature is that of `tokio::net`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}
