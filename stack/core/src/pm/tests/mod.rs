//! Path managers over tables of addresses.

mod endpoints;
mod fullmesh;
mod ndiffports;
mod rejoin;

use super::*;
use crate::config::{EndpointFlags, IpCidr};
use anabranch_frame::PathId;
use std::format;
use std::string::String;
use std::vec;

/// `id addr/prefix flag…`, as `ip mptcp endpoint show` has it; `down` is ours.
fn endpoint(text: &str) -> Endpoint {
    let mut words = text.split(' ');
    let id: u8 = words.next().unwrap().parse().unwrap();
    let cidr: IpCidr = words.next().unwrap().parse().unwrap();
    let mut endpoint = Endpoint {
        id,
        addr: cidr.addr,
        prefix: cidr.prefix,
        path: PathId(u16::from(id)),
        flags: EndpointFlags::default(),
        port: None,
        up: true,
    };
    for word in words {
        match word {
            "down" => endpoint.up = false,
            word if endpoint.flags.set(word, true) => {}
            port => endpoint.port = Some(port.strip_prefix("port=").unwrap().parse().unwrap()),
        }
    }
    endpoint
}

fn remote(id: u8, addr: &str) -> RemoteAddr {
    let addr = match addr.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, 80),
        Err(_) => addr.parse().unwrap(),
    };
    RemoteAddr { id, addr }
}

/// A connection from 10.0.1.2 to 10.0.1.1:80 with `endpoints`, and what else a test changes.
struct Case {
    now: Instant,
    manager: Box<dyn PathManager>,
    endpoints: Vec<Endpoint>,
    subflows: Vec<SubflowEntry>,
    remotes: Vec<RemoteAddr>,
    announced: Vec<u8>,
    left: u8,
    server_side: bool,
    deny_join_initial: bool,
    initial_withdrawn: bool,
}

impl Case {
    fn new(endpoints: &[&str]) -> Self {
        let case = Self {
            now: Instant::ZERO,
            manager: by_name("endpoints").unwrap(),
            endpoints: endpoints.iter().map(|text| endpoint(text)).collect(),
            subflows: vec![],
            remotes: vec![remote(0, "10.0.1.1")],
            announced: vec![],
            left: 8,
            server_side: false,
            deny_join_initial: false,
            initial_withdrawn: false,
        };
        case.with_subflow("10.0.1.2", "10.0.1.1")
    }

    fn managed_by(mut self, name: &str) -> Self {
        self.manager = by_name(name).unwrap();
        self
    }

    fn with_subflow(mut self, local: &str, to: &str) -> Self {
        let id = self.subflows.len() as u8;
        self.subflows.push(SubflowEntry {
            id,
            local: SocketAddr::new(local.parse().unwrap(), 40_000),
            remote: remote(0, to).addr,
            local_id: id,
            remote_id: 0,
            established: true,
        });
        self
    }

    fn with_remote(mut self, id: u8, addr: &str) -> Self {
        self.remotes.push(remote(id, addr));
        self
    }

    /// What comes of an event: `announce 2`, `withdraw 2`, `2 > 10.0.1.1:80`, with ` backup`.
    fn on(&mut self, event: PmEvent) -> Vec<String> {
        let view = PmView {
            now: self.now,
            endpoints: &self.endpoints,
            subflows: &self.subflows,
            remotes: &self.remotes,
            announced: &self.announced,
            limits: Limits::default(),
            subflows_left: self.left,
            server_side: self.server_side,
            deny_join_initial: self.deny_join_initial,
            initial_local: "10.0.1.2".parse().unwrap(),
            initial_withdrawn: self.initial_withdrawn,
            initial_remote: remote(0, "10.0.1.1").addr,
        };
        let mut commands = vec![];
        self.manager.on_event(&view, &event, &mut commands);
        commands.iter().map(describe).collect()
    }

    /// Lets the time pass until the path manager wants to be asked; how many seconds that took.
    fn wait(&mut self) -> Option<u64> {
        let due = self.manager.deadline()?;
        let waited = due.saturating_since(self.now);
        self.now = due;
        Some(waited.as_secs())
    }

    fn on_add_addr(mut self, id: u8, addr: &str) -> Vec<String> {
        self.remotes.push(remote(id, addr));
        self.on(PmEvent::AddAddr(remote(id, addr)))
    }
}

fn describe(command: &Command) -> String {
    match command {
        Command::Announce { endpoint: id, .. } => format!("announce {id}"),
        Command::Withdraw(id) => format!("withdraw {id}"),
        Command::Open { endpoint, remote, backup } => {
            format!("{endpoint} > {}#{}{}", remote.addr, remote.id, if *backup { " backup" } else { "" })
        }
        Command::Close(id) => format!("close {id}"),
        Command::SetBackup { subflow, backup } => format!("set {subflow} backup {backup}"),
    }
}

const FIRST: &str = "1 10.0.1.2/24";
