//! One measurement: transfers over a site, and what came of them.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anabranch_benches::bulk::{read_until, write_until};
use anabranch_benches::pattern::{CHUNK, Pattern};
use anabranch_benches::{Listener, Stream};
use anabranch_tests::Netns;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::case::{Case, Pairing};
use crate::site::{How, Seen, Side, Site};

/// How long a peer may take that has nothing more to do.
const PATIENCE: Duration = Duration::from_secs(30);
/// Slots of the record of what arrived when.
const SLOT: Duration = Duration::from_millis(500);
const PORT: u16 = 5001;

/// One of the connections of a bulk transfer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Flow {
    /// What the receiving application got in the time.
    pub(crate) bytes: u64,
    /// Payload that the sender sent, and what of it again: `tcpi_bytes_sent` and `tcpi_bytes_retrans`.
    pub(crate) sent: u64,
    pub(crate) resent: u64,
    /// What came in each half second.
    pub(crate) slots: Vec<u64>,
}

/// What came of a measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Bulk transfers, one for each connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) flows: Vec<Flow>,
    /// Short ones: how long each took from the first SYN to the end of the stream, in milliseconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) times: Vec<f64>,
    /// What the emulator saw.
    pub(crate) seen: Seen,
}

/// Sends as much as goes in `time`, over a connection for each of `flows`, all at once.
pub(crate) fn bulk(case: &Case, flows: &[Pairing], how: How<'_>, time: Duration) -> Result<Outcome> {
    let site = Site::new(case, &sides(flows), how, time)?;
    let lanes: Result<Vec<Lane>> =
        flows.iter().zip(PORT..).map(|(&pairing, port)| Lane::new(&site, pairing, port, 2)).collect();
    let lanes = lanes?;
    for lane in &lanes {
        lane.warm_up(&site)?;
    }
    let start = Instant::now();
    let end = start + time;
    let stop = Arc::new(AtomicBool::new(false));
    let mut halves = Vec::new();
    for lane in &lanes {
        let stream = lane.connect(&site)?;
        let (stopped, ours) = (Arc::clone(&stop), lane.pairing == Pairing::Sends);
        let sender = spawn(move || send(&stream, &stopped, ours));
        let accepted = lane.accepted.recv_timeout(time + PATIENCE).context("the connection was never accepted")??;
        // Whoever closes while the other still sends breaks the connection: the stream stays open to the end.
        let receiver = spawn(move || receive(&accepted, start, end).map(|flow| (flow, accepted)));
        halves.push((lane, sender, receiver));
    }
    let mut results = Vec::new();
    for (lane, sender, receiver) in halves {
        let (mut flow, open) = receiver.recv_timeout(time + PATIENCE).context("the receiver hangs")??;
        if lane.pairing != Pairing::Sends {
            (flow.sent, flow.resent) = kernel_sent(&site.left.netns, lane.port)?;
        }
        results.push((flow, sender, open));
    }
    stop.store(true, Ordering::Relaxed);
    let flows: Result<Vec<Flow>> = results
        .into_iter()
        .map(|(mut flow, sender, _open)| {
            if let Some(sent) = sender.recv_timeout(PATIENCE).context("the sender hangs")?? {
                (flow.sent, flow.resent) = sent;
            }
            Ok(flow)
        })
        .collect();
    Ok(Outcome { flows: flows?, times: Vec::new(), seen: site.finish()? })
}

/// Sends `bytes` over a connection of their own, again and again, until it was done `count` times or `time` is over.
pub(crate) fn short(
    case: &Case,
    pairing: Pairing,
    how: How<'_>,
    bytes: usize,
    count: usize,
    time: Duration,
) -> Result<Outcome> {
    let site = Site::new(case, &sides(&[pairing]), how, time)?;
    let lane = Lane::new(&site, pairing, PORT, count + 1)?;
    lane.warm_up(&site)?;
    let mut times = Vec::new();
    let end = Instant::now() + time;
    let mut left = count;
    while left > 0 && Instant::now() < end {
        left -= 1;
        let start = Instant::now();
        let done = one_short(&lane, &site, bytes)?;
        times.push((done - start).as_secs_f64() * 1e3);
    }
    // Whoever waits in `accept` goes on until all have come.
    for _ in 0..left {
        drop(lane.connect(&site));
    }
    Ok(Outcome { flows: Vec::new(), times, seen: site.finish()? })
}

