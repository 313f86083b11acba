//! One TCP subflow.

mod snd;
