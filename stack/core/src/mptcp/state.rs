//! What a connection knows of MPTCP while it speaks it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::num::NonZeroU16;

use anabranch_frame::Instant;

use crate::FallbackReason;
use crate::pm::RemoteAddr;
use crate::wire::DataAck;

use super::Key;
use super::removal::Doubt;

/// Which protocol a connection speaks.
#[derive(Debug)]
pub(crate) enum Mode {
    /// TCP: the stream is the subflow's.
    Plain(Plain),
    /// MPTCP.
    Mptcp(Box<Mp>),
}

/// Why a connection speaks plain TCP, and what it did before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain {
    pub(crate) reason: FallbackReason,
    /// The peer's initial data sequence number, if it was spoken MPTCP with; 0 if not.
    pub(crate) idsn: u64,
}

impl Mode {
    /// Plain TCP from the start.
    pub(crate) fn plain(reason: FallbackReason) -> Self {
        Self::Plain(Plain { reason, idsn: 0 })
    }
}

/// An address that we announce to the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Announcement {
    pub(crate) id: u8,
    pub(crate) addr: IpAddr,
    /// A port other than the connection's.
    pub(crate) port: Option<NonZeroU16>,
    pub(crate) echoed: bool,
    pub(crate) sent: u8,
    pub(crate) deadline: Instant,
}

/// MPTCP state of a connection.
#[derive(Debug)]
pub(crate) struct Mp {
    pub(crate) local: Key,
    /// The peer's key; unknown until its SYN/ACK or third ACK.
    pub(crate) remote: Option<Key>,
    /// The peer is known to have our key, so that joins and DSS are understood.
    pub(crate) fully_established: bool,
    /// The peer wants no joins to its initial address.
    pub(crate) deny_join_initial: bool,
    /// DSS checksums are in use: one of the two sides wants them.
    pub(crate) checksum: bool,
    /// The peer's was right once.
    pub(crate) checksum_seen: bool,
    /// A second subflow was tried: falling back to TCP is no longer possible.
    pub(crate) joined: bool,
    /// Answer with 8-byte DATA_ACKs: the peer's DSNs have 8 bytes, as far as it is known.
    pub(crate) long_ack: bool,
    pub(crate) announcements: Vec<Announcement>,
    /// The peer's initial address and those it announced.
    pub(crate) remotes: Vec<RemoteAddr>,
    pub(crate) add_addr_accepted: u8,
    /// Endpoints whose REMOVE_ADDR is to be told.
    pub(crate) withdrawn: Vec<u8>,
    /// Our address of the initial subflow was withdrawn: should it come back it has its endpoint's identifier.
    pub(crate) initial_withdrawn: bool,
    /// Subflows whose address the peer is said to have withdrawn.
    pub(crate) doubts: Vec<Doubt>,
}

impl Mp {
    pub(crate) fn new(local: Key, remote: Option<Key>) -> Box<Self> {
        Box::new(Self {
            local,
            remote,
            fully_established: false,
            deny_join_initial: false,
            checksum: false,
            checksum_seen: false,
            joined: false,
            long_ack: false,
            announcements: Vec::new(),
            remotes: Vec::new(),
            add_addr_accepted: 0,
            withdrawn: Vec::new(),
            initial_withdrawn: false,
            doubts: Vec::new(),
        })
    }

    /// Whether an endpoint of ours was announced, or is to be.
    pub(crate) fn has_announced(&self, id: u8) -> bool {
        self.announcements.iter().any(|one| one.id == id)
    }

    /// A subflow joins from an address of ours.
    pub(crate) fn note_join(&mut self, local_id: u8) {
        self.joined = true;
        // A REMOVE_ADDR that still waits must not hit the subflow that comes now.
        self.withdrawn.retain(|id| *id != local_id);
    }

    /// DSN of one of our offsets.
    pub(crate) fn dsn(&self, off: u64) -> u64 {
        self.local.idsn.wrapping_add(1).wrapping_add(off)
    }

    fn remote_base(&self) -> u64 {
        self.remote.map_or(0, |remote| remote.idsn).wrapping_add(1)
    }

    /// DSN of one of the peer's offsets.
    pub(crate) fn remote_dsn(&self, off: u64) -> u64 {
        self.remote_base().wrapping_add(off)
    }

    /// Offset of one of our DSNs that the peer acknowledges, near `una`.
    pub(crate) fn acked_offset(&self, ack: DataAck, una: u64) -> Option<u64> {
        expand(ack, self.local.idsn.wrapping_add(1), una)
    }

    /// Offset of one of the peer's DSNs, near `nxt`.
    pub(crate) fn remote_offset(&self, dsn: DataAck, nxt: u64) -> Option<u64> {
        expand(dsn, self.remote_base(), nxt)
    }

    /// DATA_ACK for offset `ack` of the peer's stream.
    pub(crate) fn data_ack(&self, ack: u64, long: bool) -> DataAck {
        let dsn = self.remote_dsn(ack);
        if long { DataAck::Long(dsn) } else { DataAck::Short(dsn as u32) }
    }
}

/// The offset near `near` whose DSN, counted from `base`, is `wire`; `None` if it lies before the start.
fn expand(wire: DataAck, base: u64, near: u64) -> Option<u64> {
    match wire {
        DataAck::Short(low) => {
            let here = base.wrapping_add(near) as u32;
            near.checked_add_signed(i64::from(low.wrapping_sub(here) as i32))
        }
        DataAck::Long(dsn) => {
            let distance = dsn.wrapping_sub(base.wrapping_add(near)) as i64;
            near.checked_add_signed(distance)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_expand_around_wraps() {
        for base in [0, 1, u64::MAX, u64::from(u32::MAX) - 5, 1 << 63] {
            for near in [0u64, 10, 1 << 31, 1 << 33] {
                for delta in [-5i64, 0, 5, 1 << 20] {
                    let Some(off) = near.checked_add_signed(delta) else { continue };
                    let dsn = base.wrapping_add(off);
                    assert_eq!(expand(DataAck::Long(dsn), base, near), Some(off));
                    assert_eq!(expand(DataAck::Short(dsn as u32), base, near), Some(off));
                }
            }
        }
    }

    #[test]
    fn nothing_lies_before_the_start() {
        assert_eq!(expand(DataAck::Long(99), 100, 0), None);
        assert_eq!(expand(DataAck::Short(99), 100, 0), None);
    }
}
