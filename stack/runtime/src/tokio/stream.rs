use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sync::{Gate, TaskKey};
use crate::{ConnectOptions, SockOpt, SocketOptions, Stack};

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
    /// Those of [`Stack::connect_with`], and `InvalidInput` for a timeout.
    pub async fn connect_with(stack: &Stack, addr: SocketAddr, connect: ConnectOptions) -> io::Result<Self> {
        if connect.timeout.is_some() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "wrap the future in a timeout instead"));
        }
        let stream = stack.start_connect(addr, connect)?;
        Connected { stream: &stream, key: None }.await?;
        Ok(Self { inner: stream })
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

    /// Changes an option of the connection. Asks the connection's worker, which takes some microseconds.
    ///
    /// # Errors
    /// Those of [`TcpStream::set_option`](crate::TcpStream::set_option).
    pub fn set_option(&self, option: SockOpt) -> io::Result<()> {
        self.inner.set_option(option)
    }

    /// All options of the connection, as they are now.
    ///
    /// # Errors
    /// Those of [`TcpStream::options`](crate::TcpStream::options).
    pub fn options(&self) -> io::Result<SocketOptions> {
        self.inner.options()
    }

    /// Switches Nagle's algorithm off or on.
    ///
    /// # Errors
    /// Those of [`set_option`](Self::set_option).
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.inner.set_nodelay(nodelay)
    }

    /// Whether Nagle's algorithm is off.
    ///
    /// # Errors
    /// Those of [`options`](Self::options).
    pub fn nodelay(&self) -> io::Result<bool> {
        self.inner.nodelay()
    }

    /// Two halves that may go to different tasks. Dropping the write half shuts down writing.
    #[must_use]
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        let other = self.inner.share();
        (OwnedReadHalf { inner: self.inner }, OwnedWriteHalf { inner: other, shut_on_drop: true })
    }
}

/// The reading half of a connection, see [`TcpStream::into_split`].
#[derive(Debug)]
pub struct OwnedReadHalf {
    inner: crate::TcpStream,
}

/// The writing half of a connection, see [`TcpStream::into_split`]. Dropping it shuts down writing.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    inner: crate::TcpStream,
    shut_on_drop: bool,
}

impl OwnedWriteHalf {
    /// Drops the half without shutting down writing.
    pub fn forget(mut self) {
        self.shut_on_drop = false;
    }
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        if self.shut_on_drop {
            // An error says that the connection is over, which is what was wanted.
            let _ = self.inner.shutdown(Shutdown::Write);
        }
    }
}

impl AsRef<crate::TcpStream> for OwnedReadHalf {
    fn as_ref(&self) -> &crate::TcpStream {
        &self.inner
    }
}

impl AsRef<crate::TcpStream> for OwnedWriteHalf {
    fn as_ref(&self) -> &crate::TcpStream {
        &self.inner
    }
}

/// Tries, registers, and tries once more: what happened in between is not missed.
fn poll_with<T>(gate: &Gate, cx: &Context<'_>, mut attempt: impl FnMut() -> io::Result<T>) -> Poll<io::Result<T>> {
    let would_block = |result: &io::Result<T>| matches!(result, Err(e) if e.kind() == io::ErrorKind::WouldBlock);
    let first = attempt();
    if !would_block(&first) {
        return Poll::Ready(first);
    }
    gate.register_polled(cx.waker());
    let second = attempt();
    if would_block(&second) { Poll::Pending } else { Poll::Ready(second) }
}

fn poll_read(stream: &crate::TcpStream, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    let conn = stream.conn();
    let unfilled = buf.initialize_unfilled();
    let result = poll_with(&conn.rx_gate, cx, || conn.try_read(&mut [&mut *unfilled]));
    result.map_ok(|n| buf.advance(n))
}

fn poll_write(stream: &crate::TcpStream, cx: &Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
    poll_with(&stream.conn().tx_gate, cx, || stream.try_write(buf))
}

macro_rules! read_side {
    ($name:ty) => {
        impl AsyncRead for $name {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                poll_read(&self.inner, cx, buf)
            }
        }
    };
}

macro_rules! write_side {
    ($name:ty) => {
        impl AsyncWrite for $name {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                poll_write(&self.inner, cx, buf)
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            /// Shuts down writing, after what was written before.
            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(self.inner.shutdown(Shutdown::Write))
            }
        }
    };
}

read_side!(TcpStream);
read_side!(OwnedReadHalf);
write_side!(TcpStream);
write_side!(OwnedWriteHalf);

/// Waits until the handshake has ended.
struct Connected<'a> {
    stream: &'a crate::TcpStream,
    key: Option<TaskKey>,
}

impl Future for Connected<'_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let conn = this.stream.conn();
        if let Some(result) = conn.connect_result() {
            return Poll::Ready(result);
        }
        conn.tx_gate.register(&mut this.key, cx.waker());
        conn.connect_result().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.stream.conn().tx_gate.forget(key);
        }
    }
}
