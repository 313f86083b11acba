//! A deterministic network for the anabranch stack.
//!
//! A [`World`] has a virtual clock, hosts with the very stack that moves real packets, and
//! [`Link`]s with a rate, a delay, jitter, a queue, loss and outages. Everything follows from one
//! seed: the same program runs the same way every time, on every machine.
//!
//! ```
//! use std::time::Duration;
//! use anabranch_sim::{LinkConfig, Pair, Transfer};
//!
//! let mut net = Pair::seeded(1).path(LinkConfig::new(50, 10)).path(LinkConfig::new(20, 40)).build();
//! let server = net.spawn(Pair::SERVER, Transfer::listen(Pair::server_addr(0)));
//! net.spawn(Pair::CLIENT, Transfer::connect(Pair::server_addr(0)).sends(1 << 20));
//! assert!(net.run_until(Duration::from_secs(2), |world| world.app(server).completed(1)));
//! assert_eq!(net.app(server).flow().received.bytes, 1 << 20);
//! ```
//!
//! A [`Link`] is pure too and can stand in front of a real device.
//! The environment variable `ANABRANCH_SEED` sets the seed of a [`Pair`], `ANABRANCH_TRACE=1` prints
//! every packet; a world in which a test fails prints its seed and its latest packets by itself.
#![forbid(unsafe_code)]

mod agenda;
mod app;
mod capture;
mod gro;
mod host;
mod link;
mod mail;
pub mod middlebox;
mod pace;
mod pair;
mod random;
mod trace;
mod world;

pub use app::{Action, Chatter, Echo, Flow, Note, Received, Transfer};
pub use host::{AppId, Application, HostConfig, HostCtx, HostId, Steering};
pub use link::{
    Aqm, BadTrace, Codel, DropTail, Durations, Framing, Jitter, Link, LinkChange, LinkConfig, LinkStats, Loss,
    Opportunities, Police, Queue, QueueLimit, Queued, Red, Reorder, Series, Tally,
};
pub use mail::Mailing;
pub use pace::Pacer;
pub use pair::{PORT, Pair, PairBuilder};
pub use random::{Pattern, Random, seed_from_env};
pub use trace::describe;
pub use world::{LinkId, Verdict, World};

use host::Host;
