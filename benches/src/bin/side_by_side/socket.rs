//! Where connections are opened, and our stack brought up, as a task has it.

use std::net::SocketAddr;
use std::time::Duration;

use anabranch::Stack;
use anabranch_benches::Stream;
use anyhow::{Context, Result, ensure};

use crate::task::{Anabranch, ClientStack};

/// Who hears nothing for so long gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where connections are opened.
#[derive(Debug)]
pub(crate) enum Connector {
    Kernel { mptcp: bool, congestion: String },
    Anabranch { stack: Stack, subflows: usize },
}

impl Connector {
    /// For what a client was told.
    pub(crate) fn new(stack: &ClientStack) -> Result<Self> {
        Ok(match stack {
            ClientStack::Kernel { mptcp, congestion } => Self::Kernel { mptcp: *mptcp, congestion: congestion.clone() },
            ClientStack::Anabranch(anabranch, subflows) => {
                Self::Anabranch { stack: start(anabranch)?, subflows: *subflows }
            }
        })
    }

    pub(crate) fn connect(&self, remote: SocketAddr) -> Result<Stream> {
        let stream = match self {
            Self::Kernel { mptcp, congestion } => Stream::connect_kernel(remote, *mptcp, congestion)?,
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
