//! TCP and Multipath TCP as a pure state machine.
//!
//! The top object is [`Shard`], one worker's part of a stack. It is driven by four
//! kinds of calls, and nothing calls back:
//!
//! * getters, `&self`;
//! * input: [`handle_packet`](shard::Shard::handle_packet), [`handle_timeout`](shard::Shard::handle_timeout),
//!   [`handle_mail`](shard::Shard::handle_mail);
//! * commands: connect, listen, accept, write, read, shut down, abort, paths up and down, options;
//! * output, polled after any of the above until dry, in this order:
//!   [`poll_mail`](shard::Shard::poll_mail), [`poll_transmit`](shard::Shard::poll_transmit),
//!   [`poll_event`](shard::Shard::poll_event), then [`poll_timeout`](shard::Shard::poll_timeout) for the
//!   time of the next call of `handle_timeout`.
//!
//! Time is a parameter, randomness is a seed, so one seed replays one run.
//!
//! Not in here: devices, threads, clocks, sockets, name resolution, ARP, ICMP echo. See the crates
//! `anabranch-drivers` and `anabranch`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod cc;
pub mod config;
pub mod counters;
pub mod error;
pub mod info;
pub mod mptcp;
pub mod options;
pub mod pm;
pub mod ranges;
mod rng;
pub mod sched;
pub mod shard;
pub mod tcp;
pub mod wire;

pub use config::{
    Endpoint, EndpointFlags, IpCidr, Limits, MtuProbing, NewEndpoint, PathConfig, PmtuConfig, Recovery, ShardConfig,
};
pub use counters::Counters;
pub use error::{Error, FallbackReason, IcmpCause, ResetReason};
pub use info::{ConnInfo, SubflowInfo};
pub use mptcp::Follows;
pub use options::{Ecn, SockOpt, SocketOptions};
pub use shard::{ConnId, Event, ListenerId, Mail, Shard, Sizes, WorkerId, worker_of_token};
