//! What the benchmarks share: stacks in memory, without devices, threads and sockets; sockets of either stack; the
//! machine and its accounts.
//!
//! * `benches/parts.rs`: costs of the parts in time, by criterion;
//! * `benches/instructions.rs`: the same in instructions, by gungraun under valgrind;
//! * `idle`: memory of connections that have nothing to do;
//! * `side-by-side`: the whole system beside its peers;
//! * `bad-networks`: TCP beside the kernel's, where networks hurt;
//! * `failover`: how long a stream pauses when one of its paths dies;
//! * `syn-flood`: what a flood leaves of connections.

pub mod bulk;
pub mod cpu;
pub mod idle;
mod machine;
pub mod parts;
pub mod pattern;
mod shards;
mod socket;

pub use machine::Machine;
pub use shards::{Pair, PairConfig, Side, Wire};
pub use socket::{Listener, Stream};
