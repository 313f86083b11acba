//! The epoll set of a worker.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anabranch_frame::PathId;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use smallvec::SmallVec;

/// Who an event is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Token {
    /// The bell rang.
    Bell,
    /// The timer went off.
    Timer,
    /// The link monitor has news.
    Links,
    /// The device of this path.
    Path(PathId),
}

impl Token {
    fn to_data(self) -> EventData {
        EventData::new_u64(match self {
            Self::Bell => u64::MAX,
            Self::Links => u64::MAX - 1,
            Self::Timer => u64::MAX - 2,
            Self::Path(id) => id.0.into(),
        })
    }

    fn from_data(data: EventData) -> Self {
        match data.u64() {
            u64::MAX => Self::Bell,
            data if data == u64::MAX - 1 => Self::Links,
            data if data == u64::MAX - 2 => Self::Timer,
            id => Self::Path(PathId(id as u16)),
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

/// What one wait brought.
pub(crate) type Events = SmallVec<[Ready; EVENTS_MAX]>;
const EVENTS_MAX: usize = 16;

/// An epoll set with a timer, in which several threads may wait: an event goes to one of them. Everything is watched
/// edge-triggered; with levels, the kernel would wake the others as well.
#[derive(Debug)]
pub(crate) struct Poll {
    epoll: OwnedFd,
    timer: OwnedFd,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let poll = Self { epoll, timer };
        poll.add(poll.timer.as_fd(), Token::Timer)?;
        Ok(poll)
    }

    /// Watches for `EPOLLIN`.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, token.to_data(), EventFlags::IN | EventFlags::ET)?)
    }

    /// Watches for `EPOLLOUT` as well, or no longer.
    pub(crate) fn want_out(&self, fd: BorrowedFd<'_>, token: Token, out: bool) -> io::Result<()> {
        let flags = if out { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(epoll::modify(&self.epoll, fd, token.to_data(), flags | EventFlags::ET)?)
    }

    /// Watches no more.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Lets the timer go off once, after `delay`, instead of when it would have.
    pub(crate) fn set_timer(&self, delay: Duration) {
        // Zero would stop it.
        let it_value = Timespec::try_from(delay.max(Duration::from_nanos(1)));
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        if let Ok(it_value) = it_value {
            // It is never read: each time that it goes off is an edge.
            let _ =
                timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: once, it_value });
        }
    }

    /// Waits for something to happen, for at most `timeout`.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Events {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS_MAX];
        // An interrupted wait is a short one; nothing else can go wrong with a descriptor of our own.
        let count = epoll::wait(self.epoll.as_fd(), &mut events, timeout.as_ref()).unwrap_or(0);
        let ready = |event: &epoll::Event| {
            let (flags, data) = (event.flags, event.data);
            Ready {
                token: Token::from_data(data),
                readable: flags.contains(EventFlags::IN),
                writable: flags.contains(EventFlags::OUT),
                broken: flags.intersects(EventFlags::ERR | EventFlags::HUP),
            }
        };
        events[..count].iter().map(ready).collect()
    }
}
