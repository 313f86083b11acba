use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::thread;

use super::*;
use crate::worker::Handle;

/// A connection, and in the hands of the test what a worker would have.
fn conn() -> (Arc<Conn>, Arc<Handle>, WriteBuffers) {
    let handle = Arc::new(Handle::new(0, Duration::ZERO).unwrap());
    (Conn::new(Arc::clone(&handle), &SocketOptions::default()), handle, WriteBuffers::new())
}

/// What a worker does with bytes that came.
fn give(conn: &Conn, given: &mut u64, bytes: &[u8]) {
    let payload = Payload::from(bytes);
    *given += cost(&payload);
    conn.rx_given.store(*given, Ordering::Relaxed);
    conn.rx.push(payload);
    conn.rx_gate.open();
}

fn read(conn: &Arc<Conn>, len: usize) -> io::Result<Vec<u8>> {
    let mut buf = vec![0; len];
    let n = conn.try_read(&mut [&mut buf])?;
    buf.truncate(n);
    Ok(buf)
}

fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> io::ErrorKind {
    result.expect_err("an error was due").kind()
}

#[test]
fn reads_cross_and_split_payloads() {
    let (conn, ..) = conn();
    let mut given = 0;
    give(&conn, &mut given, b"abc");
    give(&conn, &mut given, b"defgh");

    assert_eq!(read(&conn, 2).unwrap(), b"ab");
    let mut peeked = [0; 4];
    assert_eq!(conn.try_peek(&mut peeked).unwrap(), 1);
    assert_eq!(peeked[0], b'c');
    assert_eq!(read(&conn, 4).unwrap(), b"cdef");
    assert_eq!(read(&conn, 9).unwrap(), b"gh");
    assert_eq!(kind(read(&conn, 1)), io::ErrorKind::WouldBlock);
    assert_eq!(conn.rx_done.bytes.load(Ordering::Relaxed), 8);
    assert_eq!(conn.rx_done.cost.load(Ordering::Relaxed), given);
}

#[test]
fn the_end_comes_after_the_bytes_before_it() {
    let (conn, ..) = conn();
    give(&conn, &mut 0, b"last");
    conn.set_state(state::RX_END);

    assert_eq!(read(&conn, 9).unwrap(), b"last");
    assert_eq!(read(&conn, 9).unwrap(), b"");
    assert_eq!(read(&conn, 9).unwrap(), b"");
}

#[test]
fn an_error_is_told_once_after_the_bytes_and_to_one_side_only() {
    let (conn, _, buffers) = conn();
    give(&conn, &mut 0, b"last");
    conn.end(Error::Reset);

    assert_eq!(read(&conn, 9).unwrap(), b"last");
    assert_eq!(kind(read(&conn, 9)), io::ErrorKind::ConnectionReset);
    assert_eq!(read(&conn, 9).unwrap(), b"");
    assert_eq!(kind(conn.try_write(b"x", &buffers)), io::ErrorKind::BrokenPipe);
    assert!(conn.take_error().is_none());
}

#[test]
fn a_shut_down_reader_reads_what_is_there_and_then_the_end() {
    let (conn, ..) = conn();
    give(&conn, &mut 0, b"last");
    conn.order(order::SHUT_READ);

    assert_eq!(read(&conn, 9).unwrap(), b"last");
    assert_eq!(read(&conn, 9).unwrap(), b"");
}

#[test]
fn writing_stops_at_the_limit_and_after_the_shutdown() {
    let (conn, handle, buffers) = conn();
    let bytes = vec![7; 3 << 20];

    let taken = conn.try_write(&bytes, &buffers).unwrap();

    // The limit and one payload more.
    assert!(taken as u64 >= RING_LIMIT - 64 * PIECE_COST && taken as u64 <= RING_LIMIT + (64 << 10), "{taken}");
    assert_eq!(kind(conn.try_write(&bytes, &buffers)), io::ErrorKind::WouldBlock);
    assert_eq!(handle.ready.len(), 1, "one call for many payloads");

    conn.order_shut_write();
    assert_eq!(kind(conn.try_write(&bytes, &buffers)), io::ErrorKind::BrokenPipe);
}

#[test]
fn only_who_writes_much_and_fast_leaves_sending_to_the_worker() {
    let begin = Instant::now();
    let bulk = |bytes: usize, every: Duration, writes: u32| {
        let mut end = WriteEnd::default();
        (0..writes).filter(|&at| end.is_bulk(bytes, begin + every * at)).count()
    };
    let gigabyte_a_second = Duration::from_micros(64);

    assert_eq!(bulk(256 << 10, Duration::ZERO, 1), 0, "a single large write is sent at once");
    assert_eq!(bulk(64 << 10, gigabyte_a_second * 2, 10_000), 0);
    assert_eq!(bulk(100, Duration::from_micros(5), 10_000), 0, "however often");
    assert_eq!(bulk(64 << 10, gigabyte_a_second / 4, 100), 96, "from the fifth on");

    let mut end = WriteEnd::default();
    assert!(end.is_bulk(1 << 30, begin));
    assert!(!end.is_bulk(1, begin + Duration::from_millis(1)), "that was a millisecond ago");
}

#[test]
fn single_bytes_do_not_grow_the_ring_without_bound() {
    let (conn, _, buffers) = conn();
    let mut writes = 0u64;
    while conn.try_write(b"x", &buffers).is_ok() {
        writes += 1;
    }
    assert_eq!(writes, RING_LIMIT.div_ceil(PIECE_COST + 64));
}

