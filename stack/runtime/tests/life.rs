//! How stacks end, and what becomes of paths.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use anabranch::{Builder, Error, PathId, Stack};
use common::{Pair, SERVER, connected, kind, receive_all, send_all};

#[test]
fn a_shutdown_sends_what_was_written_first() {
    let (client, server) = Pair::default().build();
    let (ours, theirs) = connected(&client, &server);
    let reader = thread::spawn(move || receive_all(&theirs));

    let hash = send_all(&ours, 3, 10 << 20);
    drop(ours);

    assert!(client.shutdown(Duration::from_secs(20)), "a connection had to be aborted");
    assert_eq!(reader.join().unwrap(), (10 << 20, hash));
    assert!(client.shutdown(Duration::ZERO), "once is enough");
}

#[test]
fn a_shutdown_aborts_what_is_left_at_the_deadline() {
    let (client, server) = Pair::default().build();
    let (mut ours, mut theirs) = connected(&client, &server);
    let listener = client.listen(("10.0.0.1", 7)).unwrap();
    let acceptor = thread::spawn(move || kind(listener.accept()));

    let begin = Instant::now();
    assert!(!client.shutdown(Duration::from_millis(100)));
    assert!(begin.elapsed() >= Duration::from_millis(100));

    assert_eq!(acceptor.join().unwrap(), ErrorKind::NotConnected);
    assert_eq!(kind(theirs.read(&mut [0; 1])), ErrorKind::ConnectionReset);
    assert_eq!(kind(ours.read(&mut [0; 1])), ErrorKind::ConnectionAborted);
    assert_eq!(kind(ours.write(&[0; 1])), ErrorKind::BrokenPipe);
    assert_eq!(kind(ours.info()), ErrorKind::NotConnected);
    assert_eq!(kind(client.connect((SERVER, 7))), ErrorKind::NotConnected);
    assert_eq!(kind(client.listen(("10.0.0.1", 8))), ErrorKind::NotConnected);
    assert!(client.connections().is_empty());
}

#[test]
fn sockets_keep_their_stack_alive() {
    let (client, server) = Pair::default().build();
    let (mut ours, mut theirs) = connected(&client, &server);
    drop(client);
    drop(server);
    ours.write_all(b"still here").unwrap();
    drop(ours);
    // The client's workers send it although nobody holds their stack any more.
    let mut heard = String::new();
    theirs.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "still here");
}

#[test]
fn a_path_that_is_taken_down_leaves_its_bytes_to_the_other() {
    let (client, server) = Pair { paths: 2, ..Pair::default() }.build();
    let (ours, theirs) = connected(&client, &server);
    let total = 60 << 20;
    let reader = thread::spawn(move || receive_all(&theirs));
    let writer = {
        let ours = ours.try_clone().unwrap();
        thread::spawn(move || send_all(&ours, 4, total))
    };
    let limit = Instant::now() + Duration::from_secs(10);
    while ours.subflows().unwrap().len() < 2 {
        assert!(Instant::now() < limit, "the second path was not joined");
        thread::yield_now();
    }
    client.set_path_up(PathId(0), false).unwrap();
    assert!(!client.paths()[0].up);
    assert_eq!(kind(client.set_path_up(PathId(9), false)), ErrorKind::NotFound);

    assert_eq!(reader.join().unwrap(), (total, writer.join().unwrap()));
    let paths = client.paths();
    assert!(paths[1].counters.tx_bytes > 0 && paths[1].up);
    assert_eq!((paths[1].name.as_str(), paths[1].mtu), ("m1", 1500));
}

#[test]
fn a_device_that_is_gone_takes_its_path_down_and_no_core() {
    let (client, server) = Pair::default().build();
    let (ours, theirs) = connected(&client, &server);
    drop(theirs);
    server.shutdown(Duration::ZERO);
    // The server's end of the link went with its worker.
    let limit = Instant::now() + Duration::from_secs(10);
    while client.paths()[0].up {
        assert!(Instant::now() < limit, "nobody noticed");
        thread::yield_now();
    }
    let before = client.worker_stats()[0].turns;
    thread::sleep(Duration::from_millis(300));
    let turns = client.worker_stats()[0].turns - before;
    assert!(turns < 100, "{turns} turns in 300 ms: the worker does not sleep");
    drop(ours);
}

#[test]
fn every_packet_is_in_the_capture_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (client, server) = Pair { capture: Some(file.path().into()), ..Pair::default() }.build();
    let (ours, theirs) = connected(&client, &server);
    let reader = thread::spawn(move || receive_all(&theirs));
    send_all(&ours, 5, 1 << 20);
    reader.join().unwrap();
    drop(ours);
    let counters = client.paths()[0].counters;
    client.shutdown(Duration::from_secs(5));

    let capture = std::fs::read(file.path()).unwrap();
    // Blocks of pcapng: a type, a length in bytes, a body, the length again. Type 6 is a packet.
    let word = |at: usize| u32::from_le_bytes(capture[at..at + 4].try_into().unwrap());
    let (mut at, mut packets) = (0, 0);
    while at < capture.len() {
        packets += u64::from(word(at) == 6);
        at += word(at + 4) as usize;
    }
    assert_eq!(at, capture.len());
    assert!(
        packets >= counters.rx_packets + counters.tx_packets && counters.tx_packets > 0,
        "{packets} of {counters:?}"
    );
}

fn complaint(builder: Builder) -> String {
    builder.build().expect_err("it is wrong").to_string()
}

#[test]
fn builders_complain_with_names_and_cures() {
    let tun = || Stack::builder().path("tun:ab0,addr=10.9.0.2/24".parse().unwrap());
    assert!(complaint(Stack::builder()).contains("tun:ab0,addr="));
    assert!(complaint(tun().workers(0)).contains("give 1 to 64"));
    assert!(complaint(tun().busy_poll(Duration::from_secs(2))).contains("give at most 1s"));
    assert!(complaint(tun().scheduler("best")).contains("unknown scheduler 'best'; known are minrtt"));
    assert!(complaint(tun().congestion("vegas")).contains("unknown congestion control 'vegas'; known are reno, cubic"));
    assert!(complaint(tun().path_manager("nobody")).contains("unknown path manager 'nobody'; known are endpoints"));
    assert!(
        complaint(tun().path("tun:ab1,addr=10.9.0.2/24".parse().unwrap())).contains("10.9.0.2 is that of ab0, too")
    );
    assert!(complaint(tun().path("tun:ab0,addr=10.9.1.2/24".parse().unwrap())).contains("is there twice"));
    let packet = Stack::builder().path("packet:nothere,addr=10.9.0.2/24".parse().unwrap());
    assert!(complaint(packet).contains("there is no interface nothere here"));
    let missing = tun().pcap("/nonexistent/file.pcapng");
    assert!(matches!(missing.build(), Err(Error::Capture { .. })));
}
