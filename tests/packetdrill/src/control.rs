//! Control messages, as they lie in memory.

use std::time::Duration;

/// Length of `struct cmsghdr`, and what messages are aligned to, in bytes.
const HEADER: usize = 16;
const ALIGN: usize = 8;

/// Messages in a row.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Control(Vec<u8>);

impl Control {
    /// Appends one.
    pub(crate) fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        self.0.extend((HEADER + data.len()).to_ne_bytes());
        self.0.extend(level.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(ALIGN), 0);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A `struct scm_timestamping` with a time by software.
pub(crate) fn scm_timestamping(at: Duration) -> [u8; 48] {
    let mut out = [0; 48];
    out[..8].copy_from_slice(&at.as_secs().to_ne_bytes());
    out[8..16].copy_from_slice(&u64::from(at.subsec_nanos()).to_ne_bytes());
    out
}
