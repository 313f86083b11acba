//! What every command that brings up a stack can be told, on the command line and in a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anabranch::PathSpec;
use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Deserializer};

use crate::sockets::SocketArgs;
use crate::usage::Usage;

#[cfg(test)]
mod tests;

const PATH_HELP: &str = "\
A path of the stack; repeat it for more than one.

DRIVER:IFNAME,addr=CIDR[,host=IP][,gw=IP][,mtu=N][,id=N][,port=N][,signal][,subflow][,backup][,fullmesh][,laminar][,cost=N][,offload=on|off]

DRIVER is `tun`, which creates the interface IFNAME, or adopts it if it exists, or `packet`, which goes out on the wire \
of the interface IFNAME; `addr` is our address on it and, for `tun`, `host` the kernel's. `addr`, `host` and `gw` may be given once for IPv4 and once for IPv6. The flags are those of \
`ip mptcp endpoint`. Paths given here replace those of the file.";

const BUSY_POLL_HELP: &str = "\
How long a worker that has nothing to do looks for work before it sleeps, such as `50us`; at most 1s [default: 0s].

Threads that wait to read, write or accept look as long. Longer than the gap between two requests it saves the time that waking a \
processor takes, some tens of microseconds, and costs a busy processor for each worker.";

/// Options of the stack. Each has a key of the same name in the file of `--config`.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Stack options")]
pub(crate) struct StackArgs {
    /// A path of the stack; repeat it for more than one
    #[arg(long = "path", value_name = "SPEC", long_help = PATH_HELP)]
    pub(crate) paths: Vec<PathSpec>,
    /// Packet scheduler [default: minrtt].
    #[arg(long, value_name = "NAME")]
    pub(crate) scheduler: Option<String>,
    /// Congestion control [default: cubic].
    #[arg(long, value_name = "NAME")]
    pub(crate) congestion: Option<String>,
    /// Path manager: endpoints, fullmesh, ndiffports, ndiffports=N, none or external [default: endpoints].
    #[arg(long, value_name = "NAME")]
    pub(crate) path_manager: Option<String>,
    /// Speak plain TCP only.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) no_mptcp: Option<bool>,
    /// Ask for MPTCP checksums; a peer that asks gets them in any case.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) checksum: Option<bool>,
    /// Whether peers may join a connection at the address of its first subflow; if not they are told so [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) allow_join_initial_addr_port: Option<bool>,
    /// How long an MPTCP connection is kept that has no subflow left, such as 10s [default: 60s].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) close_timeout: Option<Duration>,
    /// How long plain TCP is asked for where only SYNs without MPTCP are answered, such as 1h; 0s: never [default: 1h].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) blackhole_timeout: Option<Duration>,
    /// Worker threads, 1 to 64 [default: 1].
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<usize>,
    /// How long a worker without work, and a thread that waits for one, looks for it before it sleeps, such as 50us
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, long_help = BUSY_POLL_HELP)]
    pub(crate) busy_poll: Option<Duration>,
    /// Memory that all connections together may hold, such as 512MiB [default: a quarter of the machine's].
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,
    /// Most bytes that wait to be sent on a connection, such as 4MiB [default: 15MiB].
    #[arg(long, value_name = "SIZE")]
    pub(crate) send_buffer: Option<ByteSize>,
    /// Most bytes that wait to be read on a connection, such as 4MiB [default: 15MiB].
    #[arg(long, value_name = "SIZE")]
    pub(crate) recv_buffer: Option<ByteSize>,
    /// Writes every packet of every path to this file (pcapng; Wireshark reads it).
    #[arg(long, value_name = "FILE.pcapng")]
    pub(crate) pcap: Option<PathBuf>,
    /// Listens on this Unix socket for `anabranch mptcp`: addresses, limits and subflows can be changed and watched there.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) control: Option<PathBuf>,
    /// Reads options from a TOML file; what the command line says wins.
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
    #[command(flatten)]
    pub(crate) talk: TalkArgs,
}

