//! Options of a connection that exists.

use alloc::sync::Arc;

use crate::options::{SockOpt, SocketOptions};
use crate::tcp::{IpOptions, Pacing};
use crate::{Error, cc, sched};

use super::conn::{Conn, Cx};
use super::rest::RestingConn;

impl Conn {
    /// All options, but for what changes with each write.
    pub(crate) fn shared_options(&self) -> Arc<SocketOptions> {
        Arc::clone(&self.options)
    }

    /// All options, as they are now.
    pub(crate) fn options(&self) -> SocketOptions {
        let quickack = self.subflows.iter().all(|subflow| !subflow.rcv.is_interactive());
        with_live(&self.options, self.nagle.nodelay, self.nagle.cork, quickack)
    }

    /// `option` was changed; `options` are all of them now.
    pub(crate) fn set_option(
        &mut self,
        cx: &mut Cx<'_>,
        option: SockOpt,
        options: Arc<SocketOptions>,
    ) -> Result<(), Error> {
        match option {
            SockOpt::Mptcp(_)
            | SockOpt::Checksum(_)
            | SockOpt::PathManager(_)
            | SockOpt::AllowJoinInitialAddrPort(_) => {
                let problem = "it was settled when the connection was opened: set it before that";
                return Err(Error::BadOption { option: option.name(), problem });
            }
            SockOpt::Nodelay(nodelay) => self.nagle.set_nodelay(nodelay, self.tx.end()),
            SockOpt::Cork(cork) => self.nagle.set_cork(cork, self.tx.end()),
            SockOpt::Quickack(quickack) => {
                self.subflows.iter_mut().for_each(|subflow| subflow.rcv.set_quickack(quickack));
            }
            SockOpt::Syncnt(retries) => {
                self.set_syn_retries(retries.unwrap_or(cx.config.handshake.syn_retries));
            }
            SockOpt::Scheduler(name) => self.scheduler = sched::by_name(&name)?,
            SockOpt::Congestion(name) => self.set_congestion(&name)?,
            SockOpt::Sndbuf(_) | SockOpt::SendBufferMax(_) => self.resize_send_buffer(&options),
            SockOpt::Rcvbuf(_) | SockOpt::RecvBufferMax(_) | SockOpt::WindowClamp(_) => self.rx.resize(&options),
            SockOpt::MaxPacingRate(_) | SockOpt::Pacing(_) => {
                let pacing = pacing_of(&options);
                self.subflows.iter_mut().for_each(|subflow| subflow.snd.set_pacing(pacing));
            }
            SockOpt::Tos(_) | SockOpt::HopLimit(_) | SockOpt::Autoflowlabel(_) => {
                let ip = IpOptions::of(&options);
                self.subflows.iter_mut().for_each(|subflow| subflow.ip = ip);
            }
            _ => {}
        }
        self.options = options;
        self.settle(cx);
        Ok(())
    }

    fn set_congestion(&mut self, name: &str) -> Result<(), Error> {
        self.congestion = cc::by_name(name, 1)?.name();
        for subflow in &mut self.subflows {
            let mss = u64::from(subflow.snd.mss());
            let congestion = cc::by_name(name, mss)?;
            subflow.ecn.set_accurate(congestion.needs_ecn());
            subflow.snd.set_congestion(congestion);
        }
        Ok(())
    }

    fn resize_send_buffer(&mut self, options: &SocketOptions) {
        self.tx.set_max(options.send_max());
        self.send_limit = match options.sndbuf {
            Some(bytes) => u64::from(bytes),
            None => self.send_limit.min(options.send_max()),
        };
    }
}

impl RestingConn {
    /// All options, as they are now.
    pub(crate) fn options(&self) -> SocketOptions {
        let quickack = self.subflows.iter().all(|subflow| !subflow.is_interactive());
        with_live(&self.options, self.nagle.nodelay, self.nagle.cork, quickack)
    }
}

/// How subflows are to pace.
pub(super) fn pacing_of(options: &SocketOptions) -> Pacing {
    Pacing { always: options.pacing, max_rate: options.max_pacing_rate }
}

/// `options` with what changes without a call of the application, or with many.
fn with_live(options: &SocketOptions, nodelay: bool, cork: bool, quickack: bool) -> SocketOptions {
    SocketOptions { nodelay, cork, quickack, ..options.clone() }
}
