//! What `perf` says.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anabranch::{ConnInfo, TcpStream};
use serde::Serialize;

use super::progress::{Span, SubflowSpan, client_sends};
use super::protocol::Request;
use crate::format::{Bytes, Rate, Time};
use crate::output::Output;
use crate::server::Stopped;

/// Width of a subflow's column.
const COLUMN: usize = 36;

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event<'a> {
    Ready {
        port: u16,
        paths: &'a [String],
    },
    Done(Done<'a>),
    Refused {
        connection: u64,
        peer: SocketAddr,
        error: String,
    },
    Stopped {
        signal: &'static str,
        clean: bool,
    },
    Connected {
        stream: usize,
        local: SocketAddr,
        peer: SocketAddr,
        mptcp: Option<bool>,
        fallback: Option<&'static str>,
    },
    Interval {
        start: f64,
        end: f64,
        bytes: u64,
        bits_per_second: f64,
        streams: &'a [Span],
    },
    Summary {
        direction: &'static str,
        seconds: f64,
        bytes: u64,
        bits_per_second: f64,
        streams: Vec<Stream<'a>>,
    },
}

/// One connection that a server served.
#[derive(Serialize)]
struct Done<'a> {
    connection: u64,
    peer: SocketAddr,
    test: String,
    streams: u16,
    direction: &'static str,
    seconds: f64,
    #[serde(flatten)]
    span: &'a Span,
}

/// One connection of a client's test.
#[derive(Serialize)]
struct Stream<'a> {
    seconds: f64,
    bytes_received_by_peer: Option<u64>,
    mptcp: Option<bool>,
    fallback: Option<&'static str>,
    bytes_retrans: Option<u64>,
    #[serde(flatten)]
    total: &'a Span,
}

/// What came of a connection at the server.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) peer: SocketAddr,
    pub(super) request: Request,
    pub(super) time: Duration,
    pub(super) span: Span,
}

/// What came of a connection at the client.
#[derive(Debug)]
pub(super) struct Outcome {
    /// As the receiver saw it.
    pub(super) time: Duration,
    pub(super) total: Span,
    pub(super) received_by_peer: Option<u64>,
    pub(super) info: Option<ConnInfo>,
}

fn direction(request: &Request) -> &'static str {
    if client_sends(request.direction) { "upload" } else { "download" }
}

pub(super) fn ready(output: Output, port: u16, paths: &[String]) {
    output.line(format_args!("ready: perf server on port {port}, on {}", paths.join(", ")));
    output.event(&Event::Ready { port, paths });
}

pub(super) fn served(output: Output, connection: u64, served: &Served) {
    let Served { peer, request, time, span } = served;
    output.line(format_args!(
        "{peer} {} {}/{}: {} in {}, {}{}",
        direction(request),
        request.stream + 1,
        request.streams,
        Bytes(span.bytes),
        Time(*time),
        Rate(span.bits_per_second),
        shares(&span.subflows),
    ));
    output.event(&Event::Done(Done {
        connection,
        peer: *peer,
        test: format!("{:016x}", request.test),
        streams: request.streams,
        direction: direction(request),
        seconds: time.as_secs_f64(),
        span,
    }));
}

pub(super) fn refused(output: Output, connection: u64, peer: SocketAddr, error: &anyhow::Error) {
    output.line(format_args!("{peer}: {error:#}"));
    output.event(&Event::Refused { connection, peer, error: format!("{error:#}") });
}

pub(super) fn stopped(output: Output, stopped: Stopped) {
    output.event(&Event::Stopped { signal: stopped.signal, clean: stopped.clean });
}

/// How much each path carried, if there is more than one.
fn shares(subflows: &[SubflowSpan]) -> String {
    let mut paths: Vec<(&str, u64)> = Vec::new();
    for subflow in subflows {
        match paths.iter_mut().find(|(path, _)| *path == subflow.path) {
            Some((_, bytes)) => *bytes += subflow.bytes,
            None => paths.push((&subflow.path, subflow.bytes)),
        }
    }
    let all: u64 = paths.iter().map(|(_, bytes)| bytes).sum();
    if paths.len() < 2 || all == 0 {
        return String::new();
    }
    let share = |&(path, bytes): &(&str, u64)| format!("{path} {:.0} %", bytes as f64 * 100.0 / all as f64);
    format!("; {}", paths.iter().map(share).collect::<Vec<_>>().join(", "))
}

/// What a client says in the course of a test.
#[derive(Debug)]
pub(super) struct Report {
    output: Output,
    request: Request,
    /// What the columns of the last header are for.
    columns: Vec<Column>,
    titled: bool,
}

