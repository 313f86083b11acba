//! The thread that opens devices while the stack runs.
//!
//! A device is opened in the network namespace of the thread that opens it. A worker's turns are done by whatever thread has
//! something for the worker to do, and that may be in another one. So a thread of its own, which stays in the namespace in which
//! it was started, opens what is added, and opens again what was lost: when an interface vanishes and there is one of its name again,
//! that is a new one, of which the old descriptors know nothing. Closing devices is its work, too, since the kernel may take
//! milliseconds for it, which no worker has.
//!
//! It waits for requests and for news of links, and looks at nothing by the clock but an interface that is there and could not be
//! opened.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anabranch_drivers::pcap::Capture;
use anabranch_drivers::{Device, LinkChange, LinkMonitor};
use anabranch_frame::PathId;

use crate::builder::system;
use crate::devices::{Opened, fit, open_spec};
use crate::paths::Registry;
use crate::sync::{EventFd, Reply};
use crate::worker::{Handle, Poll, Token};
use crate::{Error, PathSpec};

/// How long to wait after an attempt that failed. It doubles each time, and begins anew with news of the interface.
const WAIT_FIRST: Duration = Duration::from_millis(20);
const WAIT_LONGEST: Duration = Duration::from_secs(30);

/// What the opener is asked for.
pub(crate) enum Request {
    /// The devices of a path that comes, and a monitor of links for each worker, which may have had none to monitor.
    Open {
        path: PathId,
        spec: PathSpec,
        /// Addresses of the other paths.
        also: Vec<IpAddr>,
        reply: Reply<Result<(Opened, Vec<LinkMonitor>), Error>>,
    },
    /// A worker's device is gone. It is of this opening of the path.
    Lost { path: PathId, opening: u32, device: Box<dyn Device> },
    /// The workers have ended.
    End,
}

/// Where requests are put. The thread ends when nobody is left who could put one there.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    /// `None` only while this is dropped.
    sender: Option<Sender<Request>>,
    bell: Arc<EventFd>,
}

impl Requests {
    /// Does not block. After the end of the thread the request is dropped.
    pub(crate) fn put(&self, request: Request) {
        if let Some(sender) = &self.sender {
            let _ = sender.send(request);
        }
        self.bell.set();
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.sender = None;
        // It may have been the last one.
        self.bell.set();
    }
}

/// The stack's opener, if it has one.
#[derive(Debug)]
pub(crate) struct OpenerSeat {
    capture: Option<Capture>,
    running: Option<(Requests, JoinHandle<()>)>,
}

impl OpenerSeat {
    /// Nobody. What is opened later records to `capture`.
    pub(crate) fn new(capture: Option<Capture>) -> Self {
        Self { capture, running: None }
    }

    /// Starts the thread in the network namespace of the calling one, unless there is one.
    pub(crate) fn start(&mut self, workers: &Arc<[Arc<Handle>]>, paths: &Arc<Registry>) -> io::Result<Requests> {
        if let Some((requests, _)) = &self.running {
            return Ok(requests.clone());
        }
        let (sender, requests) = channel();
        let bell = Arc::new(EventFd::new()?);
        let (poll, links) = (Poll::new()?, LinkMonitor::open()?);
        poll.add(bell.fd(), Token::Bell)?;
        poll.add(links.poll_fd(), Token::Links)?;
        let opener = Opener {
            requests,
            _bell: Arc::clone(&bell),
            poll,
            links,
            workers: Arc::clone(workers),
            paths: Arc::clone(paths),
            capture: self.capture.clone(),
            lost: Vec::new(),
        };
        let thread = thread::Builder::new().name("anabranch-open".into()).spawn(move || opener.run())?;
        let requests = Requests { sender: Some(sender), bell };
        self.running = Some((requests.clone(), thread));
        Ok(requests)
    }

    /// Whom a worker tells of a device that is gone, if it can be opened again.
    pub(crate) fn asked(&self, reopens: bool) -> Option<Requests> {
        self.running.as_ref().filter(|_| reopens).map(|(requests, _)| requests.clone())
    }

    /// Ends the thread, and waits for it.
    pub(crate) fn end(&mut self) {
        self.capture = None;
        if let Some((requests, thread)) = self.running.take() {
            requests.put(Request::End);
            // One that panicked has ended, too.
            let _ = thread.join();
        }
    }
}

/// A path whose devices are gone.
struct Lost {
    path: PathId,
    name: String,
    /// Which opening of it was lost.
    opening: u32,
    /// When to try; `None`: when there is news of the interface.
    due: Option<Instant>,
    /// How long to wait if that fails.
    wait: Duration,
}

impl Lost {
    /// There is news.
    fn hurry(&mut self) {
        self.due = Some(Instant::now());
        self.wait = WAIT_FIRST;
    }

