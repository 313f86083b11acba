//! Two stacks back to back in this process.
#![allow(dead_code)] // each test binary uses its part of it

use std::io::{Read, Write};
use std::time::Duration;

use anabranch::{Builder, Device, EndpointFlags, PathConfig, PathId, Stack, TcpListener, TcpStream};
use anabranch_drivers::memory::{MemoryConfig, pair};
use sha2::{Digest, Sha256};

/// Where the second stack of a pair is on path 0.
pub(crate) const SERVER: &str = "10.0.0.2";

/// What a pair of stacks shall be.
pub(crate) struct Pair {
    pub(crate) workers: usize,
    pub(crate) paths: u16,
    pub(crate) config: MemoryConfig,
    /// Where the client's packets are recorded.
    pub(crate) capture: Option<std::path::PathBuf>,
    /// Called for the client's and the server's builder.
    pub(crate) tune: fn(Builder) -> Builder,
}

impl Default for Pair {
    fn default() -> Self {
        Self { workers: 1, paths: 1, config: MemoryConfig::default(), capture: None, tune: |builder| builder }
    }
}

impl Pair {
    /// The client with 10.0.p.1 and fd00:p::1, the server with 10.0.p.2 and fd00:p::2 on each path p. The client may open subflows from the
    /// second path on, the server announces its addresses.
    pub(crate) fn build(&self) -> (Stack, Stack) {
        let seed = std::env::var("ANABRANCH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7u64);
        println!("ANABRANCH_SEED={seed}");
        let builder =
            |seed| (self.tune)(Stack::builder().workers(self.workers).seed(seed).time_wait(Duration::from_secs(1)));
        let (mut client, mut server) = (builder(seed), builder(seed + 1));
        if let Some(file) = &self.capture {
            client = client.pcap(file);
        }
        for path in 0..self.paths {
            let id = PathId(path);
            let pairs = (0..self.workers).map(|_| pair([id, id], self.config).unwrap());
            let (ours, theirs): (Vec<_>, Vec<_>) =
                pairs.map(|(a, b)| (Box::new(a) as Box<dyn Device>, Box::new(b) as Box<dyn Device>)).unzip();
            let config = |host, flags| {
                let addrs = [format!("10.0.{path}.{host}/24"), format!("fd00:{path}::{host}/64")];
                let addrs = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
                PathConfig { flags, name: format!("m{path}"), ..PathConfig::new(id, addrs) }
            };
            let extra = path > 0;
            client = client.devices(config(1, EndpointFlags { subflow: extra, ..EndpointFlags::default() }), ours);
            server = server.devices(config(2, EndpointFlags { signal: extra, ..EndpointFlags::default() }), theirs);
        }
        (client.build().unwrap(), server.build().unwrap())
    }
}

/// Both ends of one connection.
pub(crate) fn connected(client: &Stack, server: &Stack) -> (TcpStream, TcpStream) {
    let listener = server.listen((SERVER, 0)).unwrap();
    let ours = client.connect(listener.local_addr().unwrap()).unwrap();
    let (theirs, peer) = listener.accept().unwrap();
    assert_eq!(ours.local_addr().unwrap(), peer);
    (ours, theirs)
}

/// A listener that answers every connection with what it says.
pub(crate) fn serve_echo(listener: TcpListener) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { break };
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut &stream, &mut &stream);
            });
        }
    })
}

/// `len` bytes that do not repeat in step with any packet size.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Sends `total` bytes and the end of the stream; their hash.
pub(crate) fn send_all(mut stream: &TcpStream, seed: u64, total: usize) -> [u8; 32] {
    let chunk = bytes(seed, 1 << 20);
    let mut hash = Sha256::new();
    let mut left = total;
    while left > 0 {
        let n = left.min(chunk.len());
        stream.write_all(&chunk[..n]).unwrap();
        hash.update(&chunk[..n]);
        left -= n;
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    hash.finalize().into()
}

/// Reads to the end; how many bytes there were, and their hash.
pub(crate) fn receive_all(mut stream: &TcpStream) -> (usize, [u8; 32]) {
    let mut buf = vec![0; 256 << 10];
    let mut hash = Sha256::new();
    let mut total = 0;
    loop {
        let n = stream.read(&mut buf).unwrap();
        if n == 0 {
            return (total, hash.finalize().into());
        }
        hash.update(&buf[..n]);
        total += n;
    }
}

/// The kind of an error that was due.
pub(crate) fn kind<T: std::fmt::Debug>(result: std::io::Result<T>) -> std::io::ErrorKind {
    result.expect_err("an error was due").kind()
}
