//! Moving the data of a measurement, the same at both ends.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anabranch::TcpStream;

use super::protocol::Until;

/// Bytes moved in one go. Large, so that the cost of a call does not count.
const CHUNK: usize = 512 * 1024;
/// How often a sender that finds no room looks at the clock.
const LOOK: Duration = Duration::from_millis(200);
/// A peer that says nothing for so long is gone.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// How long the first messages may take.
pub(super) const HELLO: Duration = Duration::from_secs(10);

/// Sends until it is enough and ends our direction of the stream. Counts in `moved` as it goes.
pub(super) fn send(stream: &TcpStream, until: Until, moved: &AtomicU64) -> io::Result<()> {
    stream.set_write_timeout(Some(LOOK))?;
    write(stream, until, moved)?;
    stream.set_write_timeout(None)?;
    stream.shutdown(Shutdown::Write)
}

fn write(mut stream: impl Write, until: Until, moved: &AtomicU64) -> io::Result<()> {
    let data: Vec<u8> = (0..CHUNK).map(|at| (at % 251) as u8).collect();
    let begin = Instant::now();
    let mut progress = begin;
    let mut left = match until {
        Until::Bytes(bytes) => bytes,
        Until::Millis(_) => u64::MAX,
    };
    while left > 0 {
        match until {
            Until::Millis(millis) if begin.elapsed() >= Duration::from_millis(millis.into()) => break,
            _ if progress.elapsed() >= IDLE => return Err(stalled("took no data")),
            _ => {}
        }
        let len = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match stream.write(&data[..len]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => {
                left -= bytes as u64;
                moved.fetch_add(bytes as u64, Ordering::Relaxed);
                progress = Instant::now();
            }
            Err(error) if is_pause(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Receives to the end of the peer's stream. Counts in `moved` as it goes.
pub(super) fn receive(stream: &TcpStream, moved: &AtomicU64) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    read(stream, moved)
}

fn read(mut stream: impl Read, moved: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(bytes) => moved.fetch_add(bytes as u64, Ordering::Relaxed),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if is_pause(&error) => return Err(stalled("sent nothing")),
            Err(error) => return Err(error),
        };
    }
}

/// Reads one message of fixed length.
pub(super) fn read_message<const N: usize>(mut stream: &TcpStream, patience: Duration) -> io::Result<[u8; N]> {
    stream.set_read_timeout(Some(patience))?;
    let mut message = [0; N];
    stream.read_exact(&mut message).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, format!("no message within {patience:?}"))
        }
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the stream ended before the message"),
        _ => error,
    })?;
    Ok(message)
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
        && error.get_ref().is_none()
}

fn stalled(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("the peer {what} for {} seconds", IDLE.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_bytes_as_asked_for_and_no_more() {
        for bytes in [1, CHUNK as u64 - 1, CHUNK as u64, 3 * CHUNK as u64 + 7] {
            let mut sink = Vec::new();
            let moved = AtomicU64::new(0);
            write(&mut sink, Until::Bytes(bytes), &moved).unwrap();
            assert_eq!((sink.len() as u64, moved.into_inner()), (bytes, bytes));
        }
    }

    #[test]
    fn a_sender_ends_by_the_clock_even_if_nothing_moves() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::WouldBlock.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let moved = AtomicU64::new(0);
        write(Full, Until::Millis(5), &moved).unwrap();
        assert_eq!(moved.into_inner(), 0);
    }

    #[test]
    fn a_receiver_counts_to_the_end_of_the_stream() {
        let moved = AtomicU64::new(0);
        read(io::repeat(0).take(1_000_001), &moved).unwrap();
        assert_eq!(moved.into_inner(), 1_000_001);
    }
}
