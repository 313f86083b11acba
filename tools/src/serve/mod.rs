//! `anabranch serve`: the small services of RFC 862, 863 and 864.

mod report;
mod services;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context as _;

use crate::options::StackArgs;
use crate::output::Output;
use crate::server::Server;
use crate::stack::{Session, path_names};

const EXAMPLES: &str = "\
Examples:
  All three services on a new TUN interface; the kernel reaches them at 10.9.0.2:
    anabranch serve discard:5001 chargen:5002 echo:5003 \\
        --path tun:ab0,addr=10.9.0.2/24,host=10.9.0.1

  Two paths, the second one announced to the peers, every packet captured:
    anabranch serve echo:5003 --pcap serve.pcapng \\
        --path tun:ab0,addr=10.9.0.2/24,host=10.9.0.1 \\
        --path tun:ab1,addr=10.9.1.2/24,host=10.9.1.1,signal

It runs until SIGINT (Ctrl-C) or SIGTERM, then gives connections five seconds to close.";

/// Serve discard (RFC 863), chargen (RFC 864) and echo (RFC 862) to any TCP or MPTCP peer.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to serve where: `discard`, `chargen` or `echo`, with a port; port 0 chooses one.
    ///
    /// discard throws away what it gets. chargen sends lines of printable characters until the peer
    /// ends its own stream or the connection. echo sends back what it gets.
    #[arg(value_name = "SERVICE:PORT", required = true)]
    services: Vec<Spec>,
    /// Connections that are served at once; further ones wait.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    max_connections: u32,
    #[command(flatten)]
    stack: StackArgs,
}

/// A service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Service {
    /// RFC 863.
    Discard,
    /// RFC 864.
    Chargen,
    /// RFC 862.
    Echo,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discard => "discard",
            Self::Chargen => "chargen",
            Self::Echo => "echo",
        })
    }
}

/// A service on a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Spec {
    service: Service,
    port: u16,
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((service, port)) = text.split_once(':') else {
            return Err(format!("'{text}' has no port; a right one is discard:5001"));
        };
        let service = match service {
            "discard" => Service::Discard,
            "chargen" => Service::Chargen,
            "echo" => Service::Echo,
            _ => return Err(format!("unknown service '{service}'; known are discard, chargen, echo")),
        };
        let port = port.parse().map_err(|_| format!("'{port}' is no port; give a number from 0 to 65535"))?;
        Ok(Self { service, port })
    }
}

pub(crate) fn run(args: Args, output: &mut Output) -> anyhow::Result<()> {
    let session = Session::start(args.stack, output, Output::new)?;
    let server = Server::new(args.max_connections as usize)?;
    let mut listeners = Vec::new();
    for spec in &args.services {
        let listener = session.listen(spec.port).with_context(|| format!("service {}", spec.service))?;
        listeners.push((spec.service, listener));
    }
    report::ready(&session, &listeners)?;
    let paths: Arc<[String]> = path_names(&session.stack).into();
    for (service, listener) in listeners {
        let (output, paths) = (session.output, Arc::clone(&paths));
        server.add(&service.to_string(), listener, move |number, stream, peer| {
            let connection = report::Connection { service, number, peer };
            report::accepted(output, connection);
            let served = services::serve(service, &stream);
            report::closed(output, connection, &stream, &paths, &served);
        })?;
    }
    let stopped = server.run(&session.stack)?;
    report::stopped(session.output, stopped);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_on_a_port() {
        assert_eq!("echo:5003".parse(), Ok(Spec { service: Service::Echo, port: 5003 }));
        assert_eq!("discard:0".parse(), Ok(Spec { service: Service::Discard, port: 0 }));
    }

    #[test]
    fn complaints_name_the_part() {
        for (text, part) in [
            ("echo", "'echo' has no port; a right one is discard:5001"),
            ("daytime:13", "unknown service 'daytime'; known are discard, chargen, echo"),
            ("echo:66000", "'66000' is no port"),
            ("echo:", "'' is no port"),
        ] {
            let complaint = text.parse::<Spec>().unwrap_err();
            assert!(complaint.contains(part), "{complaint}");
        }
    }
}
