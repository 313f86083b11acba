//! Bulk transfers that end by the clock: the [pattern](crate::pattern) is written and compared for as long as somebody wants it.

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::pattern::{CHUNK, Pattern};
use crate::socket::Stream;

/// How often a transfer that stands still looks whether it is to end.
pub const LOOK: Duration = Duration::from_millis(50);

/// Writes until it is told to stop.
///
/// # Errors
/// The stream broke.
pub fn write_until(mut stream: &Stream, stop: &AtomicBool) -> Result<()> {
    stream.set_write_timeout(LOOK)?;
    let pattern = Pattern::new();
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        match stream.write(pattern.slice(at, CHUNK)) {
            Ok(0) => bail!("a write of nothing"),
            Ok(bytes) => at += bytes as u64,
            Err(error) if waits(&error) => {}
            Err(error) => return Err(error).context("writing"),
        }
    }
    Ok(())
}

/// Reads until `end`, compares, and says when how many bytes came.
///
/// # Errors
/// The stream broke or ended, or what came is not what was written.
pub fn read_until(mut stream: &Stream, end: Instant, mut came: impl FnMut(Instant, u64)) -> Result<()> {
    stream.set_read_timeout(LOOK)?;
    let pattern = Pattern::new();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    loop {
        let got = stream.read(&mut buffer);
        let now = Instant::now();
        if now >= end {
            return Ok(());
        }
        let bytes = match got {
            Ok(0) => bail!("the stream ended after {at} bytes"),
            Ok(bytes) => bytes,
            Err(error) if waits(&error) => continue,
            Err(error) => return Err(error).context("reading"),
        };
        ensure!(buffer[..bytes] == *pattern.slice(at, bytes), "wrong bytes after {at} of them");
        at += bytes as u64;
        came(now, bytes as u64);
    }
}

fn waits(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
