//! Several workers: who gets what, what they hand to each other, and what becomes of the others when one fails.

mod common;

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anabranch::{ConnectOptions, Device, PathConfig, PathId, Sizes, Stack, TcpStream};
use anabranch_drivers::memory::{MemoryConfig, pair};
use anabranch_drivers::{Capabilities, Counters, State, TransmitError};
use anabranch_frame::{RxPacket, Transmit};
use common::{Pair, SERVER, bytes, kind, receive_all, send_all, serve_echo};

/// Waits until `done`, for 20 s at most.
fn wait_for(what: &str, done: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < limit, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Every table of every worker is empty and no mail waits.
fn wait_until_empty(stack: &Stack) {
    let empty = || stack.worker_info().iter().all(|info| info.sizes == Sizes::default() && info.mail_waiting == 0);
    wait_for("empty tables", || {
        let done = empty();
        if !done {
            thread::sleep(Duration::from_millis(50));
        }
        done
    });
}

#[test]
fn a_thousand_connections_come_and_go_and_leave_nothing() {
    const THREADS: usize = 8;
    const EACH: usize = 125;
    // Given two workers on either side and two paths, so that joins come in at whatever worker sent them,
    let (client, server) = Pair { workers: 2, paths: 2, ..Pair::default() }.build();
    let listener = server.listen((SERVER, 7)).unwrap();
    let acceptor = serve_echo(listener.try_clone().unwrap());
    // when a thousand connections send something, read it back and close,
    thread::scope(|scope| {
        for number in 0..THREADS {
            let client = &client;
            scope.spawn(move || {
                for round in 0..EACH {
                    let stream = client.connect((SERVER, 7)).unwrap();
                    let total = (number * EACH + round) * 97 % 60_000;
                    let (sent, heard) = thread::scope(|scope| {
                        let sender = scope.spawn(|| send_all(&stream, round as u64, total));
                        let heard = receive_all(&stream);
                        (sender.join().unwrap(), heard)
                    });
                    // then every byte comes back,
                    assert_eq!(heard, (total, sent));
                }
            });
        }
    });
    let served = |stack: &Stack, count: fn(&anabranch::Counters) -> u64| -> Vec<u64> {
        stack.worker_info().iter().map(|info| count(&info.counters)).collect()
    };
    // every worker has its share,
    for counts in [served(&client, |c| c.tcp_active_opens), served(&server, |c| c.tcp_passive_opens)] {
        assert!(counts.iter().all(|count| *count >= 350), "uneven: {counts:?}");
    }
    assert!(served(&server, |c| c.handed_over_rx).iter().all(|count| *count > 0));
    assert!(server.counters().mp_join_ack_rx > 0);
    // and nothing is left, neither tables nor forwarding entries nor mail.
    for stack in [&client, &server] {
        wait_until_empty(stack);
        let counters = stack.counters();
        assert_eq!((counters.tcp_curr_estab, counters.mp_curr_estab), (0, 0));
    }
    drop(listener);
    server.shutdown(Duration::ZERO);
    acceptor.join().unwrap();
}

#[test]
fn a_port_of_ours_is_in_use_whichever_worker_is_asked() {
    let (client, server) = Pair { workers: 4, ..Pair::default() }.build();
    serve_echo(server.listen((SERVER, 7)).unwrap());
    for port in 4000..4016 {
        let from = || {
            let local = Some(SocketAddr::from(([10, 0, 0, 1], port)));
            client.connect_with(SocketAddr::from(([10, 0, 0, 2], 7)), ConnectOptions { local, ..Default::default() })
        };
        let mut stream = from().unwrap();
        assert_eq!(stream.local_addr().unwrap().port(), port);
        for _ in 0..4 {
            assert_eq!(kind(from()), ErrorKind::AddrInUse);
        }
        stream.write_all(b"mine").unwrap();
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"mine");
    }
}

#[test]
fn many_wait_to_accept_and_all_hear_of_the_end() {
    // With a single worker those who wait do its turns.
    for workers in [1, 2] {
        many_wait_to_accept(workers);
    }
}

