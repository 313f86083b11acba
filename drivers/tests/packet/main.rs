//! AF_PACKET sockets on veth pairs, each test in a network namespace of its own.

mod device;
#[path = "../netns/mod.rs"]
mod netns;
mod wire;