/// A column: subflows of the same addresses come one after the other in it, and those of parallel
/// connections one below the other.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Column {
    path: String,
    local: IpAddr,
    remote: IpAddr,
    /// How many subflows of the same connection with the same addresses are to the left.
    nth: usize,
}

impl Column {
    /// The columns of a connection's subflows.
    fn of(subflows: &[SubflowSpan]) -> Vec<Self> {
        let mut columns: Vec<Self> = Vec::new();
        for subflow in subflows {
            let same = |it: &&Self| {
                it.path == subflow.path && it.local == subflow.local.ip() && it.remote == subflow.remote.ip()
            };
            let nth = columns.iter().filter(same).count();
            let path = subflow.path.clone();
            columns.push(Self { path, local: subflow.local.ip(), remote: subflow.remote.ip(), nth });
        }
        columns
    }
}

impl Report {
    pub(super) fn new(output: Output, request: Request) -> Self {
        Self { output, request, columns: Vec::new(), titled: false }
    }

    pub(super) fn connected<'a>(
        &self,
        streams: impl Iterator<Item = (&'a TcpStream, Option<&'a ConnInfo>)>,
    ) -> anyhow::Result<()> {
        for (number, (stream, info)) in streams.enumerate() {
            let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
            let mptcp = info.map(|info| info.mptcp);
            let fallback = info.and_then(|info| info.fallback).map(anabranch::FallbackReason::as_str);
            let how = info.map(describe).unwrap_or_default();
            self.output.line(format_args!("stream {number}: {local} to {peer}{how}"));
            self.output.event(&Event::Connected { stream: number, local, peer, mptcp, fallback });
        }
        Ok(())
    }

    /// What happened from `start` to `end`.
    pub(super) fn interval(&mut self, start: Duration, end: Duration, streams: &[Span]) {
        let bytes = streams.iter().map(|span| span.bytes).sum();
        let rate = Rate::of(bytes, end - start);
        if !self.output.is_json() {
            self.header(streams);
            for span in streams {
                let cells = cells(&self.columns, &span.subflows);
                self.output.line(row(end, &self.label(span.stream), Rate(span.bits_per_second)) + &cells);
            }
            if streams.len() > 1 {
                self.output.line(row(end, "sum", rate));
            }
        }
        self.output.event(&Event::Interval {
            start: start.as_secs_f64(),
            end: end.as_secs_f64(),
            bytes,
            bits_per_second: rate.0,
            streams,
        });
    }

    /// Names the columns when there is a new one, and at the beginning.
    fn header(&mut self, streams: &[Span]) {
        let known = self.columns.len();
        for column in streams.iter().flat_map(|span| Column::of(&span.subflows)) {
            if !self.columns.contains(&column) {
                self.columns.push(column);
            }
        }
        if self.columns.len() == known && self.titled {
            return;
        }
        self.titled = true;
        let mut names = format!("{:>8} {:>4} {:>12}", "", "", "");
        let mut units = format!("{:>8} {:>4} {:>12}", "time", "", "total");
        for Column { path, local, remote, .. } in &self.columns {
            let name = format!("{path} {local} > {remote}");
            // Writing to a string cannot fail.
            let _ = write!(names, " | {name:COLUMN$.COLUMN$}");
            let _ = write!(units, " | {:>12} {:>8} {:>8} {:>5}", "rate", "srtt", "cwnd", "retr");
        }
        self.output.line(names.trim_end());
        self.output.line(units);
    }

    fn label(&self, stream: u16) -> String {
        if self.request.streams > 1 { format!("[{stream}]") } else { String::new() }
    }

    /// The results; `took` is the time from the first connection's start to the last one's end.
    pub(super) fn summary(&self, took: Duration, outcomes: &[Outcome]) {
        let bytes = outcomes.iter().map(|outcome| outcome.total.bytes).sum();
        let rate: f64 = outcomes.iter().map(|outcome| outcome.total.bits_per_second).sum();
        self.output.line(format_args!(
            "{}: {} in {}, {}",
            direction(&self.request),
            Bytes(bytes),
            Time(took),
            Rate(rate)
        ));
        for Outcome { total, info, .. } in outcomes {
            for subflow in &total.subflows {
                self.output.line(format_args!(
                    "  {:>4} {} {} > {}: {}, {}, {} segments sent again",
                    self.label(total.stream),
                    subflow.path,
                    subflow.local,
                    subflow.remote,
                    Bytes(subflow.bytes),
                    Rate(subflow.bits_per_second),
                    subflow.retransmits,
                ));
            }
            if let Some(info) = info.as_ref().filter(|info| info.bytes_retrans > 0) {
                let again = Bytes(info.bytes_retrans);
                self.output
                    .line(format_args!("  {:>4} sent again on another subflow: {again}", self.label(total.stream)));
            }
        }
        self.output.event(&Event::Summary {
            direction: direction(&self.request),
            seconds: took.as_secs_f64(),
            bytes,
            bits_per_second: rate,
            streams: outcomes.iter().map(stream_of).collect(),
        });
    }
}

