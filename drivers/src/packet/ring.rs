//! A receive ring in memory that is shared with the kernel (`TPACKET_V3`, Documentation/networking/packet_mmap.rst).
//!
//! The kernel fills one block after the other and hands a block over when the next frame does not fit, or a
//! millisecond after its first. Within a block frames of any length follow one another.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::mm::{MapFlags, ProtFlags};

use super::VlanTag;
use super::sys::{self, About};
use crate::vnet;

/// A block: room for a few of the largest frames.
pub(super) const BLOCK_BYTES: usize = 256 * 1024;
/// What the kernel cuts a block into for its own bookkeeping, in the older versions of the ring.
const FRAME_BYTES: usize = 2_048;
/// How long the kernel keeps a block that is not full, in milliseconds: the least there is.
const RETIRE_MS: u32 = 1;

/// Where a block's status is (`struct tpacket_block_desc`), how many frames it has, and where the first is.
const BLOCK_STATUS: usize = 8;
const BLOCK_FRAMES: usize = 12;
const BLOCK_FIRST: usize = 16;

/// A mapped ring.
#[derive(Debug)]
pub(super) struct Ring {
    memory: NonNull<u8>,
    blocks: usize,
    /// The block that is being read, or will be handed over next.
    block: usize,
    /// Frames that are left in it, and where the next one is. None: it is still the kernel's.
    left: Option<(u32, usize)>,
    with_vnet: bool,
}

// SAFETY: the mapping belongs to this value alone; it may move to another thread with it.
unsafe impl Send for Ring {}

/// A frame in a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry<'a> {
    pub(super) vnet: [u8; vnet::LEN],
    pub(super) data: &'a [u8],
    /// It was longer than what is there of it.
    pub(super) truncated: bool,
    pub(super) about: About,
}

