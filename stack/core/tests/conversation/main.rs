//! Conversations between two stacks on a simulated network.
//!
//! Every test has a seed of its own that `ANABRANCH_SEED` overrules; a test that fails prints it and
//! its latest packets. `ANABRANCH_TRACE=1` prints all of them.

mod support;

mod addresses;
mod bad_networks;
mod checksum;
mod close;
mod ecn;
mod failover;
mod fallback;
mod fastopen;
mod handshake;
mod hostile;
mod impaired;
mod managers;
mod many;
mod middlebox;
mod multipath;
mod plain;
mod pmtu;
mod random;
mod rest;
mod selftest;
mod silence;
mod timers;
mod window;
mod workers;
