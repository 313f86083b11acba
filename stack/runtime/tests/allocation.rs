//! In steady state sockets, workers and devices allocate nothing, whatever passes.
//!
//! The whole process is counted, all threads together, hence one test. Threads are not in step: now and then a queue
//! gets longer than it ever was and grows. So a transfer is repeated until one passes without an allocation; if a packet, a
//! read or a write cost one, none ever would.
//!
//! One thing is left out: bytes that come in single segments and faster than they are read wait in a ring that
//! takes a block from the allocator for every 31 of them.

use std::io::{Read as _, Write as _};
use std::thread;

use anabranch::{Device, EndpointFlags, PathConfig, PathId, SocketOptions, Stack, TcpStream};
use anabranch_counting::{Counting, allocations};
use anabranch_drivers::memory::{MemoryConfig, pair};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BULK: usize = 32 << 20;
const CHUNK: usize = 256 << 10;
const REQUESTS: usize = 2000;
const ROUNDS: usize = 40;

/// Two stacks with `paths` links between them, and a connection.
fn connect(paths: u16, offload: bool) -> [(Stack, TcpStream); 2] {
    let options = SocketOptions {
        mptcp: paths > 1,
        nodelay: true,
        // What is under way fits into the idle buffers that devices keep.
        send_buffer_max: 1 << 20,
        recv_buffer_max: 512 << 10,
        ..SocketOptions::default()
    };
    let mut builders = [Stack::builder(), Stack::builder()];
    for path in 0..paths {
        let id = PathId(path);
        let (a, b) = pair([id, id], MemoryConfig { offload, ..MemoryConfig::default() }).unwrap();
        let mut devices: [Option<Box<dyn Device>>; 2] = [Some(Box::new(a)), Some(Box::new(b))];
        let mut host = 0;
        builders = builders.map(|builder| {
            let addr = format!("10.0.{path}.{}/24", host + 1).parse().unwrap();
            let flags = EndpointFlags { subflow: host == 0 && path > 0, ..EndpointFlags::default() };
            let device = devices[host].take().into_iter().collect();
            host += 1;
            builder.devices(PathConfig { flags, ..PathConfig::new(id, vec![addr]) }, device)
        });
    }
    let [client, server] = builders.map(|builder| builder.socket_options(options.clone()).build().unwrap());
    let listener = server.listen("10.0.0.2:5001").unwrap();
    let ours = client.connect(listener.local_addr().unwrap()).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    [(client, ours), (server, theirs)]
}

/// Repeats `work` until it costs no more than `allowed` allocations. How many it cost each time.
fn until_free(allowed: u64, mut work: impl FnMut()) -> Vec<u64> {
    let mut costs = Vec::with_capacity(ROUNDS);
    while costs.len() < ROUNDS && costs.last().is_none_or(|&cost| cost > allowed) {
        let before = allocations();
        work();
        costs.push(allocations() - before);
    }
    costs
}

/// `times` messages of `len` bytes there, each answered with as many (or not).
fn exchange(ours: &TcpStream, theirs: &TcpStream, len: usize, times: usize, answered: bool, allowed: u64) -> Vec<u64> {
    let (mut there, mut back) = (vec![7; len], vec![7; len]);
    // A thread that lives through all rounds: starting one allocates.
    let (go, wait) = std::sync::mpsc::sync_channel::<()>(1);
    let (done, finished) = std::sync::mpsc::sync_channel::<()>(1);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut theirs = theirs;
            while wait.recv().is_ok() {
                for _ in 0..times {
                    theirs.read_exact(&mut back).unwrap();
                    if answered {
                        theirs.write_all(&back).unwrap();
                    }
                }
                done.send(()).unwrap();
            }
        });
        let costs = until_free(allowed, || {
            let mut ours = ours;
            go.send(()).unwrap();
            for _ in 0..times {
                ours.write_all(&there).unwrap();
                if answered {
                    ours.read_exact(&mut there).unwrap();
                }
            }
            finished.recv().unwrap();
        });
        drop(go);
        costs
    })
}

#[test]
fn nothing_is_allocated_for_a_packet() {
    for (paths, offload) in [(1, true), (1, false), (2, true), (2, false)] {
        let [(_client, ours), (_server, theirs)] = connect(paths, offload);
        exchange(&ours, &theirs, 1, 10, true, u64::MAX);
        for (from, to) in [(&ours, &theirs), (&theirs, &ours)] {
            // Without offload a ring grows for 24 payloads; with two paths many packets wait behind a hole that the other
            // path fills, six of them or more in each node of a map.
            let packets = (BULK / 1448) as u64;
            let allowed = match (paths, offload) {
                (_, true) => 0,
                (1, false) => packets / 24,
                (_, false) => packets / 6,
            };
            let costs = exchange(from, to, CHUNK, BULK / CHUNK, false, allowed);
            assert!(costs.last() <= Some(&allowed), "bulk, {paths} paths, offload {offload}: {costs:?}");
        }
        for len in [1, 2000, 20_000] {
            let costs = exchange(&ours, &theirs, len, REQUESTS, true, 0);
            assert_eq!(costs.last(), Some(&0), "{len} bytes, {paths} paths, offload {offload}: {costs:?}");
        }
        assert_eq!(ours.subflows().unwrap().len(), usize::from(paths));
    }
}
