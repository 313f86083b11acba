//! The epoll set of a worker.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::Timespec;

/// Who an event is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Token {
    /// The bell rang.
    Bell,
    /// The link monitor has news.
    Links,
    /// The device of the path with this index.
    Path(usize),
}

impl Token {
    fn to_data(self) -> EventData {
        EventData::new_u64(match self {
            Self::Bell => u64::MAX,
            Self::Links => u64::MAX - 1,
            Self::Path(at) => at as u64,
        })
    }

    fn from_data(data: EventData) -> Self {
        match data.u64() {
            u64::MAX => Self::Bell,
            data if data == u64::MAX - 1 => Self::Links,
            at => Self::Path(at as usize),
        }
    }
}

/// What a descriptor shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) token: Token,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// `EPOLLERR` or `EPOLLHUP`.
    pub(crate) broken: bool,
}

/// An epoll set.
#[derive(Debug)]
pub(crate) struct Poll {
    epoll: OwnedFd,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Watches for edges of `EPOLLIN`: each write of an event descriptor is one.
    pub(crate) fn add_edge(&self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, token.to_data(), EventFlags::IN | EventFlags::ET)?)
    }

    /// Watches for `EPOLLIN`.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, token.to_data(), EventFlags::IN)?)
    }

    /// Watches for `EPOLLOUT` as well, or no longer.
    pub(crate) fn want_out(&self, fd: BorrowedFd<'_>, token: Token, out: bool) -> io::Result<()> {
        let flags = if out { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(epoll::modify(&self.epoll, fd, token.to_data(), flags)?)
    }

    /// Watches no more.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits for something to happen, for at most `timeout`.
    pub(crate) fn wait(&self, timeout: Option<Duration>, mut each: impl FnMut(Ready)) {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 16];
        // An interrupted wait is a short one; nothing else can go wrong with a descriptor of our own.
        let count = epoll::wait(self.epoll.as_fd(), &mut events, timeout.as_ref()).unwrap_or(0);
        for event in &events[..count] {
            let (flags, data) = (event.flags, event.data);
            each(Ready {
                token: Token::from_data(data),
                readable: flags.contains(EventFlags::IN),
                writable: flags.contains(EventFlags::OUT),
                broken: flags.intersects(EventFlags::ERR | EventFlags::HUP),
            });
        }
    }
}