/// Options of what the command says.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Output options")]
pub(crate) struct TalkArgs {
    /// What to log on standard error [default: warn].
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log: Option<LogLevel>,
    /// Print JSON lines, one event each, instead of text.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) json: Option<bool>,
}

/// How much is logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogLevel {
    Off,
    Error,
    #[default]
    Warn,
    Info,
    Debug,
    Trace,
}

/// The same in a file.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    path: Vec<PathSpec>,
    scheduler: Option<String>,
    congestion: Option<String>,
    path_manager: Option<String>,
    checksum: Option<bool>,
    no_mptcp: Option<bool>,
    allow_join_initial_addr_port: Option<bool>,
    #[serde(default, deserialize_with = "time")]
    close_timeout: Option<Duration>,
    #[serde(default, deserialize_with = "time")]
    blackhole_timeout: Option<Duration>,
    workers: Option<usize>,
    #[serde(default, deserialize_with = "time")]
    busy_poll: Option<Duration>,
    memory: Option<ByteSize>,
    send_buffer: Option<ByteSize>,
    recv_buffer: Option<ByteSize>,
    pcap: Option<PathBuf>,
    control: Option<PathBuf>,
    #[serde(default)]
    socket: SocketArgs,
    log: Option<LogLevel>,
    json: Option<bool>,
}

impl StackArgs {
    /// Fills in from the file of `--config` what the command line left open.
    ///
    /// # Errors
    /// The file cannot be read or has something in it that does not belong there.
    pub(crate) fn with_file(self) -> anyhow::Result<Self> {
        let Some(path) = &self.config else { return Ok(self) };
        let text = fs::read_to_string(path)
            .map_err(|error| Usage::error(format!("cannot read --config {}: {error}", path.display())))?;
        let file = parse(&text, path)?;
        Ok(self.or(file))
    }

    fn or(self, file: File) -> Self {
        Self {
            paths: if self.paths.is_empty() { file.path } else { self.paths },
            scheduler: self.scheduler.or(file.scheduler),
            congestion: self.congestion.or(file.congestion),
            path_manager: self.path_manager.or(file.path_manager),
            checksum: self.checksum.or(file.checksum),
            no_mptcp: self.no_mptcp.or(file.no_mptcp),
            allow_join_initial_addr_port: self.allow_join_initial_addr_port.or(file.allow_join_initial_addr_port),
            close_timeout: self.close_timeout.or(file.close_timeout),
            blackhole_timeout: self.blackhole_timeout.or(file.blackhole_timeout),
            workers: self.workers.or(file.workers),
            busy_poll: self.busy_poll.or(file.busy_poll),
            memory: self.memory.or(file.memory),
            send_buffer: self.send_buffer.or(file.send_buffer),
            recv_buffer: self.recv_buffer.or(file.recv_buffer),
            pcap: self.pcap.or(file.pcap),
            control: self.control.or(file.control),
            config: self.config,
            socket: self.socket.or(file.socket),
            talk: TalkArgs { log: self.talk.log.or(file.log), json: self.talk.json.or(file.json) },
        }
    }
}

/// A time such as `50us`.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let complaint = |error| serde::de::Error::custom(format!("'{text}' is no time such as '50us': {error}"));
    humantime::parse_duration(&text).map(Some).map_err(complaint)
}

fn parse(text: &str, path: &Path) -> anyhow::Result<File> {
    toml::from_str(text).map_err(|error| {
        let complaint = error.to_string();
        Usage::error(format!("--config {}: {}", path.display(), complaint.trim_end()))
    })
}

impl TalkArgs {
    /// Sends the log to standard error. To be called once.
    pub(crate) fn start_log(&self) {
        use tracing::level_filters::LevelFilter;
        let level = match self.log.unwrap_or_default() {
            LogLevel::Off => LevelFilter::OFF,
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        };
        let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
        tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_ansi(ansi).init();
    }
}
