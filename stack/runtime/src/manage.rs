//! Addresses and limits of a running stack, and programs that manage paths.

use std::io;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anabranch_core::pm::{Command, Report};
use anabranch_core::{Endpoint, EndpointFlags, Error, Limits, NewEndpoint, worker_of_token};

use crate::Stack;
use crate::error::{stack_is_gone, to_io};
use crate::worker::{Handle, Watcher, Worker};

/// Reports that may wait for one who listens.
const WAITING: usize = 4096;

/// What happens to connections and their paths, from [`Stack::path_reports`] on. The iterator waits for the next one,
/// and ends with the stack.
#[derive(Debug)]
pub struct PathReports {
    reports: Receiver<Report>,
    lost: Arc<AtomicU64>,
}

impl PathReports {
    /// The next report, if one comes within `timeout`.
    ///
    /// # Errors
    /// `TimedOut`, and `NotConnected` when the stack was shut down.
    pub fn next_within(&self, timeout: Duration) -> io::Result<Report> {
        self.reports.recv_timeout(timeout).map_err(|error| match error {
            RecvTimeoutError::Timeout => io::ErrorKind::TimedOut.into(),
            RecvTimeoutError::Disconnected => stack_is_gone(),
        })
    }

    /// How many reports were dropped so far, because too many waited.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Iterator for PathReports {
    type Item = Report;

    fn next(&mut self) -> Option<Report> {
        self.reports.recv().ok()
    }
}

impl Stack {
    /// Our addresses as path managers see them, those of paths that are down included.
    ///
    /// # Errors
    /// `NotConnected` when the stack was shut down.
    pub fn endpoints(&self) -> io::Result<Vec<Endpoint>> {
        self.living().next().ok_or_else(stack_is_gone)?.ask(|worker| worker.endpoints())
    }

    /// An address comes to a path (`ip mptcp endpoint add`). Connections that live may use it at once. What is sent to it must
    /// come in by the path's device: with TUN, by a route of the kernel's.
    ///
    /// Returns its identifier.
    ///
    /// # Errors
    /// `NotFound` if there is no such path, `AddrInUse`, `InvalidInput` for flags that do not go together, an identifier
    /// that is taken, and a path whose device was told its addresses when it was opened; `NotConnected` when the stack was
    /// shut down.
    pub fn add_endpoint(&self, new: NewEndpoint) -> io::Result<u8> {
        let (name, any_address) = self.shared().paths.takes_any(new.path).ok_or_else(|| to_io(Error::BadPath))?;
        if !any_address {
            let problem = "takes the addresses that it was opened with: give it another one with addr=, or use tun";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("path {name}: {problem}")));
        }
        let mut new = new;
        let _one_at_a_time = self.shared().options.lock();
        for worker in self.living() {
            // The first one chooses the identifier.
            new.id = worker.ask(move |worker| worker.add_endpoint(&new))?.map_err(to_io)?;
        }
        Ok(new.id)
    }

    /// An address goes (`ip mptcp endpoint delete`): peers are told, and its subflows are closed. Unlike the kernel's, it is ours
    /// no more: plain TCP on it ends with an error.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such endpoint; `NotConnected` when the stack was shut down.
    pub fn remove_endpoint(&self, id: u8) -> io::Result<()> {
        self.on_all(move |worker| worker.remove_endpoint(id))
    }

    /// Changes what may be done with an address (`ip mptcp endpoint change`, which knows `backup` and `fullmesh` only).
    /// Connections that live heed it.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such endpoint or the flags do not go together; `NotConnected` when the stack was
    /// shut down.
    pub fn change_endpoint(&self, id: u8, flags: EndpointFlags, port: Option<NonZeroU16>) -> io::Result<()> {
        self.on_all(move |worker| worker.change_endpoint(id, flags, port))
    }

    /// Changes the limits of all connections, those that live included (`ip mptcp limits set`).
    ///
    /// # Errors
    /// `NotConnected` when the stack was shut down.
    pub fn set_limits(&self, limits: Limits) -> io::Result<()> {
        let mut options = self.shared().options.lock();
        options.limits = limits;
        self.on_each(move |worker| {
            worker.set_limits(limits);
            Ok(())
        })
    }

    /// Has everything that happens to MPTCP connections and their paths from now on told, whatever their path managers.
    /// Those that live already are in [`connections`](Self::connections).
    ///
    /// # Errors
    /// `NotConnected` when the stack was shut down.
    pub fn path_reports(&self) -> io::Result<PathReports> {
        let (sender, reports) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        for worker in self.living() {
            let watcher = Watcher { reports: sender.clone(), lost: Arc::clone(&lost) };
            worker.ask(move |worker| worker.watch(watcher))?;
        }
        Ok(PathReports { reports, lost })
    }

    /// Does something with the MPTCP connection that has a token, as programs do that manage paths themselves (with the
    /// path manager `external`, so that nobody else does). The limits hold.
    ///
    /// # Errors
    /// `NotConnected` if there is no such connection or it is not fully established, `InvalidInput` for what is not
    /// there or not possible.
    pub fn path_command(&self, token: u32, command: Command) -> io::Result<()> {
        let owner = &self.handles()[worker_of_token(token, self.handles().len())];
        owner.ask(move |worker| worker.command(token, command))?.map_err(to_io)
    }

    /// The workers that have not ended.
    pub(crate) fn living(&self) -> impl Iterator<Item = &Arc<Handle>> {
        self.handles().iter().filter(|worker| !worker.ended.stands())
    }

    /// Runs something on all workers, one caller at a time: they agree afterwards.
    fn on_all(&self, run: impl Fn(&mut Worker) -> Result<(), Error> + Clone + Send + 'static) -> io::Result<()> {
        let _one_at_a_time = self.shared().options.lock();
        self.on_each(run)
    }

    /// The same for a caller that is the only one.
    fn on_each(&self, run: impl Fn(&mut Worker) -> Result<(), Error> + Clone + Send + 'static) -> io::Result<()> {
        for worker in self.living() {
            let run = run.clone();
            worker.ask(move |worker| run(worker))?.map_err(to_io)?;
        }
        Ok(())
    }
}
