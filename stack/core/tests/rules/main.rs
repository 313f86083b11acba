//! RFC 8684 rule by rule, against a peer that says what no honest one would (see `docs/conformance/rfc8684.md`).

#[path = "../peer/mod.rs"]
mod peer;

mod acks;
mod close;
mod data;
mod handshake;
mod join;
mod mappings;
mod removal;
mod signals;
mod windows;
