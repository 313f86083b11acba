//! Blocking sockets over two stacks in memory behave like those of `std::net`.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Pair, SERVER, bytes, connected, kind, receive_all, send_all, serve_echo};

#[test]
fn an_echo_comes_back() {
    let (client, server) = Pair::default().build();
    let listener = server.listen((SERVER, 7)).unwrap();
    assert_eq!(listener.local_addr().unwrap().to_string(), "10.0.0.2:7");
    serve_echo(listener);

    let mut stream = client.connect((SERVER, 7)).unwrap();
    for round in 0..200 {
        let said = bytes(round, 1 + 37 * round as usize);
        stream.write_all(&said).unwrap();
        let mut heard = vec![0; said.len()];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, said);
    }
    assert_eq!(stream.peer_addr().unwrap().to_string(), "10.0.0.2:7");
    assert!(stream.info().unwrap().mptcp);
    assert_eq!(stream.subflows().unwrap().len(), 1);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0);
}

#[test]
fn within_its_budget_a_busy_worker_does_not_sleep() {
    // Given a budget that no round trip uses up,
    let patient = Pair { tune: |builder| builder.busy_poll(Duration::from_secs(1)), ..Pair::default() };
    let (client, server) = patient.build();
    serve_echo(server.listen((SERVER, 7)).unwrap());
    let mut stream = client.connect((SERVER, 7)).unwrap();
    let sleeps = || -> u64 { [&client, &server].iter().map(|stack| stack.worker_stats()[0].sleeps).sum() };
    let before = sleeps();
    for round in 0..500 {
        let said = bytes(round, 1 + round as usize);
        stream.write_all(&said).unwrap();
        let mut heard = vec![0; said.len()];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, said);
    }
    // then nobody sleeps while there is something to come, but for a machine that stands still for a second.
    assert!(sleeps() - before < 50, "{} sleeps in 500 round trips", sleeps() - before);
    // And when all is quiet a timeout still ends a read.
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    assert_eq!(kind(stream.read(&mut [0; 1])), ErrorKind::WouldBlock);
}

fn both_ways(pair: &Pair, total: usize) {
    let (client, server) = pair.build();
    let (ours, theirs) = connected(&client, &server);
    let (ours, theirs) = (&ours, &theirs);
    thread::scope(|scope| {
        let up = scope.spawn(move || send_all(ours, 1, total));
        let down = scope.spawn(move || send_all(theirs, 2, total));
        let got_up = scope.spawn(move || receive_all(theirs));
        let got_down = scope.spawn(move || receive_all(ours));
        assert_eq!(got_up.join().unwrap(), (total, up.join().unwrap()));
        assert_eq!(got_down.join().unwrap(), (total, down.join().unwrap()));
    });
}

#[test]
fn bulk_passes_both_ways_at_once() {
    both_ways(&Pair::default(), 100 << 20);
}

#[test]
fn bulk_passes_over_two_paths_and_two_workers() {
    both_ways(&Pair { workers: 2, paths: 2, ..Pair::default() }, 50 << 20);
}

#[test]
fn bulk_passes_as_plain_tcp() {
    both_ways(&Pair { tune: |builder| builder.mptcp(false), ..Pair::default() }, 20 << 20);
}

#[test]
fn a_small_queue_holds_the_stack_back_and_loses_nothing() {
    let mut pair = Pair::default();
    pair.config.queue_len = 4;
    both_ways(&pair, 20 << 20);
}

#[test]
fn every_connection_of_many_finds_its_worker() {
    let (client, server) = Pair { workers: 2, paths: 2, ..Pair::default() }.build();
    let listener = server.listen((SERVER, 7)).unwrap();
    serve_echo(listener);
    let streams: Vec<_> = (0..40).map(|_| client.connect((SERVER, 7)).unwrap()).collect();
    for (at, mut stream) in streams.iter().enumerate() {
        let said = bytes(at as u64, 100_000);
        thread::scope(|scope| {
            let mut writer = stream;
            let said = &said;
            scope.spawn(move || writer.write_all(said).unwrap());
            let mut heard = vec![0; said.len()];
            stream.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, said);
        });
    }
    // Joins are made in the background, on whatever worker their packets come in: from the second address to the
    // server's first, and to the one that it announces.
    let limit = Instant::now() + Duration::from_secs(10);
    while streams.iter().any(|stream| stream.subflows().unwrap().len() < 3) {
        assert!(Instant::now() < limit, "not every connection was joined");
        thread::yield_now();
    }
    assert!(client.connections().iter().any(|connection| connection.worker == 0));
    assert!(client.connections().iter().any(|connection| connection.worker == 1));
    assert_eq!((client.counters().tcp_attempt_fails, server.counters().mp_join_no_token_found), (0, 0));
    assert!(client.worker_stats().iter().all(|stats| stats.mail_dropped == 0));
}

