//! AF_PACKET sockets on veth pairs, each test in a network namespace of its own.

#[path = "../netns/mod.rs"]
mod netns;
mod wire;
