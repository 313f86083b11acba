use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::TcpStream;
use crate::Stack;
use crate::sync::TaskKey;

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

    /// The blocking listener made async. Its nonblocking mode does not matter here.
    #[must_use]
    pub fn from_blocking(listener: crate::TcpListener) -> Self {
        Self { inner: listener }
    }

    /// Waits for a connection. Dropping the future loses none; several tasks may wait at once.
    ///
    /// # Errors
    /// `NotConnected` when the stack was shut down.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        Accept { listener: &self.inner, key: None }.await
    }

    /// Polls for a connection. Wakes only the task that polled last.
    ///
    /// # Errors
    /// Those of [`accept`](Self::accept).
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        if let Some(result) = self.inner.try_accept() {
            return Poll::Ready(to_async(result));
        }
        self.inner.gate().register_polled(cx.waker());
        self.inner.try_accept().map_or(Poll::Pending, |result| Poll::Ready(to_async(result)))
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// None; the signature is that of `tokio::net`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// The same listener as a blocking socket.
    #[must_use]
    pub fn into_blocking(self) -> crate::TcpListener {
        self.inner
    }
}

fn to_async(result: io::Result<(crate::TcpStream, SocketAddr)>) -> io::Result<(TcpStream, SocketAddr)> {
    result.map(|(stream, peer)| (TcpStream::from_blocking(stream), peer))
}

struct Accept<'a> {
    listener: &'a crate::TcpListener,
    key: Option<TaskKey>,
}

impl Future for Accept<'_> {
    type Output = io::Result<(TcpStream, SocketAddr)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(result) = this.listener.try_accept() {
            return Poll::Ready(to_async(result));
        }
        this.listener.gate().register(&mut this.key, cx.waker());
        this.listener.try_accept().map_or(Poll::Pending, |result| Poll::Ready(to_async(result)))
    }
}

impl Drop for Accept<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.listener.gate().forget(key);
        }
    }
}