#[test]
fn the_worker_hears_of_reading_only_when_it_matters() {
    let (conn, handle, _) = conn();
    let mut given = 0;
    let calls = |handle: &Handle| {
        let mut calls = 0;
        while let Some(conn) = handle.ready.pop() {
            conn.service.begin();
            calls += 1;
        }
        calls
    };

    give(&conn, &mut given, &[7; 1000]);
    read(&conn, 1000).unwrap();
    assert_eq!(calls(&handle), 0, "a window that opens by 1,000 bytes is not worth a wake-up");

    give(&conn, &mut given, &vec![7; 16 << 10]);
    read(&conn, 16 << 10).unwrap();
    assert_eq!(calls(&handle), 1, "one that opens by 16 KiB is");

    for _ in 0..16 {
        give(&conn, &mut given, &vec![7; 64 << 10]);
    }
    conn.rx_stalled.announce();
    read(&conn, 32 << 10).unwrap();
    assert_eq!(calls(&handle), 0, "the ring is still more than half full");
    read(&conn, 512 << 10).unwrap();
    assert_eq!(calls(&handle), 1, "the worker waits for room, and half of it is there");
}

#[test]
fn blocked_readers_wake_for_bytes_timeouts_and_shutdown() {
    let (conn, ..) = conn();
    let blocking_read = |conn: &Arc<Conn>| {
        let mut buf = [0; 9];
        conn.block_on_read(|| conn.try_read(&mut [&mut buf]))
    };

    conn.settings.read_timeout().store(Some(Duration::from_millis(20))).unwrap();
    assert_eq!(kind(blocking_read(&conn)), io::ErrorKind::WouldBlock);
    assert_eq!(kind(conn.settings.read_timeout().store(Some(Duration::ZERO))), io::ErrorKind::InvalidInput);
    conn.settings.read_timeout().store(None).unwrap();

    let reader = {
        let conn = Arc::clone(&conn);
        thread::spawn(move || [blocking_read(&conn).unwrap(), blocking_read(&conn).unwrap()])
    };
    give(&conn, &mut 0, b"abc");
    while conn.rx_done.bytes.load(Ordering::Acquire) < 3 {
        thread::yield_now();
    }
    conn.order(order::SHUT_READ);
    assert_eq!(reader.join().unwrap(), [3, 0]);
}

/// A worker that does nothing but carry bytes from the write ring to the read ring, with the same rules.
fn loop_back(conn: &Conn, handle: &Handle, total: u64) {
    let (mut taken, mut given, mut bytes) = (0, 0, 0);
    let mut stash = VecDeque::new();
    while bytes < total {
        let Some(ready) = handle.ready.pop() else {
            handle.bell.prepare_sleep();
            if handle.ready.is_empty() {
                let fd = handle.bell.event().fd();
                let timeout = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
                let ready = rustix::event::poll(
                    &mut [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)],
                    Some(&timeout),
                );
                assert_eq!(ready, Ok(1), "lost a wake-up after {bytes} of {total} bytes");
                rustix::io::read(fd, &mut [0; 8]).unwrap();
            }
            handle.bell.awake();
            continue;
        };
        ready.service.begin();
        while stash.len() < 32
            && let Some(payload) = conn.tx.pop()
        {
            taken += cost(&payload);
            stash.push_back(payload);
        }
        conn.tx_taken.store(taken, Ordering::Release);
        conn.tx_gate.open();
        while let Some(payload) = stash.pop_front() {
            if given - conn.rx_done.cost.load(Ordering::Acquire) >= RING_LIMIT {
                conn.rx_stalled.announce();
                if given - conn.rx_done.cost.load(Ordering::Acquire) >= RING_LIMIT {
                    stash.push_front(payload);
                    break;
                }
            }
            conn.rx_stalled.withdraw();
            given += cost(&payload);
            bytes += payload.len() as u64;
            conn.rx_given.store(given, Ordering::Relaxed);
            conn.rx.push(payload);
        }
        conn.rx_gate.open();
        // Bytes that found no room in the stash are looked for in the next turn.
        if !conn.tx.is_empty() && stash.is_empty() && conn.service.ask() {
            handle.ready.push(ready);
        }
    }
}

#[test]
fn bytes_pass_both_rings_in_order_and_nobody_sleeps_through_it() {
    const TOTAL: u64 = 64 << 20;
    let (conn, handle, buffers) = conn();
    let checked = Arc::new(AtomicU64::new(0));
    let writer = {
        let conn = Arc::clone(&conn);
        thread::spawn(move || {
            let (mut at, mut len) = (0u64, 1);
            while at < TOTAL {
                let chunk: Vec<u8> = (at..(at + len).min(TOTAL)).map(|at| (at % 251) as u8).collect();
                at += conn.block_on_write(|| conn.try_write(&chunk, &buffers)).unwrap() as u64;
                len = len * 7 % 300_007;
            }
        })
    };
    let reader = {
        let (conn, checked) = (Arc::clone(&conn), Arc::clone(&checked));
        thread::spawn(move || {
            let (mut at, mut len) = (0u64, 1);
            while at < TOTAL {
                let mut buf = vec![0; len];
                let n = conn.block_on_read(|| conn.try_read(&mut [&mut buf])).unwrap();
                assert!(buf[..n].iter().zip(at..).all(|(byte, at)| *byte == (at % 251) as u8), "wrong byte after {at}");
                at += n as u64;
                checked.store(at, Ordering::Relaxed);
                len = len * 11 % 200_003;
            }
        })
    };
    loop_back(&conn, &handle, TOTAL);
    writer.join().unwrap();
    reader.join().unwrap();
    assert_eq!(checked.load(Ordering::Relaxed), TOTAL);
}
