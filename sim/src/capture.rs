//! What a host sends and receives, as a capture file.

use core::fmt;
use std::collections::BTreeMap;
use std::io;

use anabranch_frame::pcapng::{Direction, Encoder, InterfaceId, Packet};
use anabranch_frame::{Instant, PathId};

/// Virtual time zero in capture files: 2020-01-01 00:00:00 UTC, in nanoseconds of Unix time.
const EPOCH_NANOS: u64 = 1_577_836_800_000_000_000;

/// A capture in progress: an interface for each path, packets as they are on the wire.
pub(crate) struct Capture {
    encoder: Encoder,
    interfaces: BTreeMap<PathId, InterfaceId>,
    out: Box<dyn io::Write + Send>,
    block: Vec<u8>,
    failed: Option<io::Error>,
}

impl Capture {
    pub(crate) fn new(out: Box<dyn io::Write + Send>) -> Self {
        let mut block = Vec::new();
        let encoder = Encoder::new(0, &mut block);
        let mut capture = Self { encoder, interfaces: BTreeMap::new(), out, block, failed: None };
        capture.flush_block();
        capture
    }

    pub(crate) fn packet(&mut self, at: Instant, host: &str, path: PathId, direction: Direction, data: &[u8]) {
        let interface = match self.interfaces.get(&path) {
            Some(&interface) => interface,
            None => {
                let interface = self.encoder.interface(&format!("{host}.{}", path.0), &mut self.block);
                self.interfaces.insert(path, interface);
                interface
            }
        };
        let unix_nanos = EPOCH_NANOS.saturating_add(at.as_nanos());
        self.encoder.packet(&Packet { interface, unix_nanos, direction, comment: None, data }, &mut self.block);
        self.flush_block();
    }

    /// Ends the capture.
    ///
    /// # Errors
    /// The first error of writing; nothing was written after it.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.out.flush(),
        }
    }

    fn flush_block(&mut self) {
        if self.failed.is_none() {
            self.failed = self.out.write_all(&self.block).err();
        }
        self.block.clear();
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("interfaces", &self.interfaces).finish_non_exhaustive()
    }
}
