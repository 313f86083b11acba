//! What the emulator receives from and sends to: the wire of an interface, or memory in tests.

use std::time::{Duration, Instant as Clock, SystemTime, UNIX_EPOCH};

use anabranch_drivers::TransmitError;
use anabranch_drivers::packet::{OpenError, Reception, Wire, WireConfig};
use anabranch_frame::{BufferPool, Payload};
use anyhow::bail;

pub(super) use anabranch_drivers::packet::WireFrame as Frame;
pub(super) use anabranch_frame::Instant;

/// Frames that are taken in before what is due is looked at again.
const BATCH: usize = 256;

/// Bytes of frames that wait in the kernel, either way.
const RECEIVE_BUFFER: usize = 64 << 20;

/// An older time stamp is not believed: the clock was set.
const OLDEST: Duration = Duration::from_secs(1);

/// One end of the emulated link.
pub(super) trait Port {
    /// Hands over frames that have come, with the time at which they did, cut to the size they have on a wire.
    /// Returns until when none is missing: `now`, unless there were too many.
    fn receive(&mut self, now: Instant, sink: &mut dyn FnMut(Instant, Payload)) -> anyhow::Result<Instant>;

    /// Sends complete frames. Those that the other side does not take now are lost.
    fn send(&mut self, frames: &[Frame]) -> anyhow::Result<()>;

    /// Frames that came and were lost before [`receive`](Self::receive) saw them.
    fn missed(&self) -> u64;

    /// Frames that could not be sent.
    fn refused(&self) -> u64;
}

/// The time that the emulator lives by: that of the monotonic clock since it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    origin: Clock,
}

impl Time {
    pub(super) fn start() -> Self {
        Self { origin: Clock::now() }
    }

    pub(super) fn now(self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    /// Now by both clocks, as nearly at the same moment as possible.
    fn now_twice(self) -> (Instant, Duration) {
        let mut best = (Duration::MAX, Instant::ZERO, Duration::ZERO);
        // Most often the first attempt is not interrupted.
        for _ in 0..3 {
            let before = self.now();
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let took = self.now() - before;
            if took < best.0 {
                best = (took, before, wall);
            }
            if took < Duration::from_micros(1) {
                break;
            }
        }
        (best.1, best.2)
    }
}

/// The wire of an interface.
#[derive(Debug)]
pub(super) struct WirePort {
    wire: Wire,
    time: Time,
    frames: Vec<Frame>,
    scratch: Vec<u8>,
    /// Buffers for frames of less than 256 bytes, and of less than 2048.
    pools: [BufferPool; 2],
    refused: u64,
}

impl WirePort {
    /// Opens an interface for all that passes on it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(super) fn open(interface: &str, time: Time) -> Result<Self, OpenError> {
        let wires = Wire::open(&WireConfig {
            reception: Reception::Queue,
            buffer_bytes: RECEIVE_BUFFER,
            promiscuous: true,
            metadata: true,
            ..WireConfig::new(interface)
        })?;
        let Some(wire) = wires.into_iter().next() else { unreachable!("one queue was asked for") };
        Ok(Self {
            wire,
            time,
            frames: Vec::with_capacity(BATCH),
            scratch: Vec::new(),
            pools: [BufferPool::new(256, 4096), BufferPool::new(2048, 16_384)],
            refused: 0,
        })
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }
}

impl Port for WirePort {
    fn receive(&mut self, now: Instant, sink: &mut dyn FnMut(Instant, Payload)) -> anyhow::Result<Instant> {
        self.frames.clear();
        let count = match self.wire.receive(&mut self.frames, BATCH) {
            Ok(count) => count,
            Err(error) => bail!("interface {} is gone: {error}", self.wire.name()),
        };
        if count == 0 {
            return Ok(now);
        }
        let (instant, wall) = self.time.now_twice();
        let mut at = instant;
        for frame in &self.frames {
            let age = frame.received.map_or(Duration::ZERO, |received| wall.saturating_sub(received));
            at = if age < OLDEST { instant - age } else { instant };
            frame.for_each_segment(&mut self.scratch, |segment| sink(at, copy(&self.pools, segment)));
        }
        Ok(if count < BATCH { now } else { at })
    }

    fn send(&mut self, frames: &[Frame]) -> anyhow::Result<()> {
        let mut sent = 0;
        while sent < frames.len() {
            match self.wire.send_many(&frames[sent..]) {
                Ok(count) => sent += count,
                Err(TransmitError::Gone(error)) => bail!("interface {} is gone: {error}", self.wire.name()),
                // A wire waits for nobody.
                Err(TransmitError::Full | TransmitError::Down) => {
                    self.refused += (frames.len() - sent) as u64;
                    break;
                }
            }
        }
        Ok(())
    }

    fn missed(&self) -> u64 {
        let counters = self.wire.counters();
        counters.rx_overflow + counters.rx_malformed
    }

    fn refused(&self) -> u64 {
        self.refused + self.wire.counters().tx_rejected
    }
}

/// A copy in the smallest buffer that will do.
fn copy(pools: &[BufferPool; 2], bytes: &[u8]) -> Payload {
    let Some(pool) = pools.iter().find(|pool| bytes.len() <= pool.buffer_len()) else { return Payload::from(bytes) };
    let mut buffer = pool.take();
    buffer.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
    buffer.freeze(bytes.len())
}