#[test]
fn half_a_connection_goes_on() {
    let (client, server) = Pair::default().build();
    let (mut ours, mut theirs) = connected(&client, &server);

    ours.write_all(b"question").unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    assert_eq!(kind(ours.write(b"more")), ErrorKind::BrokenPipe);
    let mut heard = Vec::new();
    theirs.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"question");

    theirs.write_all(&vec![5; 1_000_000]).unwrap();
    drop(theirs);
    let mut heard = Vec::new();
    ours.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, vec![5; 1_000_000]);
}

#[test]
fn timeouts_and_nonblocking_mode_give_would_block() {
    let (client, server) = Pair::default().build();
    let (mut ours, mut theirs) = connected(&client, &server);
    let listener = server.listen((SERVER, 0)).unwrap();

    ours.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    assert_eq!(ours.read_timeout().unwrap(), Some(Duration::from_millis(30)));
    let begin = Instant::now();
    assert_eq!(kind(ours.read(&mut [0; 1])), ErrorKind::WouldBlock);
    assert!(begin.elapsed() >= Duration::from_millis(30));
    assert_eq!(kind(ours.set_write_timeout(Some(Duration::ZERO))), ErrorKind::InvalidInput);

    ours.set_nonblocking(true).unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(kind(ours.read(&mut [0; 1])), ErrorKind::WouldBlock);
    assert_eq!(kind(ours.peek(&mut [0; 1])), ErrorKind::WouldBlock);
    assert_eq!(kind(listener.accept()), ErrorKind::WouldBlock);
    let chunk = vec![3; 1 << 20];
    let mut written = 0;
    loop {
        match ours.write(&chunk) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock && client.connections()[0].info.send_window == 0 => {
                break;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(written < 200 << 20, "somebody buffers without bound");
    }
    ours.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    theirs.read_to_end(&mut heard).unwrap();
    assert_eq!(heard.len(), written);
}

#[test]
fn a_write_gives_up_after_its_timeout() {
    let (client, server) = Pair::default().build();
    let (mut ours, _theirs) = connected(&client, &server);
    ours.set_write_timeout(Some(Duration::from_millis(30))).unwrap();
    let error = loop {
        if let Err(error) = ours.write(&[9; 100_000]) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn peeked_bytes_are_read_again() {
    let (client, server) = Pair::default().build();
    let (mut ours, mut theirs) = connected(&client, &server);
    theirs.write_all(b"peekaboo").unwrap();
    let mut seen = [0; 4];
    assert_eq!(ours.peek(&mut seen).unwrap(), 4);
    assert_eq!(&seen, b"peek");
    let mut heard = [0; 8];
    ours.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"peekaboo");
}

#[test]
fn clones_share_one_connection_between_threads() {
    let (client, server) = Pair::default().build();
    let (ours, theirs) = connected(&client, &server);
    let (received, sent) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            let mut writer = ours.try_clone().unwrap();
            let sent = &sent;
            scope.spawn(move || {
                for round in 0..50 {
                    writer.write_all(&vec![1; 1_000 * round]).unwrap();
                    sent.fetch_add(1_000 * round, Ordering::Relaxed);
                }
            });
        }
        drop(ours);
        for _ in 0..3 {
            let mut reader = theirs.try_clone().unwrap();
            let received = &received;
            scope.spawn(move || {
                let mut buf = [0; 10_000];
                loop {
                    match reader.read(&mut buf).unwrap() {
                        0 => break,
                        n => received.fetch_add(n, Ordering::Relaxed),
                    };
                }
            });
        }
    });
    assert_eq!(received.into_inner(), sent.into_inner());
}

#[test]
fn dropping_with_unread_bytes_resets_the_connection() {
    let (client, server) = Pair::default().build();
    let (mut ours, mut theirs) = connected(&client, &server);
    ours.write_all(&[1; 100_000]).unwrap();
    theirs.read_exact(&mut [0; 10]).unwrap();
    drop(theirs);

    assert_eq!(kind(ours.read(&mut [0; 9])), ErrorKind::ConnectionReset);
    assert_eq!(ours.read(&mut [0; 9]).unwrap(), 0);
    assert_eq!(kind(ours.write(b"x")), ErrorKind::BrokenPipe);
    assert_eq!(kind(ours.shutdown(Shutdown::Both)), ErrorKind::NotConnected);
}

