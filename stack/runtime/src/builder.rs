use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::Duration;

use anabranch_core::config::SynCookies;
use anabranch_core::{
    IpCidr, Limits, PathConfig, PmtuConfig, Shard, ShardConfig, SockOpt, SocketOptions, cc, pm, sched,
};
use anabranch_drivers::pcap::Capture;
use anabranch_drivers::{Device, LinkMonitor};
use anabranch_frame::PathId;
use parking_lot::Mutex;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::buffers::WriteBuffers;
use crate::devices::{Opened, fit, open_spec};
use crate::opener::OpenerSeat;
use crate::paths::{PATHS_MAX, Path, Registry};
use crate::stack::Shared;
use crate::worker::{Clock, Handle, PathQueue, Worker, WorkerParts, thread as worker_thread};
use crate::{Error, PathSpec, Stack};

/// Most workers of a stack.
const WORKERS_MAX: usize = 64;
/// Longer than this nobody means it.
const BUSY_POLL_MAX: Duration = Duration::from_secs(1);
/// Least budget of memory of a worker, in bytes.
const MEMORY_MIN: u64 = 1 << 20;
/// Least and largest buffer of a socket, in bytes: a few segments, and what the window field can express.
const BUFFER_MIN: u32 = 4 << 10;
const BUFFER_MAX: u32 = 1 << 30;

/// Says what a [`Stack`] shall be. Made by [`Stack::builder`].
///
/// Everything has a default but the paths.
#[derive(Debug)]
pub struct Builder {
    paths: Vec<Source>,
    workers: usize,
    options: SocketOptions,
    /// The first option that could not be set.
    bad_option: Option<anabranch_core::Error>,
    pcap: Option<PathBuf>,
    seed: Option<u64>,
    busy_poll: Duration,
    max_connections: usize,
    memory: Option<u64>,
    time_wait: Option<Duration>,
    close_timeout: Option<Duration>,
    blackhole_timeout: Option<Duration>,
    syn_retrans_before_tcp_fallback: Option<u8>,
    pmtu: PmtuConfig,
    ecn_fallback: bool,
    syn_cookies: SynCookies,
    linger: Duration,
}

/// Where a path's devices come from.
enum Source {
    Spec(PathSpec),
    Devices(PathConfig, Vec<Box<dyn Device>>),
}

