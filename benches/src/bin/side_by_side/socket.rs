//! Sockets of either stack behind one face, for programs that run on both.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anabranch::{SocketOptions, Stack};
use anabranch_tests::kernel::{self, Protocol};
use anyhow::{Context, Result, ensure};

use crate::task::{Anabranch, ClientStack, Service};

/// Connections that may wait to be accepted.
const BACKLOG: usize = 4096;
/// Who hears nothing for so long gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Kernel(TcpStream),
    Anabranch(anabranch::TcpStream),
}

/// Where connections are accepted.
#[derive(Debug)]
pub(crate) enum Listener {
    Kernel(TcpListener),
    Anabranch(anabranch::TcpListener),
}

/// Where connections are opened.
#[derive(Debug)]
pub(crate) enum Connector {
    Kernel { protocol: Protocol, congestion: String },
    Anabranch { stack: Stack, subflows: usize },
}

impl Stream {
    /// Ends our direction.
    pub(crate) fn finish(&self) -> io::Result<()> {
        match self {
            Self::Kernel(stream) => stream.shutdown(Shutdown::Write),
            Self::Anabranch(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Sends what is written at once.
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Kernel(stream) => stream.set_nodelay(true),
            Self::Anabranch(stream) => stream.set_nodelay(true),
        }
    }

    /// Gives up on a peer that sends nothing for so long.
    pub(crate) fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Kernel(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Anabranch(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    /// Gives up on a peer that takes nothing for so long.
    fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
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
    pub(crate) fn kernel(service: Service, mptcp: bool, congestion: &str) -> Result<Self> {
        let protocol = if mptcp { Protocol::Mptcp } else { Protocol::Tcp };
        let socket = kernel::open(protocol, anywhere(service), &[congestion])?;
        socket.set_reuse_address(true)?;
        socket.bind(&anywhere(service).into()).context("binding a kernel socket")?;
        socket.listen(BACKLOG as i32)?;
        Ok(Self::Kernel(socket.into()))
    }

    /// Of a socket of our stack.
    pub(crate) fn anabranch(service: Service, stack: &Stack) -> Result<Self> {
        let options = SocketOptions { nodelay: true, ..stack.socket_options() };
        Ok(Self::Anabranch(stack.listen_with(anywhere(service), BACKLOG, options)?))
    }

    pub(crate) fn accept(&self) -> io::Result<Stream> {
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

impl Connector {
    /// For what a client was told.
    pub(crate) fn new(stack: &ClientStack) -> Result<Self> {
        Ok(match stack {
            ClientStack::Kernel { mptcp, congestion } => Self::Kernel {
                protocol: if *mptcp { Protocol::Mptcp } else { Protocol::Tcp },
                congestion: congestion.clone(),
            },
            ClientStack::Anabranch(anabranch, subflows) => {
                Self::Anabranch { stack: start(anabranch)?, subflows: *subflows }
            }
        })
    }

    pub(crate) fn connect(&self, remote: SocketAddr) -> Result<Stream> {
        let stream = match self {
            Self::Kernel { protocol, congestion } => {
                let socket = kernel::open(*protocol, remote, &[congestion])?;
                socket.connect(&remote.into()).with_context(|| format!("connecting to {remote}"))?;
                Stream::Kernel(socket.into())
            }
            Self::Anabranch { stack, .. } => Stream::Anabranch(stack.connect(remote)?),
        };
        stream.set_nodelay()?;
        stream.set_read_timeout(PATIENCE)?;
        stream.set_write_timeout(PATIENCE)?;
        Ok(stream)
    }

    /// That a connection of ours has the subflows that it shall have. What kernel sockets have, the kernel
    /// counts.
    pub(crate) fn check(&self, stream: &Stream) -> Result<()> {
        let (Self::Anabranch { subflows: wanted, .. }, Stream::Anabranch(stream)) = (self, stream) else {
            return Ok(());
        };
        let there = stream.subflows()?.len();
        ensure!(there == *wanted, "a connection with {there} subflows instead of {wanted}");
        Ok(())
    }
}

fn anywhere(service: Service) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, service.port()))
}

/// Brings our stack up.
pub(crate) fn start(options: &Anabranch) -> Result<Stack> {
    let mut builder = Stack::builder()
        .workers(options.workers)
        .busy_poll(Duration::from_micros(options.busy_poll_us))
        .mptcp(options.mptcp);
    for path in &options.paths {
        builder = builder.path(path.parse()?);
    }
    builder.build().context("starting our stack")
}
