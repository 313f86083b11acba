//! The servers.

mod bare;
mod segment;
mod smol;
mod smol_tun;
mod sockets;
mod tun;

use std::io::{self, Read};
use std::thread;

use anyhow::Result;

use crate::socket::start;
use crate::task::{Serve, ServerStack};
use anabranch_benches::{Listener, cpu};

/// Bytes of one read or write, on both sides and for all peers.
pub(crate) const CHUNK: usize = 256 << 10;
/// Where there are many connections.
const SMALL_CHUNK: usize = 64 << 10;

/// Bytes of one read or write with so many connections at once.
pub(crate) fn chunk(connections: usize) -> usize {
    if connections > 16 { SMALL_CHUNK } else { CHUNK }
}

/// Serves until standard input ends, which it does when the parent is gone, however that ended.
pub(crate) fn serve(serve: &Serve) -> Result<()> {
    cpu::pin(&serve.cpus)?;
    let connections = serve.connections;
    match &serve.stack {
        ServerStack::Kernel { mptcp, congestion } => {
            sockets::serve(connections, |service| Listener::kernel(service.port(), *mptcp, congestion))
        }
        ServerStack::Anabranch(options) => {
            let stack = start(options)?;
            sockets::serve(connections, |service| Listener::anabranch(service.port(), &stack))
        }
        ServerStack::Smoltcp { offload } => smol::serve(*offload, connections),
        ServerStack::Bare { reads } => bare::serve(*reads),
    }
}

/// Says that the server is ready. From now on the process ends with its standard input.
fn ready() {
    println!("ready");
    thread::spawn(|| {
        let mut nothing = [0; 64];
        while io::stdin().read(&mut nothing).is_ok_and(|bytes| bytes > 0) {}
        std::process::exit(0);
    });
}
