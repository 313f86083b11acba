//! Sockets for async programs, like those of `tokio::net`. They work on any executor.

mod listener;
mod stream;

pub use listener::TcpListener;
pub use stream::{OwnedReadHalf, OwnedWriteHalf, TcpStream};