/// Sends `bytes` over a connection of their own. When the receiver had all of them.
fn one_short(lane: &Lane, site: &Site, bytes: usize) -> Result<Instant> {
    let stream = lane.connect(site)?;
    stream.set_write_timeout(PATIENCE)?;
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            (&stream).write_all(Pattern::new().slice(0, bytes)).context("writing")?;
            stream.finish().context("ending the stream")
        });
        let accepted = lane.accepted.recv_timeout(PATIENCE).context("the connection was never accepted")??;
        let done = drain(&accepted, bytes)?;
        sender.join().expect("no panic in a sender")?;
        Ok(done)
    })
}

/// Where our stack is needed.
fn sides(flows: &[Pairing]) -> Vec<Side> {
    let side = |pairing: &Pairing| match pairing {
        Pairing::Kernel => None,
        Pairing::Sends => Some(Side::Left),
        Pairing::Receives => Some(Side::Right),
    };
    flows.iter().filter_map(side).collect()
}

/// Who connects to whom.
struct Lane {
    pairing: Pairing,
    port: u16,
    /// Connections that were accepted.
    accepted: Receiver<Result<Stream>>,
}

impl Lane {
    /// Listens for so many connections.
    fn new(site: &Site, pairing: Pairing, port: u16, connections: usize) -> Result<Self> {
        let listener: Listener = site.right.listen(pairing == Pairing::Receives, port)?;
        let (sender, accepted) = channel();
        thread::spawn(move || {
            for _ in 0..connections {
                if sender.send(listener.accept().context("accepting")).is_err() {
                    break;
                }
            }
        });
        Ok(Self { pairing, port, accepted })
    }

    fn connect(&self, site: &Site) -> Result<Stream> {
        let remote = site.right.addr(self.pairing == Pairing::Receives, self.port);
        site.left.connect(self.pairing == Pairing::Sends, remote)
    }

    /// Has both hosts ask for each other's Ethernet address: that is not to be measured.
    fn warm_up(&self, site: &Site) -> Result<()> {
        let stream = self.connect(site).context("warming up")?;
        stream.finish()?;
        let accepted = self.accepted.recv_timeout(PATIENCE).context("warming up")??;
        spawn(move || drain(&accepted, 0)).recv_timeout(PATIENCE).context("warming up")??;
        Ok(())
    }
}

/// Runs `work` on a thread that may hang.
fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        // Nobody waits any more for one that took too long.
        let _ = sender.send(work());
    });
    receiver
}

/// Writes until it is told to stop. Then, of our stack, what was sent and sent again.
fn send(stream: &Stream, stop: &AtomicBool, ours: bool) -> Result<Option<(u64, u64)>> {
    write_until(stream, stop)?;
    let Stream::Anabranch(stream) = stream else { return Ok(None) };
    ensure!(ours, "a stream of ours where the kernel's was to be");
    let subflows = stream.subflows()?;
    let subflow = subflows.first().context("a connection without a subflow")?;
    let sent = (subflow.bytes_sent, subflow.bytes_retrans);
    stream.abort();
    Ok(Some(sent))
}

/// Reads until `end`, and compares.
fn receive(stream: &Stream, start: Instant, end: Instant) -> Result<Flow> {
    let mut flow = Flow::default();
    read_until(stream, end, |now, bytes| {
        flow.bytes += bytes;
        let slot = ((now - start).as_nanos() / SLOT.as_nanos()) as usize;
        flow.slots.resize(flow.slots.len().max(slot + 1), 0);
        flow.slots[slot] += bytes;
    })?;
    Ok(flow)
}

/// Reads to the end of a stream of so many bytes. When that was.
fn drain(mut stream: &Stream, expected: usize) -> Result<Instant> {
    stream.set_read_timeout(PATIENCE)?;
    let pattern = Pattern::new();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    loop {
        match stream.read(&mut buffer).context("reading")? {
            0 => break,
            bytes => {
                ensure!(buffer[..bytes] == *pattern.slice(at, bytes), "wrong bytes after {at} of them");
                at += bytes as u64;
            }
        }
    }
    ensure!(at == expected as u64, "{at} bytes instead of {expected}");
    Ok(Instant::now())
}

/// What the kernel sent to a port, and of that again.
fn kernel_sent(netns: &Netns, port: u16) -> Result<(u64, u64)> {
    let text = netns.command("ss", &format!("-tinHO state established dport = :{port}"))?;
    let number = |name: &str| {
        let words = text.split_whitespace().filter_map(|word| word.strip_prefix(name)?.strip_prefix(':'));
        words.filter_map(|value| value.parse::<u64>().ok()).max()
    };
    let sent = number("bytes_sent").with_context(|| format!("no bytes_sent in {text:?}"))?;
    // What is nil is not shown.
    Ok((sent, number("bytes_retrans").unwrap_or(0)))
}
