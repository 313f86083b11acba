//! The connection: one byte stream over one or more subflows, MPTCP or plain TCP.
//!
//! Data is counted in *offsets*: bytes since the start of the stream, 64 bits, the same for MPTCP
//! (where the DSN of offset 0 is IDSN + 1) and for plain TCP (where it is the subflow's first byte).

mod addr;
mod close;
mod conn;
mod crypto;
mod fallback;
mod input;
mod join;
mod mapping;
mod memory;
mod output;
mod recvq;
mod reorder;
mod rest;
mod sendq;
mod state;
mod timers;

pub(crate) use conn::{Conn, Cx};
pub(crate) use crypto::{Key, join_ack, join_synack, same};
pub(crate) use join::{Joined, passive_mode, scale_for};
pub(crate) use mapping::{Mappings, Noted, RxMapping};
pub(crate) use rest::RestingConn;
pub(crate) use state::{Mode, Mp};
