//! What the benchmarks share: stacks in memory, without devices, threads and sockets.
//!
//! * `benches/parts.rs`: costs of the parts in time, by criterion;
//! * `benches/instructions.rs`: the same in instructions, by gungraun under valgrind;
//! * `idle`: memory of connections that have nothing to do;
//! * `side-by-side`: the whole system beside its peers.

pub mod idle;
pub mod parts;
mod shards;

pub use shards::{Pair, PairConfig, Side, Wire};