impl Source {
    fn addresses(&self) -> Vec<IpAddr> {
        let addrs = match self {
            Self::Spec(spec) => &spec.addrs,
            Self::Devices(config, _) => &config.addrs,
        };
        addrs.iter().map(|cidr| cidr.addr).collect()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec(spec) => spec.fmt(f),
            Self::Devices(config, queues) => write!(f, "{config:?} on {} devices", queues.len()),
        }
    }
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            paths: Vec::new(),
            workers: 1,
            options: SocketOptions::default(),
            bad_option: None,
            pcap: None,
            seed: None,
            busy_poll: Duration::ZERO,
            max_connections: 1 << 20,
            memory: None,
            time_wait: None,
            close_timeout: None,
            blackhole_timeout: None,
            syn_retrans_before_tcp_fallback: None,
            pmtu: PmtuConfig::default(),
            ecn_fallback: true,
            syn_cookies: SynCookies::UnderLoad,
            linger: Duration::from_secs(5),
        }
    }

    /// Adds a path. Paths get the identifiers 0, 1, 2… in the order of these calls.
    #[must_use]
    pub fn path(mut self, spec: PathSpec) -> Self {
        self.paths.push(Source::Spec(spec));
        self
    }

    /// Adds a path of devices that the caller made: one for each worker, in their order. Of `config` the
    /// name, the addresses, the gateways, the endpoint identifier, the flags, the cost and whether it is point to
    /// point count; the identifier, MTU and offload are taken from the devices, whose [`Device::path`] must be
    /// the number of paths added before.
    #[must_use]
    pub fn devices(mut self, config: PathConfig, queues: Vec<Box<dyn Device>>) -> Self {
        self.paths.push(Source::Devices(config, queues));
        self
    }

    /// How many worker threads, 1 to 64. Default 1.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// What sockets are opened with unless they say otherwise.
    #[must_use]
    pub fn socket_options(mut self, options: SocketOptions) -> Self {
        self.options = options;
        self
    }

    /// Changes one option of sockets that do not say otherwise. A value that it cannot have fails [`build`](Self::build).
    #[must_use]
    pub fn option(mut self, option: SockOpt) -> Self {
        if let Err(error) = self.options.set(option) {
            self.bad_option.get_or_insert(error);
        }
        self
    }

    /// Packet scheduler of sockets that do not say otherwise, by name. Default `minrtt`.
    #[must_use]
    pub fn scheduler(mut self, name: impl Into<String>) -> Self {
        self.options.scheduler = name.into();
        self
    }

    /// Congestion control of sockets that do not say otherwise, by name. Default `cubic`.
    #[must_use]
    pub fn congestion(mut self, name: impl Into<String>) -> Self {
        self.options.congestion = name.into();
        self
    }

    /// Path manager of sockets that do not say otherwise, by name. Default `endpoints`.
    #[must_use]
    pub fn path_manager(mut self, name: impl Into<String>) -> Self {
        self.options.path_manager = name.into();
        self
    }

    /// Whether sockets speak MPTCP with peers that do, unless they say otherwise. Default on.
    #[must_use]
    pub fn mptcp(mut self, on: bool) -> Self {
        self.options.mptcp = on;
        self
    }

    /// Whether sockets ask for DSS checksums, which find boxes that change bytes and cost a pass over them
    /// (`net.mptcp.checksum_enabled`). Default off; a peer that asks gets them.
    #[must_use]
    pub fn checksum(mut self, on: bool) -> Self {
        self.options.checksum = on;
        self
    }

    /// How the size of packets is fitted to paths, `mtu_probing` included (`net.ipv4.tcp_mtu_probing` and its like).
    #[must_use]
    pub fn pmtu(mut self, pmtu: PmtuConfig) -> Self {
        self.pmtu = pmtu;
        self
    }

    /// Whether a SYN that asked for ECN in vain is repeated without (`net.ipv4.tcp_ecn_fallback`). Default on.
    #[must_use]
    pub fn ecn_fallback(mut self, on: bool) -> Self {
        self.ecn_fallback = on;
        self
    }

    /// Limits for extra subflows, of sockets that do not say otherwise.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.options.limits = limits;
        self
    }

    /// Writes every packet of every path to a capture file, in the pcapng format.
    #[must_use]
    pub fn pcap(mut self, file: impl Into<PathBuf>) -> Self {
        self.pcap = Some(file.into());
        self
    }

    /// Seed for keys, ports, nonces and sequence numbers. Without one they come from the system's
    /// generator, as they must outside of tests: with a known seed they can be guessed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How long a worker keeps looking for work before it sleeps, and a thread that waits to read, to write or to
    /// accept before it does; at most 1 s. Default zero: they sleep at once. More than the gap between two requests
    /// saves the time that it takes to wake a processor, and costs a busy one for each worker.
    #[must_use]
    pub fn busy_poll(mut self, budget: Duration) -> Self {
        self.busy_poll = budget;
        self
    }

    /// Connections that may exist at once on each worker. Default 1,048,576.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Bytes of memory that all connections together may hold, at least a mebibyte for each worker. Default: a quarter
    /// of the machine's.
    ///
    /// From three quarters of it on windows and buffers are kept small. When it is used up new connections are refused
    /// with a reset, and the others go on with what they have.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Most bytes that may wait to be sent or acknowledged on a socket that does not say otherwise. Default 15 MiB.
    #[must_use]
    pub fn send_buffer(mut self, bytes: u32) -> Self {
        self.options.send_buffer_max = bytes;
        self
    }

    /// Most bytes that may wait to be read on a socket that does not say otherwise. Default 15 MiB.
    #[must_use]
    pub fn recv_buffer(mut self, bytes: u32) -> Self {
        self.options.recv_buffer_max = bytes;
        self
    }

    /// Whether SYNs are answered without remembering anything of them (`tcp_syncookies`). Default: while the SYN queue is
    /// full.
    #[must_use]
    pub fn syn_cookies(mut self, when: SynCookies) -> Self {
        self.syn_cookies = when;
        self
    }

    /// How long TIME-WAIT lasts. Default 60 s.
    #[must_use]
    pub fn time_wait(mut self, time: Duration) -> Self {
        self.time_wait = Some(time);
        self
    }

    /// How long an MPTCP connection is kept that has no subflow left, so that another one can be joined
    /// (`net.mptcp.close_timeout`). Default 60 s.
    #[must_use]
    pub fn close_timeout(mut self, time: Duration) -> Self {
        self.close_timeout = Some(time);
        self
    }

    /// How often a SYN with MP_CAPABLE is repeated before it goes without; 128 and more: always with it
    /// (`net.mptcp.syn_retrans_before_tcp_fallback`). Default 2.
    #[must_use]
    pub fn syn_retrans_before_tcp_fallback(mut self, retransmissions: u8) -> Self {
        self.syn_retrans_before_tcp_fallback = Some(retransmissions);
        self
    }

    /// How long a destination that answered only the SYN without MP_CAPABLE is asked for plain TCP at once; twice as long
    /// each time that it is found so again, up to 64 times; zero: never (`net.mptcp.blackhole_timeout`). Default an hour.
    #[must_use]
    pub fn blackhole_timeout(mut self, time: Duration) -> Self {
        self.blackhole_timeout = Some(time);
        self
    }

    /// How long, after the last handle of the stack and its sockets was dropped, connections may go on
    /// closing in good order before they are reset. Default 5 s.
    #[must_use]
    pub fn linger(mut self, time: Duration) -> Self {
        self.linger = time;
        self
    }

    /// Opens the devices and starts the workers. Must be called on a thread that is in the network
    /// namespace in which TUN devices are to be; there they are opened again, too, should their interface vanish and
    /// come back.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn build(mut self) -> Result<Stack, Error> {
        self.check()?;
        let capture = self.pcap.take().map(open_capture).transpose()?;
        let mut opened = Vec::new();
        let addresses: Vec<Vec<IpAddr>> = self.paths.iter().map(Source::addresses).collect();
        for (at, source) in std::mem::take(&mut self.paths).into_iter().enumerate() {
            let path = PathId(at as u16);
            let (path_opened, spec) = match source {
                Source::Spec(spec) => {
                    let others = addresses.iter().enumerate().filter(|(other, _)| *other != at);
                    let also = others.flat_map(|(_, addresses)| addresses).copied().collect();
                    (open_spec(path, &spec, self.workers, also)?, Some(spec))
                }
                Source::Devices(config, queues) => (Opened { config, queues }, None),
            };
            opened.push((fit(path, path_opened, self.workers, capture.as_ref())?, spec));
        }
        self.start(opened, capture)
    }

    fn check(&self) -> Result<(), Error> {
        let setting =
            |setting, value: usize, problem: String| Err(Error::Setting { setting, value: value.to_string(), problem });
        if !(1..=WORKERS_MAX).contains(&self.workers) {
            return setting("workers", self.workers, format!("give 1 to {WORKERS_MAX}"));
        }
        if !(1..=PATHS_MAX).contains(&self.paths.len()) {
            return setting("paths", self.paths.len(), format!("give 1 to {PATHS_MAX}, such as {}", PathSpec::EXAMPLE));
        }
        if self.busy_poll > BUSY_POLL_MAX {
            let (value, problem) = (format!("{:?}", self.busy_poll), format!("give at most {BUSY_POLL_MAX:?}"));
            return Err(Error::Setting { setting: "busy_poll", value, problem });
        }
        if self.memory.is_some_and(|bytes| bytes / (self.workers as u64) < MEMORY_MIN) {
            let bytes = self.memory.unwrap_or_default();
            let problem =
                format!("give at least {} bytes, {MEMORY_MIN} for each worker", MEMORY_MIN * self.workers as u64);
            return Err(Error::Setting { setting: "memory", value: bytes.to_string(), problem });
        }
        for (setting, bytes) in
            [("send buffer", self.options.send_buffer_max), ("receive buffer", self.options.recv_buffer_max)]
        {
            if !(BUFFER_MIN..=BUFFER_MAX).contains(&bytes) {
                let problem = format!("give {BUFFER_MIN} to {BUFFER_MAX} bytes");
                return Err(Error::Setting { setting, value: bytes.to_string(), problem });
            }
        }
        check_names(&self.options)?;
        if let Some(error) = self.bad_option {
            return Err(Error::SocketOptions(error));
        }
        self.options.check().map_err(Error::SocketOptions)?;
        let mut seen: Vec<(String, Vec<IpCidr>, u8)> = Vec::new();
        for source in &self.paths {
            let (name, addrs, id) = match source {
                Source::Spec(spec) => (&spec.name, &spec.addrs, spec.id.unwrap_or(0)),
                Source::Devices(config, _) => (&config.name, &config.addrs, config.endpoint_id),
            };
            let problem = |problem| Err(Error::Path { name: name.clone(), problem });
            for (other, other_addrs, other_id) in &seen {
                if let Some(both) = addrs.iter().find(|a| other_addrs.iter().any(|b| a.addr == b.addr)) {
                    return problem(format!("its address {} is that of {other}, too: give another", both.addr));
                }
                if id != 0 && id == *other_id {
                    return problem(format!("id={id} is that of {other}, too: give another"));
                }
                if matches!(source, Source::Spec(_)) && name == other {
                    return problem("is there twice: a path has an interface of its own".into());
                }
            }
            seen.push((name.clone(), addrs.clone(), id));
        }
        Ok(())
    }

    fn start(self, opened: Vec<(Opened, Option<PathSpec>)>, capture: Option<Capture>) -> Result<Stack, Error> {
        let handle = |id| Handle::new(id as u16, self.busy_poll).map(Arc::new);
        let handles: Result<Vec<_>, _> = (0..self.workers).map(handle).collect();
        let handles: Arc<[_]> = handles.map_err(system("event descriptors"))?.into();
        let mut random = self.random()?;
        let mut keys = [[0; 16]; 2];
        keys.iter_mut().for_each(|key| random.fill_bytes(key));
        let clock = Clock::start();
        let memory = self.memory.unwrap_or_else(|| quarter_of_memory().max(MEMORY_MIN * self.workers as u64));
        let (configs, paths, queues) = sorted(opened);
        let reopens = paths.iter().any(|path| path.spec.is_some());
        let paths = Arc::new(Registry::new(paths));
        let mut opener = OpenerSeat::new(capture);
        if reopens {
            opener.start(&handles, &paths).map_err(system("a thread that opens devices"))?;
        }
        let mut workers = Vec::new();
        for (handle, queues) in handles.iter().zip(by_worker(queues, self.workers)) {
            let mut seed = [0; 32];
            random.fill_bytes(&mut seed);
            let mut config = ShardConfig::single(0);
            config.worker = handle.id;
            config.workers = self.workers as u16;
            config.seed = seed;
            [config.hash_key, config.isn_key] = keys;
            config.max_connections = self.max_connections;
            config.memory = memory / self.workers as u64;
            config.time_wait = self.time_wait.unwrap_or(config.time_wait);
            config.close_timeout = self.close_timeout.unwrap_or(config.close_timeout);
            config.blackhole_timeout = self.blackhole_timeout.unwrap_or(config.blackhole_timeout);
            let retrans = self.syn_retrans_before_tcp_fallback;
            config.syn_retrans_before_tcp_fallback = retrans.unwrap_or(config.syn_retrans_before_tcp_fallback);
            config.pmtu = self.pmtu;
            config.ecn_fallback = self.ecn_fallback;
            config.handshake.syncookies = self.syn_cookies;
            let mut shard = Shard::new(config);
            for path in &configs {
                shard.add_path(clock.now(), path.clone()).map_err(|error| bad_path(path, &error))?;
            }
            let monitored = queues.iter().any(|(device, _)| device.interface_index().is_some());
            let links = monitored.then(LinkMonitor::open).transpose().map_err(system("news of links"))?;
            let parts = WorkerParts {
                shard,
                handle: Arc::clone(handle),
                peers: Arc::clone(&handles),
                clock,
                links,
                paths: queues.into_iter().map(|(device, spec)| PathQueue::new(device, opener.asked(spec))).collect(),
            };
            workers.push(Worker::new(parts).map_err(system("an epoll set"))?);
        }
        let stack = Stack::new(Shared {
            handles,
            threads: Mutex::new(Vec::new()),
            options: Mutex::new(self.options),
            paths,
            opener: Mutex::new(opener),
            linger: self.linger,
            buffers: WriteBuffers::new(),
            next_worker: AtomicUsize::new(0),
            aborted: AtomicUsize::new(0),
        });
        for (at, worker) in workers.into_iter().enumerate() {
            let thread = thread::Builder::new().name(format!("anabranch-w{at}"));
            let handle = Arc::clone(&stack.handles()[at]);
            *handle.seat.lock() = Some(Box::new(worker));
            // Should a later one fail, dropping the stack ends those that run.
            stack.add_thread(thread.spawn(move || worker_thread(&handle)).map_err(system("a worker thread"))?);
        }
        Ok(stack)
    }

    fn random(&self) -> Result<ChaCha20Rng, Error> {
        let mut seed = [0; 32];
        match self.seed {
            Some(number) => seed[..8].copy_from_slice(&number.to_le_bytes()),
            None => getrandom::fill(&mut seed).map_err(|error| system("random bytes")(error.into()))?,
        }
        Ok(ChaCha20Rng::from_seed(seed))
    }
}

