//! The stack's paths: what is known of them, and those that come and go while it runs.

use std::io;
use std::net::IpAddr;

use anabranch_core::{Error as CoreError, IpCidr, PathConfig};
use anabranch_drivers::LinkMonitor;
use anabranch_frame::PathId;
use parking_lot::Mutex;

use crate::builder::{bad_path, system};
use crate::devices::Opened;
use crate::error::{stack_is_gone, to_io};
use crate::opener::{Request, Requests};
use crate::sync::reply;
use crate::worker::PathQueue;
use crate::{Error, PathSpec, Stack};

/// Most paths of a stack.
pub(crate) const PATHS_MAX: usize = 64;

/// A path as it is now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PathInfo {
    /// What packets and subflows call it.
    pub id: PathId,
    /// The interface.
    pub name: String,
    /// The addresses that it was opened with.
    pub addrs: Vec<IpCidr>,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Whether it carries packets: its device is up, and nobody [took it down](Stack::set_path_up).
    pub up: bool,
    /// Its interface was deleted. A path that was made from a [`PathSpec`] is opened again as soon as there is an interface of its
    /// name; others do not come back.
    pub gone: bool,
    /// Why it could not be opened again when that was last tried. It will be tried again.
    pub problem: Option<String>,
    /// How often it was opened again.
    pub reopened: u32,
    /// What passed and what was lost, over all workers and all openings.
    pub counters: PathCounters,
}

/// What passed a path's devices and what was lost there.
pub type PathCounters = anabranch_drivers::Counters;

/// What is known of a path outside of the workers.
#[derive(Debug)]
pub(crate) struct Path {
    id: PathId,
    name: String,
    addrs: Vec<IpCidr>,
    mtu: u16,
    /// Its device takes packets for any address; others were told theirs when they were opened.
    any_address: bool,
    /// What to open it from.
    pub(crate) spec: Option<PathSpec>,
    /// The workers have it. Until then its name and its addresses are only taken.
    ready: bool,
    /// How often it was opened again.
    reopened: u32,
    problem: Option<String>,
}

impl Path {
    /// A path that the workers are given.
    pub(crate) fn new(config: &PathConfig, spec: Option<PathSpec>) -> Self {
        Self {
            id: config.id,
            name: config.name.clone(),
            addrs: config.addrs.clone(),
            mtu: config.mtu,
            any_address: config.point_to_point,
            spec,
            ready: true,
            reopened: 0,
            problem: None,
        }
    }

    fn coming(id: PathId, spec: &PathSpec) -> Self {
        Self {
            id,
            name: spec.name.clone(),
            addrs: spec.addrs.clone(),
            mtu: 0,
            any_address: spec.driver.makes_interface(),
            spec: Some(spec.clone()),
            ready: false,
            reopened: 0,
            problem: None,
        }
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addrs.iter().map(|cidr| cidr.addr)
    }
}

/// All paths, as the application and the opener know them.
#[derive(Debug)]
pub(crate) struct Registry(Mutex<List>);

#[derive(Debug)]
struct List {
    paths: Vec<Path>,
    /// The identifier that was given last. One that was used is not given again for a long time: something may remember it.
    last: u16,
}

impl List {
    fn find(&mut self, id: PathId) -> Option<&mut Path> {
        self.paths.iter_mut().find(|path| path.id == id)
    }

    /// The addresses of all paths but one.
    fn addresses_beside(&self, id: PathId) -> Vec<IpAddr> {
        self.paths.iter().filter(|path| path.id != id).flat_map(Path::addresses).collect()
    }

    fn free_id(&mut self) -> PathId {
        loop {
            self.last = self.last.wrapping_add(1);
            if self.find(PathId(self.last)).is_none() {
                return PathId(self.last);
            }
        }
    }
}

impl Registry {
    pub(crate) fn new(paths: Vec<Path>) -> Self {
        let last = paths.last().map_or(u16::MAX, |path| path.id.0);
        Self(Mutex::new(List { paths, last }))
    }

