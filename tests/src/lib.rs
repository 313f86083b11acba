//! The harness of the whole-system tests: anabranch on one side, the Linux kernel on the other.
//!
//! * [`Netns`]: a network namespace that lives as long as its handle, on any number of threads;
//! * [`Lab`]: a subject under test, two paths and a kernel peer, in one of the [`Layout`]s;
//! * [`kernel`]: the kernel's TCP and MPTCP sockets;
//! * [`transfer`]: many bytes both ways at once, compared by content and by hash;
//! * [`interop`]: the matrix of what both do with each other;
//! * [`Counters`]: what the kernel counted, `MPTcpExt…` above all;
//! * [`Process`]: a command in a namespace, such as `anabranch` itself;
//! * [`Capture`] and [`tshark`]: what was on the wire, and what a dissector thinks of it.
//!
//! [`prove`] runs one case of the matrix from end to end. Needs root (or `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`), and the Debian packages iproute2, nftables,
//! tcpdump and tshark.
#![cfg(target_os = "linux")]

pub mod addr;
mod breakage;
mod capture;
mod command;
mod counters;
pub mod interop;
pub mod kernel;
mod lab;
mod netns;
mod permission;
mod process;
mod proof;
mod resets;
mod subject;
pub mod transfer;
pub mod tshark;

pub use addr::Family;
pub use breakage::Breakage;
pub use capture::{Capture, Captured, keep_captures};
pub use command::run;
pub use counters::Counters;
pub use lab::{Connection, Join, Lab, LabBuilder, Layout, PORT, Role, cable, cable_duct};
pub use netns::Netns;
pub use permission::{REQUIRE, permitted};
pub use process::{Finished, Process};
pub use proof::prove;
pub use subject::{Accept, Anabranch, Kernel, PathOptions, Start, Subject};
