//! The services on smoltcp: one thread, one loop, with the settings that served it best.

use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context, Result};
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, Medium, TunTapInterface, wait};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpCidr};

use super::smol_tun::SmolTun;
use super::{CHUNK, ready, tun};
use crate::site::SERVER;
use crate::task::Service;

/// Socket buffers in bytes: for the direction that matters, and for the other.
const LARGE: usize = 4 << 20;
const SMALL: usize = 64 << 10;
/// Sockets of a service at least: one that has closed needs a moment before it listens again.
const LEAST: usize = 16;
/// Packets taken in before the applications get their turn.
const BATCH: usize = 64;
const ACK_DELAY: Duration = Duration::from_millis(10);

/// Runs the loop, on smoltcp's own TUN device or on one with offload.
pub(super) fn serve(offload: bool, connections: usize) -> Result<()> {
    if offload {
        let device = SmolTun::open().context("attaching to tun0")?;
        let fd = device.as_raw_fd();
        run(device, fd, connections)
    } else {
        let device = TunTapInterface::new(tun::NAME, Medium::Ip).context("attaching to tun0")?;
        let fd = device.as_raw_fd();
        run(device, fd, connections)
    }
}

fn run<D: Device>(mut device: D, fd: RawFd, connections: usize) -> Result<()> {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = Instant::now().total_micros() as u64;
    let mut interface = Interface::new(config, &mut device, Instant::now());
    interface.update_ip_addrs(|addrs| addrs.push(IpCidr::new(SERVER.into(), 24)).expect("room for one address"));
    let mut sockets = SocketSet::new(Vec::new());
    let all = open(&mut sockets, connections);
    let mut application = vec![b'x'; CHUNK];
    ready();
    loop {
        serve_all(&mut sockets, &all, &mut application);
        let now = Instant::now();
        interface.poll_maintenance(now);
        let mut taken = 0;
        while taken < BATCH
            && interface.poll_ingress_single(now, &mut device, &mut sockets) != PollIngressSingleResult::None
        {
            taken += 1;
        }
        interface.poll_egress(now, &mut device, &mut sockets);
        if taken == BATCH || serve_all(&mut sockets, &all, &mut application) {
            continue;
        }
        match interface.poll_delay(Instant::now(), &sockets) {
            Some(Duration::ZERO) => {}
            delay => wait(fd, delay.or(Some(Duration::from_secs(1)))).context("waiting for tun0")?,
        }
    }
}

fn open(sockets: &mut SocketSet<'_>, connections: usize) -> Vec<(SocketHandle, Service)> {
    let mut all = Vec::new();
    for service in Service::ALL {
        let (receive, send) = match service {
            Service::Discard => (LARGE, SMALL),
            Service::Chargen => (SMALL, LARGE),
            Service::Echo => (SMALL, SMALL),
        };
        for _ in 0..connections.max(LEAST) {
            let buffer = |len| SocketBuffer::new(vec![0; len]);
            let mut socket = Socket::new(buffer(receive), buffer(send));
            socket.set_nagle_enabled(false);
            socket.set_ack_delay(Some(ACK_DELAY));
            socket.set_congestion_control(CongestionControl::Cubic);
            socket.set_tsval_generator(Some(|| Instant::now().total_millis() as u32));
            all.push((sockets.add(socket), service));
        }
    }
    all
}

/// One turn of all applications; whether any of them did something.
fn serve_all(sockets: &mut SocketSet<'_>, all: &[(SocketHandle, Service)], application: &mut [u8]) -> bool {
    let mut busy = false;
    for &(handle, service) in all {
        busy |= serve_one(sockets.get_mut(handle), service, application);
    }
    busy
}

fn serve_one(socket: &mut Socket<'_>, service: Service, application: &mut [u8]) -> bool {
    if !socket.is_open() {
        socket.listen(service.port()).expect("a closed socket may listen");
        return false;
    }
    let mut busy = false;
    match service {
        Service::Discard => {
            while socket.can_recv() {
                busy |= socket.recv_slice(application).is_ok_and(|bytes| bytes > 0);
            }
        }
        Service::Chargen => {
            while socket.can_send() && socket.send_slice(application).is_ok_and(|bytes| bytes > 0) {
                busy = true;
            }
        }
        Service::Echo => {
            while socket.can_recv() && socket.can_send() {
                let room = (socket.send_capacity() - socket.send_queue()).min(application.len());
                let Ok(bytes @ 1..) = socket.recv_slice(&mut application[..room]) else { break };
                busy |= socket.send_slice(&application[..bytes]).is_ok();
            }
        }
    }
    // The peer has ended its stream, and everything was read.
    if socket.state() == State::CloseWait && !socket.can_recv() {
        socket.close();
        busy = true;
    }
    busy
}