    /// Takes an identifier, the name and the addresses for a path that comes. Returns the addresses of the others, too.
    fn reserve(&self, spec: &PathSpec) -> Result<(PathId, Vec<IpAddr>), Error> {
        let mut list = self.0.lock();
        let problem = |problem| Err(Error::Path { name: spec.name.clone(), problem });
        if list.paths.len() >= PATHS_MAX {
            return problem(format!("there are {PATHS_MAX} paths already, and no more can be: remove one first"));
        }
        for other in &list.paths {
            if other.name == spec.name {
                return problem("is there already: a path has an interface of its own".into());
            }
            if let Some(both) = spec.addrs.iter().find(|ours| other.addresses().any(|addr| addr == ours.addr)) {
                return problem(format!("its address {} is that of {}, too: give another", both.addr, other.name));
            }
        }
        let id = list.free_id();
        let also = list.addresses_beside(id);
        list.paths.push(Path::coming(id, spec));
        Ok((id, also))
    }

    /// The workers have a path that was reserved.
    fn set_ready(&self, id: PathId, mtu: u16) {
        if let Some(path) = self.0.lock().find(id) {
            (path.ready, path.mtu) = (true, mtu);
        }
    }

    fn remove(&self, id: PathId) {
        self.0.lock().paths.retain(|path| path.id != id);
    }

    /// The same for one that the workers have; whether there was one.
    fn remove_ready(&self, id: PathId) -> bool {
        let mut list = self.0.lock();
        let before = list.paths.len();
        list.paths.retain(|path| path.id != id || !path.ready);
        list.paths.len() < before
    }

    fn has(&self, id: PathId) -> bool {
        self.0.lock().find(id).is_some_and(|path| path.ready)
    }

    /// Name of a path, and whether its device takes packets for any address.
    pub(crate) fn takes_any(&self, id: PathId) -> Option<(String, bool)> {
        self.0.lock().find(id).filter(|path| path.ready).map(|path| (path.name.clone(), path.any_address))
    }

    /// What a path is to be opened from again, and the addresses of the others, if it is there and `opening` is its last one.
    pub(crate) fn lost(&self, id: PathId, opening: u32) -> Option<(PathSpec, Vec<IpAddr>)> {
        let mut list = self.0.lock();
        let spec = list.find(id).filter(|path| path.reopened == opening)?.spec.clone()?;
        Some((spec, list.addresses_beside(id)))
    }

    /// A path was opened again. Returns the number of this opening, if the path is there still.
    pub(crate) fn reopened(&self, id: PathId, opening: u32) -> Option<u32> {
        let mut list = self.0.lock();
        let path = list.find(id).filter(|path| path.reopened == opening)?;
        path.reopened = opening.wrapping_add(1);
        path.problem = None;
        Some(path.reopened)
    }

    /// A path could not be opened again. Whether that is news.
    pub(crate) fn note_problem(&self, id: PathId, problem: &str) -> bool {
        match self.0.lock().find(id) {
            Some(path) if path.problem.as_deref() != Some(problem) => {
                path.problem = Some(problem.into());
                true
            }
            _ => false,
        }
    }

    /// What is known here of all that the workers have.
    fn infos(&self) -> Vec<PathInfo> {
        let info = |path: &Path| PathInfo {
            id: path.id,
            name: path.name.clone(),
            addrs: path.addrs.clone(),
            mtu: path.mtu,
            up: true,
            gone: false,
            problem: path.problem.clone(),
            reopened: path.reopened,
            counters: PathCounters::default(),
        };
        self.0.lock().paths.iter().filter(|path| path.ready).map(info).collect()
    }
}

impl Stack {
    /// The paths, in the order in which they were added.
    #[must_use]
    pub fn paths(&self) -> Vec<PathInfo> {
        let mut infos = self.shared().paths.infos();
        infos.iter_mut().for_each(|info| self.ask_about(info));
        infos
    }

    fn ask_about(&self, info: &mut PathInfo) {
        let path = info.id;
        for worker in self.handles() {
            let status = worker.ask(move |worker| worker.path_status(path)).ok().flatten();
            let Some(status) = status else {
                info.up = false;
                continue;
            };
            info.up &= status.up;
            info.gone |= status.mtu.is_none();
            info.mtu = status.mtu.unwrap_or(info.mtu);
            info.counters.merge(&status.counters);
        }
    }

    /// Takes a path down for all connections, or lets it be used again, whatever its device does.
    ///
    /// # Errors
    /// `NotFound` if there is no such path, `NotConnected` when the stack was shut down.
    pub fn set_path_up(&self, path: PathId, up: bool) -> io::Result<()> {
        if !self.shared().paths.has(path) {
            return Err(to_io(CoreError::BadPath));
        }
        self.handles().iter().try_for_each(|worker| worker.ask(move |worker| worker.want_path_up(path, up)))
    }

