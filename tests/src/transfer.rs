//! Many bytes both ways at once, compared byte by byte and by SHA-256.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// Bytes of one write, and the most of one read.
const CHUNK: usize = 256 << 10;

/// A connected socket, the kernel's or ours, as both have it in std's manner.
pub trait Stream: Send + Sync {
    /// Reads some bytes; 0 at the end of the stream.
    ///
    /// # Errors
    /// As `Read::read`.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// As `Write::write_all`.
    fn send_all(&self, bytes: &[u8]) -> io::Result<()>;
    /// Ends the sending direction.
    ///
    /// # Errors
    /// As `TcpStream::shutdown`.
    fn finish(&self) -> io::Result<()>;
    /// How long a read or a write may wait.
    ///
    /// # Errors
    /// As `TcpStream::set_read_timeout`.
    fn set_patience(&self, patience: Duration) -> io::Result<()>;
    /// What the socket knows of itself, for the message of a failed test.
    fn describe(&self) -> String;
}

/// Both have the same methods.
macro_rules! stream {
    ($socket:ty, $describe:expr) => {
        impl Stream for $socket {
            fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
                let mut this = self;
                this.read(buffer)
            }

            fn send_all(&self, bytes: &[u8]) -> io::Result<()> {
                let mut this = self;
                this.write_all(bytes)
            }

            fn finish(&self) -> io::Result<()> {
                self.shutdown(Shutdown::Write)
            }

            fn set_patience(&self, patience: Duration) -> io::Result<()> {
                self.set_read_timeout(Some(patience))?;
                self.set_write_timeout(Some(patience))
            }

            fn describe(&self) -> String {
                $describe(self)
            }
        }
    };
}

stream!(std::net::TcpStream, |_| String::new());
stream!(anabranch::TcpStream, |this: &Self| format!("{:?} {:#?}", this.info(), this.subflows()));

/// What to move.
pub struct Transfer<'a> {
    /// Bytes from the first stream to the second.
    pub forward: u64,
    /// Bytes from the second stream to the first.
    pub backward: u64,
    /// Longest time a read or write may wait.
    pub patience: Duration,
    /// Done once, on a thread of its own, when so many bytes have arrived, both directions together.
    pub trigger: Option<(u64, Box<dyn FnOnce() + Send + 'a>)>,
}

impl fmt::Debug for Transfer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transfer {{ forward: {}, backward: {} }}", self.forward, self.backward)
    }
}

/// One direction of a transfer, as both ends saw it.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Bytes that were written, and their hash.
    pub sent: (u64, String),
    /// Bytes that were read, and their hash.
    pub received: (u64, String),
    /// Offset of the first byte that is not what was written.
    pub first_difference: Option<u64>,
    /// Longest time between two reads that gave something.
    pub longest_gap: Duration,
    /// From the start to the end of the stream.
    pub elapsed: Duration,
    /// What either end reported.
    pub errors: Vec<String>,
}

/// Both directions of a transfer.
#[derive(Clone, Debug)]
pub struct Report {
    /// From the first stream to the second.
    pub forward: Flow,
    /// From the second stream to the first.
    pub backward: Flow,
    seed: u64,
}

impl Report {
    /// Whether both streams arrived whole and ended in good order.
    ///
    /// # Errors
    /// What is wrong with which direction.
    pub fn intact(&self) -> Result<()> {
        for (name, flow) in [("forward", &self.forward), ("backward", &self.backward)] {
            let whole = flow.errors.is_empty() && flow.first_difference.is_none() && flow.sent == flow.received;
            ensure!(
                whole,
                "{name} stream is not intact (ANABRANCH_TEST_SEED={}): wrote {} bytes, read {}, first difference {:?}, errors {:?}\n\
                 the other one: {:?}",
                self.seed,
                flow.sent.0,
                flow.received.0,
                flow.first_difference,
                flow.errors,
                if name == "forward" { &self.backward } else { &self.forward },
            );
        }
        Ok(())
    }
}

impl<'a> Transfer<'a> {
    /// `bytes` each way.
    #[must_use]
    pub fn both_ways(bytes: u64) -> Self {
        Self { forward: bytes, backward: bytes, patience: Duration::from_secs(20), trigger: None }
    }