    fn failed(&mut self) {
        self.due = Some(Instant::now() + self.wait);
        self.wait = (self.wait * 2).min(WAIT_LONGEST);
    }
}

/// See the module.
struct Opener {
    requests: Receiver<Request>,
    /// Its last ring must still be heard when nobody else holds it.
    _bell: Arc<EventFd>,
    poll: Poll,
    links: LinkMonitor,
    workers: Arc<[Arc<Handle>]>,
    paths: Arc<Registry>,
    capture: Option<Capture>,
    lost: Vec<Lost>,
}

impl Opener {
    fn run(mut self) {
        loop {
            let due = self.lost.iter().filter_map(|lost| lost.due).min();
            // Whatever it brings: everything is looked at.
            let _ = self.poll.wait(due.map(|due| due.saturating_duration_since(Instant::now())));
            self.hear_of_links();
            if !self.take_requests() {
                return;
            }
            let mut lost = std::mem::take(&mut self.lost);
            lost.retain_mut(|lost| self.try_again(lost));
            self.lost = lost;
        }
    }

    fn hear_of_links(&mut self) {
        let mut events = Vec::new();
        if let Err(error) = self.links.poll(&mut events) {
            tracing::warn!(%error, "news of links were lost: interfaces that are back may not be noticed");
            self.lost.iter_mut().for_each(Lost::hurry);
        }
        for event in events.iter().filter(|event| event.change != LinkChange::Removed) {
            self.lost.iter_mut().filter(|lost| lost.name == event.name).for_each(Lost::hurry);
        }
    }

    /// Does what is asked for; `false`: it is time to end.
    fn take_requests(&mut self) -> bool {
        loop {
            match self.requests.try_recv() {
                Ok(Request::Open { path, spec, also, reply }) => reply.send(self.open_new(path, &spec, also)),
                Ok(Request::Lost { path, opening, device }) => {
                    drop(device);
                    self.note_lost(path, opening);
                }
                Err(TryRecvError::Empty) => return true,
                Ok(Request::End) | Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// A path has lost a device. The first worker that says so speaks for all: they had the same interface.
    fn note_lost(&mut self, path: PathId, opening: u32) {
        let known = self.lost.iter().any(|lost| lost.path == path);
        if let Some((spec, _)) = self.paths.lost(path, opening).filter(|_| !known) {
            let mut lost = Lost { path, name: spec.name, opening, due: None, wait: WAIT_FIRST };
            lost.hurry();
            self.lost.push(lost);
        }
    }

    fn open_new(&self, path: PathId, spec: &PathSpec, also: Vec<IpAddr>) -> Result<(Opened, Vec<LinkMonitor>), Error> {
        let opened = self.open(path, spec, also)?;
        let monitors: io::Result<Vec<_>> = self.workers.iter().map(|_| LinkMonitor::open()).collect();
        Ok((opened, monitors.map_err(system("news of links"))?))
    }

    fn open(&self, path: PathId, spec: &PathSpec, also: Vec<IpAddr>) -> Result<Opened, Error> {
        let workers = self.workers.len();
        fit(path, open_spec(path, spec, workers, also)?, workers, self.capture.as_ref())
    }

    /// Opens a path again, if it is time to. Whether it is lost still.
    fn try_again(&mut self, lost: &mut Lost) -> bool {
        let Some((spec, also)) = self.paths.lost(lost.path, lost.opening) else {
            // It was removed.
            return false;
        };
        if lost.due.is_none_or(|due| Instant::now() < due) {
            return true;
        }
        match self.links.is_present(&spec.name) {
            Ok(false) => {
                lost.due = None;
                true
            }
            // That it is there must be asked first: a TUN interface that is not would be made.
            Ok(true) => match self.open(lost.path, &spec, also) {
                Ok(opened) => {
                    self.hand_over(lost, opened);
                    false
                }
                Err(error) => self.put_off(lost, &error.to_string()),
            },
            Err(error) => self.put_off(lost, &error.to_string()),
        }
    }

    fn put_off(&self, lost: &mut Lost, problem: &str) -> bool {
        if self.paths.note_problem(lost.path, problem) {
            tracing::warn!(path = lost.name, problem, "its interface is back, but cannot be opened: will try again");
        }
        lost.failed();
        true
    }

    /// Gives the workers their new devices.
    fn hand_over(&self, lost: &Lost, opened: Opened) {
        let (path, Some(opening)) = (lost.path, self.paths.reopened(lost.path, lost.opening)) else { return };
        tracing::info!(path = lost.name, "its interface is back and was opened again");
        for (worker, device) in self.workers.iter().zip(opened.queues) {
            // An error says that it has ended.
            let _ = worker.command(move |worker| worker.replace_device(path, opening, device));
        }
    }
}
