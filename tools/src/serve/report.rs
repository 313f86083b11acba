//! What `serve` says.

use std::net::SocketAddr;

use anabranch::{IpCidr, TcpListener, TcpStream};
use serde::Serialize;

use super::Service;
use super::services::Served;
use crate::format::{Bytes, Rate};
use crate::output::Output;
use crate::server::Stopped;
use crate::stack::{Session, port_of};

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event {
    Ready { services: Vec<ServiceAt>, paths: Vec<PathAt> },
    Accepted { service: String, connection: u64, peer: SocketAddr },
    Closed(Box<Closed>),
    Stopped { signal: &'static str, clean: bool },
}

#[derive(Serialize)]
struct ServiceAt {
    service: String,
    port: u16,
}

#[derive(Serialize)]
struct PathAt {
    name: String,
    addrs: Vec<String>,
    mtu: u16,
}

#[derive(Serialize)]
struct Closed {
    service: String,
    connection: u64,
    peer: SocketAddr,
    seconds: f64,
    bytes_received: u64,
    bytes_sent: u64,
    /// What is known of the connection at its end; `null` when nothing is any more.
    mptcp: Option<bool>,
    fallback: Option<&'static str>,
    subflows: Vec<SubflowAt>,
    error: Option<String>,
}

#[derive(Serialize)]
struct SubflowAt {
    path: String,
    local: SocketAddr,
    remote: SocketAddr,
    bytes_received: u64,
    bytes_acked: u64,
    bytes_retrans: u64,
}

/// The one line that says that connections are accepted from now on.
pub(super) fn ready(session: &Session, listeners: &[(Service, TcpListener)]) -> anyhow::Result<()> {
    let mut services = Vec::new();
    for (service, listener) in listeners {
        services.push(ServiceAt { service: service.to_string(), port: port_of(listener)? });
    }
    let paths: Vec<PathAt> = session
        .stack
        .paths()
        .into_iter()
        .map(|path| PathAt {
            addrs: path.addrs.iter().map(IpCidr::to_string).collect(),
            name: path.name,
            mtu: path.mtu,
        })
        .collect();
    let list = |items: Vec<String>| items.join(", ");
    session.output.line(format_args!(
        "ready: {} on {}",
        list(services.iter().map(|at| format!("{}:{}", at.service, at.port)).collect()),
        list(paths.iter().map(|at| format!("{} {}", at.name, at.addrs.join(" "))).collect()),
    ));
    session.output.event(&Event::Ready { services, paths });
    Ok(())
}

/// Which connection is spoken of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub(super) service: Service,
    pub(super) number: u64,
    pub(super) peer: SocketAddr,
}

pub(super) fn accepted(output: Output, connection: Connection) {
    let Connection { service, number, peer } = connection;
    tracing::debug!(%service, connection = number, %peer, "accepted");
    output.event(&Event::Accepted { service: service.to_string(), connection: number, peer });
}

/// The summary of a connection. To be called while the stream is still there to be asked.
pub(super) fn closed(output: Output, connection: Connection, stream: &TcpStream, paths: &[String], served: &Served) {
    let Connection { service, number, peer } = connection;
    let info = stream.info().ok();
    let subflows: Vec<SubflowAt> = stream
        .subflows()
        .unwrap_or_default()
        .into_iter()
        .map(|subflow| SubflowAt {
            path: paths.get(usize::from(subflow.path.0)).cloned().unwrap_or_default(),
            local: subflow.local,
            remote: subflow.remote,
            bytes_received: subflow.bytes_received,
            bytes_acked: subflow.bytes_acked,
            bytes_retrans: subflow.bytes_retrans,
        })
        .collect();
    let error = served.result.as_ref().err().map(ToString::to_string);
    tracing::info!(
        %service,
        connection = number,
        %peer,
        mptcp = info.as_ref().is_some_and(|info| info.mptcp),
        subflows = subflows.len(),
        "{} in {:.3} s: received {} ({}), sent {} ({})",
        error.as_deref().unwrap_or("closed"),
        served.time.as_secs_f64(),
        Bytes(served.received),
        Rate::of(served.received, served.time),
        Bytes(served.sent),
        Rate::of(served.sent, served.time),
    );
    output.event(&Event::Closed(Box::new(Closed {
        service: service.to_string(),
        connection: number,
        peer,
        seconds: served.time.as_secs_f64(),
        bytes_received: served.received,
        bytes_sent: served.sent,
        mptcp: info.as_ref().map(|info| info.mptcp),
        fallback: info.and_then(|info| info.fallback).map(anabranch::FallbackReason::as_str),
        subflows,
        error,
    })));
}

pub(super) fn stopped(output: Output, stopped: Stopped) {
    output.event(&Event::Stopped { signal: stopped.signal, clean: stopped.clean });
}