#[test]
fn dropping_in_the_middle_of_a_transfer_wakes_the_other_side() {
    let (client, server) = Pair::default().build();
    let (ours, theirs) = connected(&client, &server);
    let writer = thread::spawn(move || {
        let mut ours = ours;
        loop {
            if let Err(error) = ours.write_all(&[1; 100_000]) {
                break error.kind();
            }
        }
    });
    let mut reader = theirs;
    reader.read_exact(&mut vec![0; 5_000_000]).unwrap();
    drop(reader);
    let kind = writer.join().unwrap();
    assert!(matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{kind:?}");
}

#[test]
fn an_abort_is_heard_on_both_sides() {
    let (client, server) = Pair::default().build();
    let (mut ours, theirs) = connected(&client, &server);
    let reader = thread::spawn(move || {
        let mut theirs = theirs;
        (kind(theirs.read(&mut [0; 9])), theirs.take_error().unwrap().is_none())
    });
    ours.abort();
    assert_eq!(kind(ours.read(&mut [0; 9])), ErrorKind::ConnectionAborted);
    assert_eq!(reader.join().unwrap(), (ErrorKind::ConnectionReset, true));
    assert_eq!(client.counters().mp_fastclose_tx, 1);
}

#[test]
fn nobody_listens() {
    let (client, server) = Pair::default().build();
    assert_eq!(kind(client.connect((SERVER, 9))), ErrorKind::ConnectionRefused);
    assert_eq!(
        kind(client.connect_timeout(&SocketAddr::new(SERVER.parse().unwrap(), 9), Duration::ZERO)),
        ErrorKind::InvalidInput
    );
    drop(server);
}

#[test]
fn the_unspecified_address_of_ipv6_hears_both_families() {
    let (client, server) = Pair::default().build();
    let listener = server.listen("[::]:7").unwrap();
    for addr in ["10.0.0.2:7", "[fd00:0::2]:7"] {
        let mut stream = client.connect(addr).unwrap();
        let (mut accepted, peer) = listener.accept().unwrap();
        assert_eq!((stream.local_addr().unwrap(), stream.peer_addr().unwrap()), (peer, addr.parse().unwrap()));
        stream.write_all(b"hello").unwrap();
        let mut heard = [0; 5];
        accepted.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
    }
    assert_eq!(kind(server.listen("0.0.0.0:7")), ErrorKind::AddrInUse);
    drop(listener);

    let listener = server.listen("0.0.0.0:7").unwrap();
    client.connect("10.0.0.2:7").unwrap();
    assert_eq!(kind(client.connect("[fd00:0::2]:7")), ErrorKind::ConnectionRefused);
    drop(listener);
}

#[test]
fn nobody_answers() {
    let (client, server) = Pair::default().build();
    // Nobody has this address, and nobody says so.
    let addr = "10.0.0.77:9".parse().unwrap();
    let begin = Instant::now();
    assert_eq!(kind(client.connect_timeout(&addr, Duration::from_millis(50))), ErrorKind::TimedOut);
    assert!(begin.elapsed() >= Duration::from_millis(50));
    assert_eq!(client.connections().len(), 0);
    drop(server);
}

#[test]
fn addresses_in_use_and_names_unknown() {
    let (client, server) = Pair { workers: 2, ..Pair::default() }.build();
    let first = server.listen((SERVER, 7)).unwrap();
    assert_eq!(kind(server.listen((SERVER, 7))), ErrorKind::AddrInUse);
    assert_eq!(kind(server.listen("10.9.9.9:7")), ErrorKind::AddrNotAvailable);
    let options = anabranch::SocketOptions { scheduler: "best".into(), ..server.socket_options() };
    let error = server.listen_with((SERVER, 8), 5, options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("minrtt"), "{error}");

    let clone = first.try_clone().unwrap();
    drop(first);
    assert_eq!(kind(server.listen((SERVER, 7))), ErrorKind::AddrInUse);
    drop(clone);
    server.listen((SERVER, 7)).unwrap();
    drop(client);
}

#[test]
fn a_closed_listener_resets_who_waits() {
    let (client, server) = Pair::default().build();
    let listener = server.listen((SERVER, 7)).unwrap();
    let mut streams: Vec<_> = (0..30).map(|_| client.connect((SERVER, 7)).unwrap()).collect();
    drop(listener);
    for stream in &mut streams {
        assert_eq!(kind(stream.read(&mut [0; 1])), ErrorKind::ConnectionReset);
    }
    assert_eq!(kind(client.connect((SERVER, 7))), ErrorKind::ConnectionRefused);
}

#[test]
fn a_slow_acceptor_gets_everybody() {
    let (client, server) = Pair { workers: 2, ..Pair::default() }.build();
    let listener = server.listen((SERVER, 7)).unwrap();
    let streams: Vec<_> = (0..100).map(|_| client.connect((SERVER, 7)).unwrap()).collect();
    let mut peers: Vec<_> = (0..100).map(|_| listener.accept().unwrap().1).collect();
    let mut locals: Vec<_> = streams.iter().map(|stream| stream.local_addr().unwrap()).collect();
    peers.sort();
    locals.sort();
    assert_eq!(peers, locals);
}
