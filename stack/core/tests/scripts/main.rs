//! What goes out when what comes in, segment by segment: one script a rule.

mod basics;
mod close;
mod dctcp;
mod ecn;
mod fastopen;
mod handshake;
mod harness;
mod icmp;
mod ip;
mod keepalive;
mod options;
mod plpmtud;
mod pmtu;
mod receiving;
mod recovery;
mod sending;
mod states;