fn describe(info: &ConnInfo) -> String {
    let how = match (info.mptcp, info.fallback) {
        (true, _) => "MPTCP".to_owned(),
        (false, Some(reason)) => format!("plain TCP ({})", reason.as_str()),
        (false, None) => "plain TCP".to_owned(),
    };
    format!(", {how}, scheduler {}, congestion {}", info.scheduler, info.congestion)
}

fn stream_of(outcome: &Outcome) -> Stream<'_> {
    let Outcome { time, total, received_by_peer, info } = outcome;
    Stream {
        seconds: time.as_secs_f64(),
        bytes_received_by_peer: *received_by_peer,
        mptcp: info.as_ref().map(|info| info.mptcp),
        fallback: info.as_ref().and_then(|info| info.fallback).map(anabranch::FallbackReason::as_str),
        bytes_retrans: info.as_ref().map(|info| info.bytes_retrans),
        total,
    }
}

fn row(end: Duration, label: &str, rate: Rate) -> String {
    format!("{:>6.2} s {label:>4} {rate:>12}", end.as_secs_f64())
}

/// A connection's subflows below their columns; dashes where there is none, or none any more.
fn cells(columns: &[Column], subflows: &[SubflowSpan]) -> String {
    let mut text = String::new();
    let have = Column::of(subflows);
    for column in columns {
        let cell = match have.iter().position(|it| it == column) {
            None => format!("{:>12} {:>8} {:>8} {:>5}", "-", "-", "-", "-"),
            Some(at) => {
                let SubflowSpan { bits_per_second, srtt_us, cwnd, retransmits, .. } = &subflows[at];
                let srtt = Time(Duration::from_micros(*srtt_us));
                format!("{:>12} {srtt:>8} {:>8} {retransmits:>5}", Rate(*bits_per_second), Bytes(*cwnd))
            }
        };
        text.push_str(" | ");
        text.push_str(&cell);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subflow(id: u8, bytes: u64) -> SubflowSpan {
        SubflowSpan {
            id,
            path: format!("ab{id}"),
            local: SocketAddr::from(([10, 9, id, 2], 40_000)),
            remote: SocketAddr::from(([10, 9, id, 1], 5010)),
            bytes,
            bits_per_second: 8.0 * bytes as f64,
            srtt_us: 312,
            cwnd: 1_200_000,
            retransmits: 7,
        }
    }

    #[test]
    fn a_row_has_a_column_for_each_subflow() {
        let subflows = [subflow(0, 125_000_000), subflow(1, 62_500_000)];
        let row = row(Duration::from_secs(1), "", Rate(1.5e9)) + &cells(&Column::of(&subflows), &subflows);
        assert_eq!(
            row,
            "  1.00 s       1.50 Gbit/s |  1.00 Gbit/s   312 µs  1.20 MB     7 |   500 Mbit/s   312 µs  1.20 MB     7"
        );
        let columns: Vec<_> = row.split(" | ").collect();
        assert_eq!(columns[1].chars().count(), COLUMN);
    }

    #[test]
    fn a_subflow_keeps_its_column_when_another_one_is_gone() {
        let columns = Column::of(&[subflow(0, 1), subflow(1, 1)]);
        let cells = cells(&columns, &[subflow(1, 125)]);
        let cells: Vec<_> = cells.split(" | ").collect();
        assert!(cells[1].trim().starts_with('-'), "{cells:?}");
        assert!(cells[2].contains("1.00 kbit/s"), "{cells:?}");
    }

    #[test]
    fn subflows_with_the_same_addresses_have_columns_of_their_own() {
        let columns = Column::of(&[subflow(0, 1), subflow(0, 2)]);
        assert_eq!((columns[0].nth, columns[1].nth), (0, 1));
    }

    #[test]
    fn shares_are_told_when_there_are_several_paths() {
        assert_eq!(shares(&[subflow(0, 100)]), "");
        assert_eq!(shares(&[subflow(0, 0), subflow(1, 0)]), "");
        assert_eq!(shares(&[subflow(0, 200), subflow(1, 100), subflow(0, 100)]), "; ab0 75 %, ab1 25 %");
    }
}
