//! What the services do with a connection.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anabranch::TcpStream;

use super::Service;

/// Bytes read in one go. Large, so that the cost of a call does not count.
const READ: usize = 512 * 1024;

/// Printable ASCII characters, space included.
const PRINTABLE: usize = 95;
/// Characters in a line of RFC 864, line end not counted.
const LINE: usize = 72;
/// After so many bytes the pattern begins again.
const PERIOD: usize = PRINTABLE * (LINE + 2);
/// Bytes written in one go, about; whole periods, so that any write may begin where the last one ended.
const WRITE: usize = PERIOD * 40;

/// What came of serving a connection.
#[derive(Debug)]
pub(super) struct Served {
    /// Bytes received.
    pub(super) received: u64,
    /// Bytes written.
    pub(super) sent: u64,
    /// From accepting it to its end.
    pub(super) time: Duration,
    /// How it ended.
    pub(super) result: io::Result<()>,
}

/// Serves a connection to its end.
pub(super) fn serve(service: Service, stream: &TcpStream) -> Served {
    let begin = Instant::now();
    let (received, sent) = (AtomicU64::new(0), AtomicU64::new(0));
    let result = match service {
        Service::Discard => discard(stream, &received),
        Service::Chargen => chargen(stream, &received, &sent),
        Service::Echo => echo(stream, &received, &sent),
    };
    Served { received: received.into_inner(), sent: sent.into_inner(), time: begin.elapsed(), result }
}

/// Lends the thread's buffer: a thread serves many connections, one after the other.
fn with_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local!(static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]));
    BUFFER.with_borrow_mut(|buffer| work(buffer))
}

fn discard(stream: impl Read, received: &AtomicU64) -> io::Result<()> {
    with_buffer(|buffer| discard_with(buffer, stream, received))
}

fn discard_with(buffer: &mut [u8], mut stream: impl Read, received: &AtomicU64) -> io::Result<()> {
    loop {
        match stream.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(bytes) => received.fetch_add(bytes as u64, Ordering::Relaxed),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
    }
}

fn echo(stream: &TcpStream, received: &AtomicU64, sent: &AtomicU64) -> io::Result<()> {
    with_buffer(|buffer| echo_with(buffer, stream, received, sent))
}

fn echo_with(buffer: &mut [u8], mut stream: &TcpStream, received: &AtomicU64, sent: &AtomicU64) -> io::Result<()> {
    loop {
        let bytes = match stream.read(buffer) {
            Ok(0) => return stream.shutdown(Shutdown::Write),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        received.fetch_add(bytes as u64, Ordering::Relaxed);
        stream.write_all(&buffer[..bytes])?;
        sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Sends until the peer ends its own stream, which is how it "terminates the connection" (RFC 864) in
/// good order, or until it cannot be written to any more.
fn chargen(stream: &TcpStream, received: &AtomicU64, sent: &AtomicU64) -> io::Result<()> {
    let peer_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let result = discard(stream, received);
            peer_ended.store(true, Ordering::Release);
            result
        });
        let written = generate(stream, sent, &peer_ended);
        // The connection's error is told once, to whichever of the two meets it first.
        let ended = stream.shutdown(Shutdown::Write);
        let read = reader.join().unwrap_or_else(|_| Err(io::Error::other("the reader panicked")));
        read.and(written).and(ended)
    })
}

fn generate(mut stream: impl Write, sent: &AtomicU64, peer_ended: &AtomicBool) -> io::Result<()> {
    let pattern = pattern();
    let mut at = 0;
    while !peer_ended.load(Ordering::Acquire) {
        match stream.write(&pattern[at..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => {
                at = (at + bytes) % pattern.len();
                sent.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Lines of 72 printable characters, each line beginning one character further on, as RFC 864 shows them.
fn pattern() -> &'static [u8] {
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut bytes = Vec::with_capacity(WRITE);
        for line in 0..WRITE / (LINE + 2) {
            bytes.extend((0..LINE).map(|column| b' ' + ((line + column) % PRINTABLE) as u8));
            bytes.extend(b"\r\n");
        }
        bytes
    });
    &PATTERN
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes at most `most` bytes at once and ends after `room` bytes.
    struct Sink {
        taken: Vec<u8>,
        most: usize,
        room: usize,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let take = bytes.len().min(self.most).min(self.room - self.taken.len());
            if take == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.taken.extend(&bytes[..take]);
            Ok(take)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_pattern_is_that_of_the_rfc() {
        let text = String::from_utf8(pattern().to_vec()).unwrap();
        let lines: Vec<_> = text.split_inclusive("\r\n").collect();
        assert_eq!(lines[0], " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefg\r\n");
        assert!(lines[1].starts_with("!\"#") && lines[1].ends_with("abcdefgh\r\n"));
        assert!(lines.iter().all(|line| line.len() == 74));
        // It begins again after 95 lines, so it may be repeated without a seam.
        assert_eq!(lines[95], lines[0]);
        assert_eq!(pattern().len() % PERIOD, 0);
    }

    #[test]
    fn short_writes_leave_no_seam() {
        let mut sink = Sink { taken: Vec::new(), most: 777, room: WRITE * 2 + 100 };
        let sent = AtomicU64::new(0);
        let error = generate(&mut sink, &sent, &AtomicBool::new(false)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(sent.into_inner(), sink.taken.len() as u64);
        assert!(sink.taken.chunks(WRITE).all(|piece| *piece == pattern()[..piece.len()]));
    }

    #[test]
    fn generation_ends_with_the_peers_stream() {
        let mut sink = Sink { taken: Vec::new(), most: 10, room: 1000 };
        generate(&mut sink, &AtomicU64::new(0), &AtomicBool::new(true)).unwrap();
        assert!(sink.taken.is_empty());
    }

    #[test]
    fn discard_counts_what_it_throws_away() {
        let received = AtomicU64::new(0);
        discard(io::repeat(1).take(3_000_000), &received).unwrap();
        assert_eq!(received.into_inner(), 3_000_000);
    }
}
