//! Sockets over a user-space TCP and Multipath TCP (RFC 8684) stack.
//!
//! A [`Stack`] owns paths (TUN devices, or any [`Device`]s handed in) and worker threads. Programs
//! talk to it with [`TcpListener`] and [`TcpStream`], which look and behave like those of `std::net`,
//! or, with the feature `tokio`, like those of `tokio::net`.
//!
//! ```no_run
//! use std::io::{Read, Write};
//!
//! let stack = anabranch::Stack::builder()
//!     .path("tun:ab0,addr=10.9.0.2/24,host=10.9.0.1".parse()?)
//!     .build()?;
//! let mut stream = stack.connect("10.9.0.1:7")?;
//! stream.write_all(b"hello")?;
//! let mut answer = [0; 5];
//! stream.read_exact(&mut answer)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Life and death
//!
//! * [`Stack`] is a handle; clones are cheap. Every listener and stream holds the stack, too.
//! * Dropping a stream's last clone closes it in good order, in the background. Data that came and
//!   was not read resets the connection, as the kernel does.
//! * When the last handle of any kind is dropped, the workers go on until the connections have
//!   closed, for at most the builder's [`linger`](Builder::linger), then end. Nothing waits for
//!   them: a program that is about to end calls [`Stack::shutdown`] first, or the process takes the
//!   unsent data with it. (With kernel sockets the kernel would still be there to send it.)
//!
//! # Threads and fork
//!
//! Sockets may be used, cloned and dropped on any thread; no state is tied to a thread, so threads
//! may end at any time. After `fork` the child has none of the workers and must not use the stack or
//! its sockets in any way, dropping included: call `exec` or `_exit`. The devices' descriptors are
//! closed on `exec`.
//!
//! # Blocking
//!
//! The getters that ask a worker (`info`, `subflows`, `counters`…) and the setters wait for its next
//! turn, some microseconds when it is not busy. That is short enough for async tasks, too.

mod buffers;
mod builder;
mod conn;
mod devices;
mod error;
mod listener;
mod manage;
mod opener;
mod path;
mod paths;
mod stack;
mod stream;
mod sync;
#[cfg(feature = "tokio")]
pub mod tokio;
mod worker;

pub use anabranch_core::config::SynCookies;
pub use anabranch_core::info::{CaState, TcpState};
pub use anabranch_core::{
    ConnInfo, Counters, Ecn, Endpoint, EndpointFlags, FallbackReason, IcmpCause, IpCidr, Limits, MtuProbing,
    NewEndpoint, PathConfig, PmtuConfig, Sizes, SockOpt, SocketOptions, SubflowInfo, cc, pm, sched,
};
pub use anabranch_drivers::Device;
pub use anabranch_frame::PathId;

pub use builder::Builder;
pub use error::Error;
pub use listener::{Incoming, TcpListener};
pub use manage::PathReports;
pub use path::{Driver, PathSpec, PathSpecError};
pub use paths::{PathCounters, PathInfo};
pub use stack::{ConnectOptions, Connection, Stack, WorkerInfo, WorkerStats};
pub use stream::TcpStream;
