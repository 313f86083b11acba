//! The system calls, as methods of the world that never wait: `EAGAIN` says that they would.

pub(crate) mod connect;
pub(crate) mod options;
pub(crate) mod ready;
pub(crate) mod receive;
pub(crate) mod send;