    /// `bytes` from the first stream to the second; the other way only the end.
    #[must_use]
    pub fn one_way(bytes: u64) -> Self {
        Self { backward: 0, ..Self::both_ways(bytes) }
    }

    /// Does `action` once when `bytes` have arrived.
    #[must_use]
    pub fn at(mut self, bytes: u64, action: impl FnOnce() + Send + 'a) -> Self {
        self.trigger = Some((bytes, Box::new(action)));
        self
    }

    /// Moves the bytes, ends both directions and waits for both ends of stream.
    ///
    /// # Panics
    /// If a socket refuses a timeout.
    #[must_use]
    pub fn run(self, first: &dyn Stream, second: &dyn Stream) -> Report {
        for stream in [first, second] {
            stream.set_patience(self.patience).expect("setting timeouts");
        }
        let seed = seed();
        let (at, action) = match self.trigger {
            Some((at, action)) => (at, Some(action)),
            None => (u64::MAX, None),
        };
        let progress = Progress { bytes: AtomicU64::new(0), at, action: Mutex::new(action) };
        let start = Instant::now();
        let (sent_forward, sent_backward, got_forward, got_backward) = thread::scope(|scope| {
            let send_forward = scope.spawn(|| Sent::run(first, seed, self.forward));
            let send_backward = scope.spawn(|| Sent::run(second, !seed, self.backward));
            let get_forward = scope.spawn(|| Received::run(second, seed, start, scope, &progress));
            let get_backward = scope.spawn(|| Received::run(first, !seed, start, scope, &progress));
            (
                send_forward.join().expect("writer"),
                send_backward.join().expect("writer"),
                get_forward.join().expect("reader"),
                get_backward.join().expect("reader"),
            )
        });
        let (first, second) = (first.describe(), second.describe());
        let flow = |sent: Sent, got: Received| sent.beside(got, &[&first, &second]);
        Report { forward: flow(sent_forward, got_forward), backward: flow(sent_backward, got_backward), seed }
    }
}

/// One byte each way, so that both ends know that the connection is established in full.
///
/// # Errors
/// When either byte does not arrive.
pub fn greet(client: &dyn Stream, server: &dyn Stream) -> Result<()> {
    let mut byte = [0];
    for stream in [client, server] {
        stream.set_patience(Duration::from_secs(20))?;
    }
    client.send_all(b"?").context("the client's greeting")?;
    ensure!(server.receive(&mut byte).context("reading the greeting")? == 1 && byte == *b"?", "a wrong greeting");
    server.send_all(b"!").context("the server's greeting")?;
    ensure!(client.receive(&mut byte).context("reading the answer")? == 1 && byte == *b"!", "a wrong answer");
    Ok(())
}

/// Sends five megabytes one way, compares them, and leaves both ends open.
///
/// # Errors
/// When something does not arrive, or arrives wrong.
pub fn pass_megabytes(from: &dyn Stream, to: &dyn Stream) -> Result<()> {
    let mut pattern = Pattern::new(seed());
    let sent: Vec<u8> = (0..20).flat_map(|_| pattern.next(CHUNK).to_vec()).collect();
    let mut received = vec![0; sent.len()];
    thread::scope(|scope| {
        let writing = scope.spawn(|| from.send_all(&sent));
        let mut at = 0;
        while at < received.len() {
            let count = to.receive(&mut received[at..]).context("reading")?;
            ensure!(count > 0, "the stream ended after {at} bytes");
            at += count;
        }
        writing.join().expect("no panic there").context("writing")?;
        ensure!(sent == received, "the bytes differ");
        Ok(())
    })
}