/// A quarter of the machine's memory, in bytes.
fn quarter_of_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram as u64 * u64::from(info.mem_unit) / 4
}

pub(crate) fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::System { what, source }
}

pub(crate) fn bad_path(path: &PathConfig, error: &anabranch_core::Error) -> Error {
    Error::Path { name: path.name.clone(), problem: error.to_string() }
}

fn check_names(options: &SocketOptions) -> Result<(), Error> {
    let unknown = |kind, name: &str, known| Err(Error::UnknownName { kind, name: name.into(), known });
    if sched::by_name(&options.scheduler).is_err() {
        return unknown("scheduler", &options.scheduler, sched::NAMES);
    }
    if cc::by_name(&options.congestion, 1460).is_err() {
        return unknown("congestion control", &options.congestion, cc::NAMES);
    }
    if pm::by_name(&options.path_manager).is_err() {
        return unknown("path manager", &options.path_manager, pm::NAMES);
    }
    Ok(())
}

/// A device, and whether it can be opened again.
type Queue = (Box<dyn Device>, bool);

/// What the shards, the application and the workers have of each path.
fn sorted(opened: Vec<(Opened, Option<PathSpec>)>) -> (Vec<PathConfig>, Vec<Path>, Vec<Vec<Queue>>) {
    let (mut configs, mut paths, mut queues) = (Vec::new(), Vec::new(), Vec::new());
    for (opened, spec) in opened {
        queues.push(opened.queues.into_iter().map(|device| (device, spec.is_some())).collect());
        paths.push(Path::new(&opened.config, spec));
        configs.push(opened.config);
    }
    (configs, paths, queues)
}

/// The devices of each worker, from those of each path.
fn by_worker(paths: Vec<Vec<Queue>>, workers: usize) -> Vec<Vec<Queue>> {
    let mut sorted: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
    for queues in paths {
        for (worker, queue) in sorted.iter_mut().zip(queues) {
            worker.push(queue);
        }
    }
    sorted
}

fn open_capture(path: PathBuf) -> Result<Capture, Error> {
    Capture::create(&path).map_err(|source| Error::Capture { path, source })
}
