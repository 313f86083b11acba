//! Sockets of either stack behind one face, for programs that run on both.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anabranch::{SocketOptions, Stack};
use anabranch_tests::kernel::{self, Protocol};
use anyhow::{Context, Result};

/// Connections that may wait to be accepted.
const BACKLOG: usize = 4096;

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// Of the kernel.
    Kernel(TcpStream),
    /// Ours.
    Anabranch(anabranch::TcpStream),
}

/// Where connections are accepted.
#[derive(Debug)]
pub enum Listener {
    /// Of the kernel.
    Kernel(TcpListener),
    /// Ours.
    Anabranch(anabranch::TcpListener),
}

impl Stream {
    /// Opens one of the kernel's in the namespace of the calling thread.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn connect_kernel(remote: SocketAddr, mptcp: bool, congestion: &str) -> Result<Self> {
        let socket = kernel::open(protocol(mptcp), remote, &[congestion])?;
        socket.connect(&remote.into()).with_context(|| format!("connecting to {remote}"))?;
        Ok(Self::Kernel(socket.into()))
    }

    /// Ends our direction.
    ///
    /// # Errors
    /// What the stack says.
    pub fn finish(&self) -> io::Result<()> {
        match self {
            Self::Kernel(stream) => stream.shutdown(Shutdown::Write),
            Self::Anabranch(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Sends what is written at once.
    ///
    /// # Errors
    /// What the stack says.
    pub fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Kernel(stream) => stream.set_nodelay(true),
            Self::Anabranch(stream) => stream.set_nodelay(true),
        }
    }

    /// Gives up on a peer that sends nothing for so long.
    ///
    /// # Errors
    /// What the stack says.
    pub fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Kernel(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Anabranch(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    /// Gives up on a peer that takes nothing for so long.
    ///
    /// # Errors
    /// What the stack says.
    pub fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Kernel(stream) => stream.set_write_timeout(Some(timeout)),
            Self::Anabranch(stream) => stream.set_write_timeout(Some(timeout)),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Kernel(stream) => (&mut &*stream).read(buf),
            Stream::Anabranch(stream) => (&mut &*stream).read(buf),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Kernel(stream) => (&mut &*stream).write(buf),
            Stream::Anabranch(stream) => (&mut &*stream).write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Listener {
    /// Of a kernel socket.
    ///
    /// # Errors
    /// What the stack says.
    pub fn kernel(port: u16, mptcp: bool, congestion: &str) -> Result<Self> {
        let socket = kernel::open(protocol(mptcp), anywhere(port), &[congestion])?;
        socket.set_reuse_address(true)?;
        socket.bind(&anywhere(port).into()).context("binding a kernel socket")?;
        socket.listen(BACKLOG as i32)?;
        Ok(Self::Kernel(socket.into()))
    }

    /// Of a socket of our stack.
    ///
    /// # Errors
    /// What the stack says.
    pub fn anabranch(port: u16, stack: &Stack) -> Result<Self> {
        let options = SocketOptions { nodelay: true, ..stack.socket_options() };
        Ok(Self::Anabranch(stack.listen_with(anywhere(port), BACKLOG, options)?))
    }

    /// Waits for the next connection; what is written to it is sent at once.
    ///
    /// # Errors
    /// What the stack says.
    pub fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Kernel(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok(Stream::Kernel(stream))
            }
            Self::Anabranch(listener) => Ok(Stream::Anabranch(listener.accept()?.0)),
        }
    }
}

fn protocol(mptcp: bool) -> Protocol {
    if mptcp { Protocol::Mptcp } else { Protocol::Tcp }
}

fn anywhere(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}
