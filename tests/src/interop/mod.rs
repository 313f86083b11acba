//! The interop matrix: anabranch and the kernel in both roles, with what RFC 8684 lets either side do or suffer.
//!
//! Not the product of all settings but a sample that covers them, in named [`ROWS`]. Each is a connection over two paths
//! through a router: bytes both ways, a change, bytes again, an end; and what both ends must have counted then.

mod rows;
mod run;
mod table;

use std::sync::Mutex;
use std::thread;

use anyhow::Result;

use crate::{Family, Role};

pub use rows::ROWS;
pub use table::table;

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What it is called.
    pub name: &'static str,
    /// What anabranch is; the kernel is the other.
    pub role: Role,
    /// IPv4 or IPv6.
    pub family: Family,
    /// What is set before the connection.
    pub given: &'static [Set],
    /// What happens to it after the first bytes.
    pub then: &'static [Step],
    /// How it ends.
    pub end: End,
    /// Subflows in the middle and before the end, as anabranch sees them.
    pub subflows: (usize, usize),
    /// What the kernel must have counted.
    pub kernel: &'static [Expect],
    /// What anabranch must have counted.
    pub ours: &'static [Expect],
}

/// Something that is set before the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Set {
    /// Flags of our second path, separated by commas, as in `--path`.
    Path(&'static str),
    /// Words of `ip mptcp endpoint add` for the kernel's address on the second path.
    Endpoint(&'static str),
    /// We ask for checksums.
    Checksum,
    /// Our limits: subflows, add_addr_accepted.
    Limits(u8, u8),
    /// The kernel's.
    KernelLimits(u8, u8),
    /// We want no joins to our first address.
    DenyJoin,
    /// We answer every SYN with a cookie.
    SynCookies,
    /// Our path manager.
    Manager(&'static str),
    /// Data in SYNs, both sides.
    FastOpen,
    /// A variable of the kernel's peer.
    Sysctl(&'static str, &'static str),
    /// A rule of the router between the two.
    Nft(&'static str),
}

/// Something that happens to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Our second path has these flags from now on.
    Change(&'static str),
    /// Our second address goes.
    Remove,
    /// Our first address goes.
    RemoveFirst,
    /// It is there again, with these flags.
    AddFirst(&'static str),
    /// The kernel's second address becomes an endpoint with these words.
    Endpoint(&'static str),
    /// Flags of that endpoint change.
    EndpointChange(&'static str),
    /// It is deleted.
    EndpointDelete,
    /// The kernel's first address is withdrawn.
    EndpointDeleteFirst,
    /// The router has this rule from now on.
    Nft(&'static str),
    /// The same once all is acknowledged; we are the first to speak then.
    NftAtRest(&'static str),
    /// The same, but the kernel speaks first, and then nobody until it would have repeated what we do not acknowledge.
    NftBeforeKernel(&'static str),
    /// So many milliseconds pass.
    Pause(u64),
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// In good order.
    Close,
    /// We abort it.
    OurAbort,
    /// The kernel aborts it.
    KernelAbort,
    /// The router has this rule from now on, which hides our DATA_ACKs from the kernel until it has repeated what it sent.
    /// From then on it does not fall back, and resets the subflow for our first segment without a mapping.
    TooLate(&'static str),
}

/// A counter and what it must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expect {
    name: &'static str,
    at_least: u64,
    at_most: u64,
}

const fn is(name: &'static str, value: u64) -> Expect {
    Expect { name, at_least: value, at_most: value }
}

const fn at_least(name: &'static str, value: u64) -> Expect {
    Expect { name, at_least: value, at_most: u64::MAX }
}

impl Expect {
    fn holds(&self, value: u64) -> bool {
        (self.at_least..=self.at_most).contains(&value)
    }
}

/// Runs rows, `at_once` of them at a time; those that failed, with what was wrong.
#[must_use]
pub fn run_all(rows: &[Row], at_once: usize) -> Vec<(&'static str, anyhow::Error)> {
    let (queue, failed) = (Mutex::new(rows.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let Some(row) = queue.lock().expect("no panic here").next() else { break };
                    if let Err(error) = run(row) {
                        failed.lock().expect("no panic here").push((row.name, error));
                    }
                }
            });
        }
    });
    failed.into_inner().expect("no panic here")
}

/// How often a row begins anew at most.
const ATTEMPTS: usize = 5;

/// Runs one row. Begins anew if the machine was too slow for it.
///
/// # Errors
/// The first thing that was not as it should be.
pub fn run(row: &Row) -> Result<()> {
    for _ in 1..ATTEMPTS {
        match run::Case::new(row)?.run() {
            Err(error) if error.is::<run::RepeatedBefore>() => {}
            result => return result,
        }
    }
    run::Case::new(row)?.run()
}
