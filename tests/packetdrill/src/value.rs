//! Values of socket options, as they lie in memory.

use std::time::Duration;

use anabranch_core::config::FastOpenKeys;

use crate::errno::{Errno, Result};

/// What the caller gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given<'a>(pub(crate) &'a [u8]);

impl Given<'_> {
    /// An `int`.
    pub(crate) fn number(self) -> Result<i32> {
        self.at(0)
    }

    fn at(self, offset: usize) -> Result<i32> {
        let bytes = self.0.get(offset..offset + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(i32::from_ne_bytes).ok_or(Errno::INVALID)
    }

    fn wide(self, offset: usize) -> Result<i64> {
        let bytes = self.0.get(offset..offset + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(i64::from_ne_bytes).ok_or(Errno::INVALID)
    }

    pub(crate) fn boolean(self) -> Result<bool> {
        self.number().map(|number| number != 0)
    }

    /// An `int`, or a single byte.
    pub(crate) fn small(self) -> Result<i32> {
        match self.0 {
            [byte] => Ok(i32::from(*byte)),
            _ => self.number(),
        }
    }

    /// A `struct timeval`; zero means for ever.
    pub(crate) fn time(self) -> Result<Option<Duration>> {
        let (secs, micros) = (self.wide(0)?, self.wide(8)?);
        if !(0..1_000_000).contains(&micros) {
            return Err(Errno(libc::EDOM));
        }
        let time = Duration::from_secs(secs.max(0) as u64) + Duration::from_micros(micros as u64);
        Ok((!time.is_zero()).then_some(time))
    }

    /// A `struct linger`.
    pub(crate) fn linger(self) -> Result<Option<Duration>> {
        let (on, secs) = (self.at(0)? != 0, self.at(4)?);
        Ok(on.then(|| Duration::from_secs(secs.max(0) as u64)))
    }

    /// Bytes a second, of which all ones are no limit.
    pub(crate) fn rate(self) -> Result<Option<u64>> {
        let rate = if self.0.len() >= 8 { self.wide(0)? as u64 } else { u64::from(self.number()? as u32) };
        Ok((rate != u64::MAX && rate != u64::from(u32::MAX)).then_some(rate))
    }

    pub(crate) fn text(self) -> Result<String> {
        let bytes = self.0.split(|&byte| byte == 0).next().unwrap_or_default();
        String::from_utf8(bytes.to_vec()).map_err(|_| Errno(libc::ENOENT))
    }

    /// One key of Fast Open, or two.
    pub(crate) fn keys(self) -> Result<FastOpenKeys> {
        let key = |bytes: &[u8]| bytes.try_into().map_err(|_| Errno::INVALID);
        match self.0.len() {
            16 => Ok(FastOpenKeys { primary: key(self.0)?, backup: None }),
            32 => Ok(FastOpenKeys { primary: key(&self.0[..16])?, backup: Some(key(&self.0[16..])?) }),
            _ => Err(Errno::INVALID),
        }
    }
}

pub(crate) fn int(value: i32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// Whole seconds.
pub(crate) fn seconds(time: Duration) -> Vec<u8> {
    int(time.as_secs() as i32)
}

/// A `struct timeval`.
pub(crate) fn timeval(time: Option<Duration>) -> Vec<u8> {
    let time = time.unwrap_or_default();
    let mut out = time.as_secs().to_ne_bytes().to_vec();
    out.extend(u64::from(time.subsec_micros()).to_ne_bytes());
    out
}

/// A `struct linger`.
pub(crate) fn linger(time: Option<Duration>) -> Vec<u8> {
    let mut out = int(time.is_some().into());
    out.extend(seconds(time.unwrap_or_default()));
    out
}

/// Bytes a second.
pub(crate) fn rate(rate: Option<u64>) -> Vec<u8> {
    rate.unwrap_or(u64::MAX).to_ne_bytes().to_vec()
}

/// A name in the 16 bytes that the kernel has for it.
pub(crate) fn text(name: &str) -> Vec<u8> {
    let mut out = name.as_bytes().to_vec();
    out.resize(16, 0);
    out
}

/// Keys of Fast Open.
pub(crate) fn keys(keys: &FastOpenKeys) -> Vec<u8> {
    let mut out = keys.primary.to_vec();
    out.extend(keys.backup.iter().flatten());
    out
}