/// Nobody is left waiting, one connection after the other.
fn many_wait_to_accept(workers: usize) {
    const CONNECTIONS: usize = 200;
    let (client, server) = Pair { workers, ..Pair::default() }.build();
    let listener = server.listen((SERVER, 7)).unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let acceptors: Vec<_> = (0..6)
        .map(|_| {
            let (listener, accepted) = (listener.try_clone().unwrap(), Arc::clone(&accepted));
            thread::spawn(move || {
                let mut mine = 0;
                loop {
                    match listener.accept() {
                        Ok(_) => mine += 1,
                        Err(error) => return (mine, error.kind()),
                    }
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for count in 1..=CONNECTIONS {
        client.connect((SERVER, 7)).unwrap();
        wait_for("the connection to be accepted", || accepted.load(Ordering::Relaxed) == count);
    }
    server.shutdown(Duration::from_millis(10));
    let ends: Vec<_> = acceptors.into_iter().map(|acceptor| acceptor.join().unwrap()).collect();
    assert!(ends.iter().all(|(_, error)| *error == ErrorKind::NotConnected), "{ends:?}");
    assert_eq!(ends.iter().map(|(count, _)| count).sum::<usize>(), CONNECTIONS);
}

/// A device that takes its worker down with it.
struct Fatal {
    device: Box<dyn Device>,
    strike: Arc<AtomicBool>,
}

impl Device for Fatal {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn path(&self) -> PathId {
        self.device.path()
    }

    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn state(&self) -> State {
        self.device.state()
    }

    fn receive(&mut self, batch: &mut Vec<RxPacket>, max: usize) -> io::Result<usize> {
        assert!(!self.strike.load(Ordering::Relaxed), "a worker fails, as this test wants it to");
        self.device.receive(batch, max)
    }

    fn transmit(&mut self, packet: &Transmit) -> Result<(), TransmitError> {
        self.device.transmit(packet)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.device.poll_fd()
    }

    fn counters(&self) -> Counters {
        self.device.counters()
    }
}

#[test]
fn a_worker_that_panics_leaves_the_others_at_work() {
    // Given a client with one worker and a server with three, one queue of which will fail,
    let id = PathId(0);
    let path = |host: u8| PathConfig::new(id, vec![format!("10.0.0.{host}/24").parse().unwrap()]);
    let strike = Arc::new(AtomicBool::new(false));
    let (ours, theirs): (Vec<_>, Vec<_>) = (0..3).map(|_| pair([id, id], MemoryConfig::default()).unwrap()).unzip();
    let theirs = theirs.into_iter().enumerate().map(|(at, device)| {
        let device: Box<dyn Device> = Box::new(device);
        let strike = Arc::clone(&strike);
        if at == 1 { Box::new(Fatal { device, strike }) as Box<dyn Device> } else { device }
    });
    let server = Stack::builder().workers(3).mptcp(false).devices(path(2), theirs.collect()).build().unwrap();
    let ours = ours.into_iter().map(|device| Box::new(device) as Box<dyn Device>).collect();
    let client = Stack::builder().workers(3).mptcp(false).devices(path(1), ours).build().unwrap();
    serve_echo(server.listen((SERVER, 7)).unwrap());
    let echo = |mut stream: &TcpStream, round: u64| -> io::Result<()> {
        let said = bytes(round, 5_000);
        stream.write_all(&said)?;
        let mut heard = vec![0; said.len()];
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.read_exact(&mut heard)?;
        assert!(heard == said, "another echo than what was said");
        Ok(())
    };
    let streams: Vec<_> = (0..30).map(|_| client.connect((SERVER, 7)).unwrap()).collect();
    streams.iter().for_each(|stream| echo(stream, 1).unwrap());
    let place = |stack: &Stack, stream: &TcpStream| {
        let (ours, theirs) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let mine = |info: &anabranch::ConnInfo| {
            (info.local, info.remote) == (ours, theirs) || (info.remote, info.local) == (ours, theirs)
        };
        stack.connections().into_iter().find(|connection| mine(&connection.info)).map(|connection| connection.worker)
    };
    let places: Vec<_> = streams.iter().map(|stream| place(&server, stream).expect("the server knows it")).collect();
    // when it does,
    strike.store(true, Ordering::Relaxed);
    wait_for("the worker's end", || {
        // It fails at the next packet.
        drop(client.connect_timeout(&SocketAddr::from(([10, 0, 0, 2], 7)), Duration::from_millis(20)));
        !server.worker_info()[1].alive
    });
    // then the others' connections go on, as far as they need no packet of the queue that is gone,
    for (stream, worker) in streams.iter().zip(places).filter(|(stream, _)| place(&client, stream) != Some(1)) {
        assert_eq!(echo(stream, 2).is_ok(), worker != 1, "a connection of worker {worker}");
    }
    // new ones are served by those that are left,
    let fresh: Vec<_> = (0..12).filter_map(|_| client.connect((SERVER, 7)).ok()).collect();
    assert!(fresh.len() >= 8, "{} of 12 connected", fresh.len());
    fresh.iter().filter(|stream| place(&client, stream) != Some(1)).for_each(|stream| echo(stream, 3).unwrap());
    assert!(fresh.iter().all(|stream| place(&server, stream) != Some(1)));
    assert_eq!(server.worker_info().iter().map(|info| info.alive).collect::<Vec<_>>(), [true, false, true]);
    // and a shutdown says that not all was well.
    assert!(!server.shutdown(Duration::ZERO));
}
