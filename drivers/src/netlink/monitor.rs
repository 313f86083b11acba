use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::{DATAGRAM_MAX, Link, Messages, Netlink, link_of, open_socket};

/// `RTMGRP_LINK`: the bit of `RTNLGRP_LINK` among the groups of a netlink address.
const LINK_GROUP: u32 = 1;

/// Hears of interfaces that come, go, change state or MTU, in the network namespace of the thread that
/// opened it.
///
/// Put [`poll_fd`](Self::poll_fd) into epoll for `EPOLLIN` and call [`poll`](Self::poll) when it is readable.
/// For an event whose [`index`](LinkEvent::index) is that of a device, ask the device itself with
/// [`Device::refresh`](crate::Device::refresh) what has become of it: an interface can be moved to another
/// namespace, which looks like a removal from here, and carries packets nevertheless.
#[derive(Debug)]
pub struct LinkMonitor {
    socket: OwnedFd,
    requests: Netlink,
    known: BTreeMap<u32, Link>,
    buffer: Box<[u8]>,
}

/// Something that happened to an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkEvent {
    /// The kernel's index of the interface.
    pub index: u32,
    /// Its name, after the change.
    pub name: String,
    /// What happened.
    pub change: LinkChange,
}

/// What happened to an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkChange {
    /// It is there, new or changed.
    Present {
        /// Set up by the administrator, and with a carrier.
        up: bool,
        /// MTU in bytes.
        mtu: u32,
    },
    /// It was deleted or moved to another network namespace.
    Removed,
}

impl LinkMonitor {
    /// Starts listening. What the interfaces are like now is taken as known: only changes are reported.
    ///
    /// # Errors
    /// When the kernel refuses a netlink socket.
    pub fn open() -> io::Result<Self> {
        // Listen first, look second: a change in between is heard twice rather than not at all.
        let socket = open_socket(LINK_GROUP)?;
        let mut requests = Netlink::open()?;
        let known = requests.links()?.into_iter().map(|link| (link.index, link)).collect();
        Ok(Self { socket, requests, known, buffer: vec![0; DATAGRAM_MAX].into_boxed_slice() })
    }

    /// What to put into epoll, for `EPOLLIN`.
    #[must_use]
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether there is an interface of this name now. Asks the kernel.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn is_present(&mut self, name: &str) -> io::Result<bool> {
        Ok(self.requests.link_by_name(name)?.is_some())
    }

    /// Appends what happened since the last call and returns how many events that is. Does not block.
    ///
    /// # Errors
    /// When the socket broke, which nothing is known to cause: drop the monitor and go on without it.
    pub fn poll(&mut self, events: &mut Vec<LinkEvent>) -> io::Result<usize> {
        let before = events.len();
        let mut overflowed = false;
        loop {
            match rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, len)) => {
                    for message in Messages(&self.buffer[..len]) {
                        if let NetlinkPayload::InnerMessage(message) = message.payload {
                            events.extend(apply(&mut self.known, &message));
                        }
                    }
                }
                // The kernel had more to say than the socket holds. What it does hold is older than what we see
                // when we look for ourselves, so that comes last.
                Err(Errno::NOBUFS) => overflowed = true,
                Err(Errno::AGAIN) if overflowed => {
                    self.look_again(events)?;
                    overflowed = false;
                }
                Err(Errno::AGAIN) => return Ok(events.len() - before),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn look_again(&mut self, events: &mut Vec<LinkEvent>) -> io::Result<()> {
        let links = self.requests.links()?;
        let gone: Vec<u32> =
            self.known.keys().copied().filter(|index| links.iter().all(|link| link.index != *index)).collect();
        events.extend(gone.into_iter().filter_map(|index| removed(&mut self.known, index)));
        events.extend(links.into_iter().filter_map(|link| present(&mut self.known, link)));
        Ok(())
    }
}

/// Takes a message into account; an event if it changes what is known.
fn apply(known: &mut BTreeMap<u32, Link>, message: &RouteNetlinkMessage) -> Option<LinkEvent> {
    match message {
        RouteNetlinkMessage::DelLink(message) if message.header.interface_family == AddressFamily::Unspec => {
            removed(known, message.header.index)
        }
        message => present(known, link_of(message)?),
    }
}

fn present(known: &mut BTreeMap<u32, Link>, link: Link) -> Option<LinkEvent> {
    let event = LinkEvent {
        index: link.index,
        name: link.name.clone(),
        change: LinkChange::Present { up: link.up, mtu: link.mtu },
    };
    let same = |old: &Link| old.name == link.name && old.up == link.up && old.mtu == link.mtu;
    let news = known.get(&link.index).is_none_or(|old| !same(old));
    known.insert(link.index, link);
    news.then_some(event)
}

fn removed(known: &mut BTreeMap<u32, Link>, index: u32) -> Option<LinkEvent> {
    let link = known.remove(&index)?;
    Some(LinkEvent { index, name: link.name, change: LinkChange::Removed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, up: bool) -> Link {
        let name = format!("ab{index}");
        Link { index, name, up, admin_up: up, mtu: 1500, tx_queue_len: 1000, is_tun: true, mac: None }
    }

    #[test]
    fn only_changes_are_events() {
        let mut known = BTreeMap::new();

        let first = present(&mut known, link(7, true));
        let again = present(&mut known, link(7, true));
        let down = present(&mut known, link(7, false));
        let gone = removed(&mut known, 7);
        let gone_again = removed(&mut known, 7);

        assert_eq!(first.map(|event| event.change), Some(LinkChange::Present { up: true, mtu: 1500 }));
        assert_eq!(again, None);
        assert_eq!(down.map(|event| event.change), Some(LinkChange::Present { up: false, mtu: 1500 }));
        assert_eq!(gone, Some(LinkEvent { index: 7, name: "ab7".into(), change: LinkChange::Removed }));
        assert_eq!(gone_again, None);
    }
}
