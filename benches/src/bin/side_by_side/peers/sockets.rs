//! The services on sockets of either stack: threads that accept and serve, one connection at a time.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::{chunk, ready};
use crate::task::Service;
use anabranch_benches::{Listener, Stream};

/// Threads of a service at least: more than one connection may be on its way at once.
const LEAST: usize = 16;
/// Threads are many with many connections, and shallow.
const STACK: usize = 128 << 10;

/// Runs the threads of all services.
pub(super) fn serve(connections: usize, listen: impl Fn(Service) -> Result<Listener>) -> Result<()> {
    for service in Service::ALL {
        let listener = Arc::new(listen(service)?);
        for _ in 0..connections.max(LEAST) {
            let listener = Arc::clone(&listener);
            thread::Builder::new().stack_size(STACK).spawn(move || accept(&listener, service, chunk(connections)))?;
        }
    }
    ready();
    loop {
        thread::park();
    }
}

fn accept(listener: &Listener, service: Service, chunk: usize) {
    let mut buffer = vec![b'x'; chunk];
    loop {
        match listener.accept() {
            // How it ends the client sees; there is nobody else to tell.
            Ok(stream) => drop(serve_one(&stream, service, &mut buffer)),
            // Out of descriptors, or a connection that was reset in the queue.
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn serve_one(mut stream: &Stream, service: Service, buffer: &mut [u8]) -> io::Result<()> {
    match service {
        Service::Chargen => loop {
            stream.write_all(buffer)?;
        },
        Service::Discard => while read(stream, buffer)? > 0 {},
        Service::Echo => loop {
            let bytes = read(stream, buffer)?;
            if bytes == 0 {
                break;
            }
            stream.write_all(&buffer[..bytes])?;
        },
    }
    stream.finish()
}

fn read(mut stream: &Stream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