impl Ring {
    /// Gives a socket a ring of about `bytes` bytes. Whether there are virtio headers must have been set before.
    pub(super) fn new(fd: &OwnedFd, bytes: usize, with_vnet: bool) -> io::Result<Self> {
        let blocks = (bytes / BLOCK_BYTES).max(2);
        let len = blocks * BLOCK_BYTES;
        sys::set(fd, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V3 as libc::c_int))?;
        let request = libc::tpacket_req3 {
            tp_block_size: BLOCK_BYTES as u32,
            tp_block_nr: blocks as u32,
            tp_frame_size: FRAME_BYTES as u32,
            tp_frame_nr: (len / FRAME_BYTES) as u32,
            tp_retire_blk_tov: RETIRE_MS,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        sys::set(fd, libc::PACKET_RX_RING, &request)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing that exists is touched.
        let memory = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, fd, 0) }?;
        let memory = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { memory, blocks, block: 0, left: None, with_vnet })
    }

    fn status(&self) -> &AtomicU32 {
        let at = self.block * BLOCK_BYTES + BLOCK_STATUS;
        // SAFETY: `block` is less than `blocks`, so this is within the mapping, and aligned as the mapping and
        // the block's length are; kernel and process change it with atomic stores only.
        unsafe { AtomicU32::from_ptr(self.memory.as_ptr().add(at).cast()) }
    }

    /// Hands the next frame to `each`; false when there is none now. A frame that makes no sense is `None`.
    pub(super) fn next(&mut self, each: impl FnOnce(Option<Entry<'_>>)) -> bool {
        let (left, at) = loop {
            match self.left {
                Some((0, _)) => self.release(),
                Some(left) => break left,
                None if self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 => return false,
                None => {
                    let block = self.bytes();
                    let first = word(block, BLOCK_FIRST).unwrap_or(0) as usize;
                    self.left = Some((word(block, BLOCK_FRAMES).unwrap_or(0), first));
                }
            }
        };
        let parsed = parse(self.bytes(), at, self.with_vnet);
        // Without sense there is no way to the frame behind it.
        self.left = parsed.map_or(Some((0, 0)), |(_, step)| Some((left - 1, at + step)));
        each(parsed.map(|(entry, _)| entry));
        true
    }

    /// The current block, which the kernel has handed over.
    fn bytes<'a>(&self) -> &'a [u8] {
        // SAFETY: within the mapping. The kernel does not write to it again before `release`, which is called only
        // when no entry of it is in use: `next` lends them to its callback.
        unsafe { slice::from_raw_parts(self.memory.as_ptr().add(self.block * BLOCK_BYTES), BLOCK_BYTES) }
    }

    /// Gives the current block back to the kernel and goes on to the next one.
    fn release(&mut self) {
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.block = (self.block + 1) % self.blocks;
        self.left = None;
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and nothing points into it any more.
        let _ = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), self.blocks * BLOCK_BYTES) };
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads the frame whose `struct tpacket3_hdr` is at `at`; also how far it is to the next one.
fn parse(block: &[u8], at: usize, with_vnet: bool) -> Option<(Entry<'_>, usize)> {
    let header = block.get(at..)?;
    let [step, secs, nanos, captured, len, status] = [0, 4, 8, 12, 16, 20].map(|at| word(header, at));
    let (captured, len, status) = (captured? as usize, len? as usize, status?);
    let start = usize::from(half(header, 24)?);
    let data = header.get(start..start.checked_add(captured)?)?;
    let vnet = match with_vnet {
        true => *header.get(start.checked_sub(vnet::LEN)?..start)?.first_chunk()?,
        false => [0; vnet::LEN],
    };
    let about = About {
        status,
        vlan: VlanTag::from_status(status, half(header, 36)?, word(header, 32)? as u16),
        received: Some(Duration::new(secs?.into(), 0) + Duration::from_nanos(nanos?.into())),
    };
    Some((Entry { vnet, data, truncated: len > captured, about }, step? as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A header, a virtio header of sevens, and a frame, at `at` of a block.
    fn block(at: usize, data: &[u8], tag: Option<(u16, u16)>) -> Vec<u8> {
        let start = 100;
        let mut block = vec![0; at];
        let status = if tag.is_some() { 1 | libc::TP_STATUS_VLAN_VALID | libc::TP_STATUS_VLAN_TPID_VALID } else { 1 };
        let (tpid, tci) = tag.unwrap_or_default();
        for field in [160, 7, 8, data.len() as u32, data.len() as u32, status] {
            block.extend_from_slice(&field.to_ne_bytes());
        }
        block.extend_from_slice(&(start as u16).to_ne_bytes());
        block.resize(at + 32, 0);
        block.extend_from_slice(&u32::from(tci).to_ne_bytes());
        block.extend_from_slice(&tpid.to_ne_bytes());
        block.resize(at + start - vnet::LEN, 0);
        block.extend_from_slice(&[7; vnet::LEN]);
        block.extend_from_slice(data);
        block
    }

    #[test]
    fn a_frame_is_where_its_header_says() {
        let tag = VlanTag { tpid: 0x8100, tci: 0x2005 };
        let block = block(48, b"frame", Some((tag.tpid, tag.tci)));

        let (entry, step) = parse(&block, 48, true).expect("a frame");

        assert_eq!((entry.data, entry.vnet, step), (b"frame".as_slice(), [7; vnet::LEN], 160));
        assert_eq!((entry.about.vlan, entry.truncated), (Some(tag), false));
        assert_eq!(entry.about.received, Some(Duration::new(7, 8)));
    }

    #[test]
    fn what_points_out_of_the_block_is_no_frame() {
        let whole = block(0, b"frame", None);
        for len in 0..whole.len() {
            assert_eq!(parse(&whole[..len], 0, true), None, "{len} bytes");
        }
        assert_eq!(parse(&whole, usize::MAX, true), None);
    }

    proptest! {
        #[test]
        fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..220, vnet: bool) {
            if let Some((entry, _)) = parse(&bytes, at, vnet) {
                prop_assert!(entry.data.len() <= bytes.len());
            }
        }
    }
}
