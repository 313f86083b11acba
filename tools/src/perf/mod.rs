//! `anabranch perf`: how fast a connection is, as a whole and on each subflow.

mod client;
mod progress;
mod protocol;
mod report;
mod server;
mod transfer;

use std::time::Duration;

use bytesize::ByteSize;
use clap::Subcommand;

use crate::options::StackArgs;
use crate::output::Output;

const EXAMPLES: &str = "\
Examples:
  A server and, on another machine, a client with two paths to it:
    anabranch perf server --port 5010 --path tun:ab0,addr=10.9.0.2/24,host=10.9.0.1
    anabranch perf client 10.9.0.2 --port 5010 \\
        --path tun:ab1,addr=10.8.0.2/24,host=10.8.0.1 \\
        --path tun:ab2,addr=10.8.1.2/24,host=10.8.1.1,subflow";

const CLIENT_EXAMPLES: &str = "\
Examples:
  Ten seconds, this side sends:
    anabranch perf client 10.9.0.2 --port 5010 --path tun:ab1,addr=10.8.0.2/24,host=10.8.0.1

  The other side sends 10 GB, over four connections, and a program reads the result:
    anabranch perf client 10.9.0.2 --port 5010 --reverse --bytes 10GB --parallel 4 --json \\
        --path tun:ab1,addr=10.8.0.2/24,host=10.8.0.1";

/// Measure throughput, with a line per second and a column per subflow.
///
/// Client and server agree on the measurement by a few bytes at the start of each connection
/// (docs/guide.md describes them), so both ends have to be `anabranch perf`.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    side: Side,
}

#[derive(Subcommand, Debug)]
enum Side {
    Server(Box<ServerArgs>),
    Client(Box<ClientArgs>),
}

/// Wait for clients and do what they ask for, until SIGINT or SIGTERM.
#[derive(clap::Args, Debug)]
struct ServerArgs {
    /// Where to listen; port 0 chooses one.
    #[arg(long, value_name = "N")]
    port: u16,
    #[command(flatten)]
    stack: StackArgs,
}

/// Measure one transfer with a server.
#[derive(clap::Args, Debug)]
#[command(after_help = CLIENT_EXAMPLES)]
struct ClientArgs {
    /// The server: an IPv4 or IPv6 address, with or without brackets, or a name (the system resolves it).
    #[arg(value_name = "ADDR")]
    addr: String,
    /// The server's port.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// The server sends instead of us.
    #[arg(long)]
    reverse: bool,
    /// Send for this long: seconds, or a time such as 1m30s [default: 10].
    #[arg(long, value_name = "S", value_parser = parse_time, conflicts_with = "bytes")]
    time: Option<Duration>,
    /// Send so many bytes on each connection, such as 500MB or 2GiB.
    #[arg(long, value_name = "N", value_parser = parse_bytes)]
    bytes: Option<u64>,
    /// So many connections at once.
    #[arg(long, value_name = "K", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(protocol::STREAMS_MAX)))]
    parallel: u16,
    /// Gives up connecting after this long.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    stack: StackArgs,
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let time = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?,
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string())?,
    };
    let longest = Duration::from_millis(protocol::MILLIS_MAX.into());
    match time {
        time if time < Duration::from_millis(1) => Err("give at least 0.001 seconds".into()),
        time if time > longest => Err(format!("give at most {} seconds", longest.as_secs())),
        time => Ok(time),
    }
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    match text.parse::<ByteSize>() {
        Ok(ByteSize(0)) => Err("give at least one byte".into()),
        Ok(ByteSize(bytes)) => Ok(bytes),
        Err(error) => Err(format!("{error}; a right one is 500MB")),
    }
}

pub(crate) fn run(args: Args, output: &mut Output) -> anyhow::Result<()> {
    match args.side {
        Side::Server(args) => server::run(*args, output),
        Side::Client(args) => client::run(*args, output),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_seconds_and_in_words() {
        assert_eq!(parse_time("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_time("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("1m30s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "-1", "0", "NaN", "inf", "2days", "ten"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_with_and_without_units() {
        assert_eq!(parse_bytes("1000"), Ok(1000));
        assert_eq!(parse_bytes("500MB"), Ok(500_000_000));
        assert_eq!(parse_bytes("2GiB"), Ok(2 << 30));
        for wrong in ["", "0", "lots", "-1"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