    /// Adds a path. Connections that live may use it at once: what its flags say is announced, and joined from.
    ///
    /// Its device is opened in the network namespace in which the stack was built. (If that was done without any
    /// [`PathSpec`], in that of the first thread that calls this.)
    ///
    /// # Errors
    /// See [`Error`]. Nothing has changed then.
    pub fn add_path(&self, spec: PathSpec) -> Result<PathId, Error> {
        let shared = self.shared();
        if self.living().next().is_none() {
            return Err(system("adding a path")(stack_is_gone()));
        }
        let opener = shared.opener.lock().start(&shared.handles, &shared.paths);
        let opener = opener.map_err(system("a thread that opens devices"))?;
        let (path, also) = shared.paths.reserve(&spec)?;
        let added = self.open_and_install(path, spec, also, &opener);
        match &added {
            Ok(mtu) => shared.paths.set_ready(path, *mtu),
            Err(_) => {
                self.take_from_workers(path);
                shared.paths.remove(path);
            }
        }
        added.map(|_| path)
    }

    /// Returns the path's MTU in bytes.
    fn open_and_install(
        &self,
        path: PathId,
        spec: PathSpec,
        also: Vec<IpAddr>,
        opener: &Requests,
    ) -> Result<u16, Error> {
        let wanted_id = spec.id;
        let (reply, answer) = reply();
        opener.put(Request::Open { path, spec, also, reply });
        let (opened, links) = answer.wait().ok_or_else(|| system("adding a path")(stack_is_gone()))??;
        // As whoever changes endpoints does: the workers have to agree on their identifiers.
        let _one_at_a_time = self.shared().options.lock();
        self.check_endpoints(&opened.config, wanted_id)?;
        self.install(opened, links, opener)
    }

    /// Refuses what clashes with an endpoint, be it one that came at run time.
    fn check_endpoints(&self, config: &PathConfig, wanted_id: Option<u8>) -> Result<(), Error> {
        let endpoints = self.endpoints().map_err(system("adding a path"))?;
        let problem = |problem| Err(Error::Path { name: config.name.clone(), problem });
        for endpoint in &endpoints {
            if config.addrs.iter().any(|ours| ours.addr == endpoint.addr) {
                return problem(format!("its address {} is an endpoint already: give another", endpoint.addr));
            }
            if wanted_id == Some(endpoint.id) {
                return problem(format!("id={} is that of {}: give another", endpoint.id, endpoint.addr));
            }
        }
        Ok(())
    }

    fn install(&self, opened: Opened, links: Vec<LinkMonitor>, opener: &Requests) -> Result<u16, Error> {
        let Opened { config, queues } = opened;
        let mtu = config.mtu;
        // All are to know the addresses before one announces them: what comes may be another's.
        for worker in self.living() {
            let new = config.clone();
            if let Ok(added) = worker.ask(move |worker| worker.add_path(new)) {
                added.map_err(|error| bad_path(&config, &error))?;
            }
        }
        for (worker, (device, links)) in self.handles().iter().zip(queues.into_iter().zip(links)) {
            let queue = PathQueue::new(device, Some(opener.clone()));
            if let Ok(attached) = worker.ask(move |worker| worker.attach(queue, links)) {
                attached.map_err(system("watching a device"))?;
            }
        }
        Ok(mtu)
    }

    /// Removes a path. Its addresses are withdrawn and its subflows reset; their data goes to the others. An MPTCP connection that has
    /// no other is kept for the builder's [`close_timeout`](crate::Builder::close_timeout); plain TCP on the path, and
    /// what is in its first handshake there, ends with `NetworkUnreachable`.
    ///
    /// # Errors
    /// `NotFound` if there is no such path, `NotConnected` when the stack was shut down.
    pub fn remove_path(&self, path: PathId) -> io::Result<()> {
        self.living().next().ok_or_else(stack_is_gone)?;
        if !self.shared().paths.remove_ready(path) {
            return Err(to_io(CoreError::BadPath));
        }
        self.take_from_workers(path);
        Ok(())
    }

    fn take_from_workers(&self, path: PathId) {
        let _one_at_a_time = self.shared().options.lock();
        for worker in self.living() {
            // The devices are closed here: the kernel may take milliseconds for that, which no worker has.
            drop(worker.ask(move |worker| worker.remove_path(path)));
        }
    }
}
