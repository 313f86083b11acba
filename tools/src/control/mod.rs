//! Control sockets: what a command that runs can be told, and what it tells.

mod client;
mod protocol;
mod server;
#[cfg(test)]
mod tests;

pub(crate) use client::{Args, run};
pub(crate) use server::Control;
