//! The connection: one byte stream over one or more subflows, MPTCP or plain TCP.
//!
//! Data is counted in *offsets*: bytes since the start of the stream, 64 bits, the same for MPTCP
//! (where the DSN of offset 0 is IDSN + 1) and for plain TCP (where it is the subflow's first byte).

mod addr;
mod audit;
mod checksum;
mod chrono;
mod close;
mod conn;
mod crypto;
mod failover;
mod fallback;
mod fastopen;
mod icmp;
mod input;
mod join;
mod manage;
mod mapping;
mod memory;
mod nagle;
mod options;
mod output;
mod persist;
mod recvq;
mod removal;
mod reorder;
mod rest;
mod sendq;
mod state;
mod timers;

use anabranch_frame::Pools;

pub(crate) use audit::Holdings;
pub(crate) use conn::{Conn, Cx};
pub(crate) use crypto::{Key, join_ack, join_synack, same};
pub(crate) use failover::{AlarmRecord, Silence};
pub(crate) use fastopen::{Fast, fast_mode};
pub(crate) use join::{Joined, passive_mode, scale_for};
pub use nagle::Follows;

pub(crate) use mapping::{Mappings, Noted, RxMapping};
pub(crate) use recvq::initial_window;
pub(crate) use rest::RestingConn;
pub(crate) use state::{Mode, Mp};

/// Buffers for what is copied out of larger ones, or together: of one worker, for all its connections.
pub(crate) type Copies = Pools<4>;

/// Pools of the sizes that are in use: 3 MiB of idle buffers at most.
pub(crate) fn copies() -> Copies {
    Pools::new([(256, 1024), (1_664, 256), (4_096, 256), (16_384, 64)])
}
