//! Mappings, acknowledgements and windows at data level, as no well-behaved peer sends them (RFC 8684 §3.3).

#[path = "../peer/mod.rs"]
mod peer;

mod acks;
mod mappings;
mod windows;