/// The seed of what is sent: `ANABRANCH_TEST_SEED`, or always the same.
#[must_use]
pub fn seed() -> u64 {
    std::env::var("ANABRANCH_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(8684)
}

/// A pseudo-random stream of bytes, the same for the same seed.
struct Pattern {
    rng: ChaCha8Rng,
    chunk: Vec<u8>,
    at: usize,
}

impl Pattern {
    fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), chunk: vec![0; CHUNK], at: CHUNK }
    }

    /// The next bytes, at least one and at most `max`.
    fn next(&mut self, max: usize) -> &[u8] {
        if self.at == CHUNK {
            self.rng.fill_bytes(&mut self.chunk);
            self.at = 0;
        }
        let from = self.at;
        self.at = CHUNK.min(from + max);
        &self.chunk[from..self.at]
    }

    /// Offset of the first byte of `bytes` that is not the stream's next one.
    fn difference(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            let expected = self.next(rest.len());
            let rest = &rest[..expected.len()];
            if rest != expected {
                return rest.iter().zip(expected).position(|(got, want)| got != want).map(|at| done + at);
            }
            done += rest.len();
        }
        None
    }
}

/// How far a transfer is, and what is to be done at some point of it.
struct Progress<'a> {
    bytes: AtomicU64,
    at: u64,
    action: Mutex<Option<Box<dyn FnOnce() + Send + 'a>>>,
}

struct Sent {
    bytes: u64,
    hash: Sha256,
    error: Option<String>,
}

impl Sent {
    fn run(stream: &dyn Stream, seed: u64, total: u64) -> Self {
        let mut pattern = Pattern::new(seed);
        let mut sent = Self { bytes: 0, hash: Sha256::new(), error: None };
        while sent.bytes < total {
            let chunk = pattern.next(usize::try_from(total - sent.bytes).unwrap_or(CHUNK).min(CHUNK));
            if let Err(error) = stream.send_all(chunk) {
                sent.error = Some(format!("writing after {} bytes: {}", sent.bytes, explain(&error)));
                return sent;
            }
            sent.hash.update(chunk);
            sent.bytes += chunk.len() as u64;
        }
        if let Err(error) = stream.finish() {
            sent.error = Some(format!("ending the stream: {}", explain(&error)));
        }
        sent
    }

    fn beside(self, got: Received, descriptions: &[&str]) -> Flow {
        let mut errors: Vec<String> = [self.error, got.error].into_iter().flatten().collect();
        if !errors.is_empty() {
            errors.extend(descriptions.iter().filter(|text| !text.is_empty()).map(ToString::to_string));
        }
        Flow {
            sent: (self.bytes, hex(self.hash)),
            received: (got.bytes, hex(got.hash)),
            first_difference: got.first_difference,
            longest_gap: got.longest_gap,
            elapsed: got.elapsed,
            errors,
        }
    }
}

struct Received {
    bytes: u64,
    hash: Sha256,
    first_difference: Option<u64>,
    longest_gap: Duration,
    elapsed: Duration,
    error: Option<String>,
}

impl Received {
    fn run<'scope, 'env, 'a: 'scope>(
        stream: &dyn Stream,
        seed: u64,
        start: Instant,
        scope: &'scope thread::Scope<'scope, 'env>,
        progress: &Progress<'a>,
    ) -> Self {
        let mut pattern = Pattern::new(seed);
        let mut buffer = vec![0; CHUNK];
        let mut got = Self {
            bytes: 0,
            hash: Sha256::new(),
            first_difference: None,
            longest_gap: Duration::ZERO,
            elapsed: Duration::ZERO,
            error: None,
        };
        let mut last = Instant::now();
        loop {
            let count = match stream.receive(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    got.error = Some(format!("reading after {} bytes: {}", got.bytes, explain(&error)));
                    break;
                }
            };
            let now = Instant::now();
            got.longest_gap = got.longest_gap.max(now - last);
            last = now;
            let bytes = &buffer[..count];
            got.hash.update(bytes);
            if got.first_difference.is_none() {
                got.first_difference = pattern.difference(bytes).map(|at| got.bytes + at as u64);
            }
            got.bytes += count as u64;
            if progress.bytes.fetch_add(count as u64, Ordering::Relaxed) + count as u64 >= progress.at
                && let Some(action) = progress.action.lock().expect("no panic under this lock").take()
            {
                scope.spawn(action);
            }
        }
        got.elapsed = start.elapsed();
        got
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("the stream stands still ({error})"),
        _ => error.to_string(),
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
