//! The kernel's sockets, plain and MPTCP, in a namespace. They are std's once they are open.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};

use crate::Netns;

/// Cubic, because BBR, which some machines have as default, paces itself to half on paths of
/// microseconds; Reno, which every namespace may choose, where cubic is not to be had.
const CONGESTION: [&str; 2] = ["cubic", "reno"];

/// What a kernel socket speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// `IPPROTO_MPTCP`.
    Mptcp,
}

/// A listening socket. Joins to announced addresses need the unspecified address here.
///
/// # Errors
/// What the kernel says; an MPTCP socket needs a kernel with `CONFIG_MPTCP` and `net.mptcp.enabled=1`.
pub fn listen(netns: &Netns, protocol: Protocol, local: SocketAddr) -> Result<TcpListener> {
    listen_with(netns, protocol, local, &CONGESTION)
}

/// The same with the first congestion control of a list that may be chosen.
///
/// # Errors
/// See [`listen`].
pub fn listen_with(netns: &Netns, protocol: Protocol, local: SocketAddr, congestion: &[&str]) -> Result<TcpListener> {
    netns.run(|| {
        let socket = open(protocol, local, congestion)?;
        socket.set_reuse_address(true)?;
        socket.bind(&local.into()).with_context(|| format!("binding {local}"))?;
        socket.listen(128)?;
        Ok(socket.into())
    })
}

/// A connected socket, from `local` if given.
///
/// # Errors
/// What the kernel says.
pub fn connect(netns: &Netns, protocol: Protocol, local: Option<IpAddr>, remote: SocketAddr) -> Result<TcpStream> {
    connect_with(netns, protocol, local, remote, &CONGESTION)
}

/// The same with the first congestion control of a list that may be chosen.
///
/// # Errors
/// See [`connect`].
pub fn connect_with(
    netns: &Netns,
    protocol: Protocol,
    local: Option<IpAddr>,
    remote: SocketAddr,
    congestion: &[&str],
) -> Result<TcpStream> {
    netns.run(|| {
        let socket = open(protocol, remote, congestion)?;
        if let Some(local) = local {
            socket.bind(&SocketAddr::new(local, 0).into()).with_context(|| format!("binding {local}"))?;
        }
        socket.connect(&remote.into()).with_context(|| format!("connecting to {remote}"))?;
        Ok(socket.into())
    })
}

/// An MPTCP socket that sends its first bytes with the SYN, if the kernel has a cookie for the peer (RFC 7413).
///
/// # Errors
/// What the kernel says.
pub fn connect_fast(netns: &Netns, remote: SocketAddr, first: &[u8]) -> Result<TcpStream> {
    const MSG_FASTOPEN: i32 = 0x2000_0000;
    netns.run(|| {
        let socket = open(Protocol::Mptcp, remote, &CONGESTION)?;
        let sent = socket.send_to_with_flags(first, &remote.into(), MSG_FASTOPEN)?;
        ensure!(sent == first.len(), "the kernel took {sent} bytes");
        Ok(socket.into())
    })
}

/// A socket for `addr`'s family in the namespace of the calling thread, neither bound nor connected.
///
/// # Errors
/// See [`listen`].
pub fn open(protocol: Protocol, addr: SocketAddr, congestion: &[&str]) -> Result<Socket> {
    let number = match protocol {
        Protocol::Tcp => socket2::Protocol::TCP,
        Protocol::Mptcp => socket2::Protocol::MPTCP,
    };
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(number)).with_context(|| {
        format!("opening a kernel {protocol:?} socket (MPTCP needs CONFIG_MPTCP and net.mptcp.enabled=1)")
    })?;
    let chosen = congestion.iter().any(|name| socket.set_tcp_congestion(name.as_bytes()).is_ok());
    ensure!(chosen, "the kernel lets nobody here choose {}", congestion.join(" or "));
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Ends a connection with a reset.
///
/// # Errors
/// What the kernel says.
pub fn reset(stream: TcpStream) -> Result<()> {
    let socket = Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO))?;
    Ok(())
}
