//! `anabranch mptcp`: what `ip mptcp` is for the kernel, for a command that runs with `--control`.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Subcommand;

use super::protocol::{Answer, ConnectionLine, EndpointLine, LimitsLine, PathLine, Request};

const EXAMPLES: &str = "\
Examples:
  A server that can be told things:
    anabranch serve echo:7 --control /run/ab.sock --path tun:ab0,addr=10.9.0.2/24,host=10.9.0.1

  What happens to its connections, one JSON object a line:
    anabranch mptcp --control /run/ab.sock monitor

  One more address, announced to all peers:
    anabranch mptcp --control /run/ab.sock endpoint add 10.9.0.3/24 --path ab0 signal

  A subflow of the connection with token 0x1f2e3d4c, from our endpoint 2:
    anabranch mptcp --control /run/ab.sock create 0x1f2e3d4c --id 2 10.9.1.1:7";

/// Show and change paths, addresses, limits and subflows of a command that runs with `--control`, and watch them.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The socket that the other command was given.
    #[arg(long, value_name = "SOCKET")]
    control: PathBuf,
    /// Print answers as JSON; events always are.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Addresses of the stack.
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Paths of the stack.
    #[command(subcommand)]
    Path(PathCommand),
    /// How many subflows and announced addresses a connection may have.
    #[command(subcommand)]
    Limits(LimitsCommand),
    /// Connections, their tokens and subflows.
    Connections,
    /// Announce one of our addresses to a peer.
    Announce {
        #[arg(value_parser = token)]
        token: u32,
        /// Our endpoint.
        #[arg(long)]
        id: u8,
        /// A port for joins, other than the connection's.
        #[arg(long)]
        port: Option<NonZeroU16>,
    },
    /// Withdraw one of our addresses from a peer.
    Remove {
        #[arg(value_parser = token)]
        token: u32,
        /// Our endpoint; 0 is the address of the first subflow.
        #[arg(long)]
        id: u8,
    },
    /// Open a subflow.
    Create {
        #[arg(value_parser = token)]
        token: u32,
        /// Our endpoint.
        #[arg(long)]
        id: u8,
        /// The peer's address and port.
        remote: SocketAddr,
        /// The peer's identifier of that address.
        #[arg(long, default_value_t = 0)]
        remote_id: u8,
        /// Ask the peer to use it only when no other works.
        #[arg(long)]
        backup: bool,
    },
    /// Close a subflow.
    Destroy {
        #[arg(value_parser = token)]
        token: u32,
        /// Its number, as `connections` and `monitor` show it.
        subflow: u8,
    },
    /// Ask the peer to use a subflow as a backup, or no longer.
    SetFlags {
        #[arg(value_parser = token)]
        token: u32,
        /// Its number, as `connections` and `monitor` show it.
        subflow: u8,
        #[arg(value_parser = ["backup", "nobackup"])]
        flag: String,
    },
    /// Print what happens, a JSON object a line, until interrupted.
    Monitor,
}

#[derive(Subcommand, Debug)]
enum EndpointCommand {
    /// List them.
    Show,
    /// Add an address to a path.
    Add {
        /// The address with its prefix length.
        addr: String,
        /// The path, by its interface.
        #[arg(long)]
        path: String,
        /// Its identifier; chosen if not given.
        #[arg(long, default_value_t = 0)]
        id: u8,
        /// A port that is announced with it.
        #[arg(long)]
        port: Option<NonZeroU16>,
        /// signal, subflow, backup, fullmesh, laminar.
        flags: Vec<String>,
    },
    /// Give an endpoint other flags: those named, and no others.
    Change {
        #[arg(long)]
        id: u8,
        /// A port that is announced with it.
        #[arg(long)]
        port: Option<NonZeroU16>,
        /// signal, subflow, backup, fullmesh, laminar.
        flags: Vec<String>,
    },
    /// Take an address away.
    Delete {
        #[arg(long)]
        id: u8,
    },
}

#[derive(Subcommand, Debug)]
enum PathCommand {
    /// List them.
    Show,
    /// Add one.
    Add {
        /// What it is, as after `--path`: DRIVER:IFNAME,addr=CIDR[,…].
        path: String,
    },
    /// Remove one.
    Delete {
        /// Its interface.
        path: String,
    },
}

#[derive(Subcommand, Debug)]
enum LimitsCommand {
    /// Print them.
    Show,
    /// Set them, for the connections that live, too.
    Set {
        /// Subflows beside the first one.
        #[arg(long, value_parser = clap::value_parser!(u8).range(0..=8))]
        subflows: u8,
        /// Announced addresses that are used.
        #[arg(long, value_parser = clap::value_parser!(u8).range(0..=8))]
        add_addr_accepted: u8,
    },
}

/// A token, decimal or with `0x`.
fn token(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.map_err(|_| format!("'{text}' is no token; `connections` shows them"))
}

