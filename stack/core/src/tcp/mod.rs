//! One subflow of a connection: everything of TCP that does not depend on MPTCP.

mod check;
mod ecn;
mod guard;
mod half;
mod handshake;
mod ip;
mod isn;
mod plpmtud;
mod pmtu;
mod rcv;
mod snd;
mod subflow;

pub(crate) use check::Verdict;
pub(crate) use ecn::{EarlyAck, EcnState, EcnWish};
pub(crate) use guard::Guard;
pub(crate) use half::{BareAck, Half, HalfOpen};
pub(crate) use handshake::{
    DEFAULT_MSS_V4, DEFAULT_MSS_V6, Disposition, FastSyn, Local, Negotiated, Opening, Retries, Want, synack_timeout,
    told_mss,
};
pub(crate) use ip::{IpOptions, flow_label};
pub(crate) use isn::{
    fast_open_cookie, fast_open_key, home_hash, initial_seq, port_hash, syn_cookie_hash, syn_cookie_key,
    timestamp_offset,
};
pub(crate) use plpmtud::Search;
pub(crate) use rcv::{AckDue, Arrival, Rcv};
pub(crate) use snd::{AckOut, Fired, Learnt, Pacing, Retransmit, TxMapping};
pub(crate) use subflow::{
    Backup, FastOpened, Joining, Link, Out, RestingSubflow, Subflow, SubflowStart, reset_for, syn_options,
};