impl What {
    fn request(self) -> Request {
        match self {
            Self::Endpoint(EndpointCommand::Show) => Request::EndpointShow,
            Self::Endpoint(EndpointCommand::Add { addr, path, id, port, flags }) => {
                Request::EndpointAdd { addr, path, id, port, flags }
            }
            Self::Endpoint(EndpointCommand::Change { id, port, flags }) => Request::EndpointChange { id, port, flags },
            Self::Endpoint(EndpointCommand::Delete { id }) => Request::EndpointDelete { id },
            Self::Path(PathCommand::Show) => Request::PathShow,
            Self::Path(PathCommand::Add { path }) => Request::PathAdd { path },
            Self::Path(PathCommand::Delete { path }) => Request::PathDelete { path },
            Self::Limits(LimitsCommand::Show) => Request::LimitsShow,
            Self::Limits(LimitsCommand::Set { subflows, add_addr_accepted }) => {
                Request::LimitsSet { subflows, add_addr_accepted }
            }
            Self::Connections => Request::Connections,
            Self::Announce { token, id, port } => Request::Announce { token, id, port },
            Self::Remove { token, id } => Request::Remove { token, id },
            Self::Create { token, id, remote, remote_id, backup } => {
                Request::SubflowCreate { token, id, remote, remote_id, backup }
            }
            Self::Destroy { token, subflow } => Request::SubflowDestroy { token, subflow },
            Self::SetFlags { token, subflow, flag } => Request::SetFlags { token, subflow, backup: flag == "backup" },
            Self::Monitor => Request::Monitor,
        }
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let shown = args.control.display();
    let stream = UnixStream::connect(&args.control)
        .with_context(|| format!("cannot connect to {shown}: is a command running with --control {shown}?"))?;
    let request = args.what.request();
    let mut line = serde_json::to_string(&request)?;
    line.push('\n');
    (&stream).write_all(line.as_bytes())?;
    let mut lines = BufReader::new(&stream).lines();
    let line = lines.next().context("the command hung up without an answer")??;
    let answer: Answer = serde_json::from_str(&line).with_context(|| format!("an answer in another tongue: {line}"))?;
    if !answer.ok {
        return Err(anyhow!("{}", answer.error.unwrap_or_else(|| "refused".into())));
    }
    if request == Request::Monitor {
        return follow(lines);
    }
    let text = if args.json { line + "\n" } else { in_words(&answer) };
    io::stdout().write_all(text.as_bytes()).context("standard output")
}

/// Prints events as they come.
fn follow(lines: impl Iterator<Item = io::Result<String>>) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    for line in lines {
        writeln!(stdout, "{}", line?).and_then(|()| stdout.flush()).context("standard output")?;
    }
    Ok(())
}

/// An answer for people, in the manner of `ip mptcp`.
fn in_words(answer: &Answer) -> String {
    let mut text = String::new();
    if let Some(id) = answer.id {
        text += &format!("id {id}\n");
    }
    for EndpointLine { id, addr, path, port, flags, up } in answer.endpoints.iter().flatten() {
        let port = port.map_or_else(String::new, |port| format!(" port {port}"));
        let down = if *up { "" } else { " down" };
        let flags: String = flags.iter().map(|flag| format!(" {flag}")).collect();
        text += &format!("{addr}{port} id {id}{flags} path {path}{down}\n");
    }
    text.extend(answer.paths.iter().flatten().map(path_in_words));
    if let Some(LimitsLine { subflows, add_addr_accepted }) = &answer.limits {
        text += &format!("add_addr_accepted {add_addr_accepted} subflows {subflows}\n");
    }
    for connection in answer.connections.iter().flatten() {
        text += &connection_in_words(connection);
    }
    text
}

fn path_in_words(path: &PathLine) -> String {
    let PathLine { path, addrs, mtu, state, reopened, problem, rx_bytes, tx_bytes } = path;
    let addrs = addrs.join(" ");
    let problem = problem.as_ref().map_or_else(String::new, |problem| format!(" ({problem})"));
    format!("{path} {addrs} mtu {mtu} {state}{problem} reopened {reopened} rx_bytes {rx_bytes} tx_bytes {tx_bytes}\n")
}

fn connection_in_words(connection: &ConnectionLine) -> String {
    let ConnectionLine { token, local, remote, fallback, path_manager, subflows, .. } = connection;
    let mut text = match fallback {
        Some(reason) => format!("tcp {local} {remote} ({reason})\n"),
        None => format!("token 0x{token:08x} {local} {remote} path-manager {path_manager}\n"),
    };
    for one in subflows {
        let backup = if one.backup { " backup" } else { "" };
        let stale = if one.stale { " stale" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  subflow {} {} {} loc_id {} rem_id {}{backup}{stale}",
            one.subflow, one.local, one.remote, one.loc_id, one.rem_id
        );
    }
    text
}
