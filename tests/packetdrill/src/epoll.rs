//! `epoll`, with the kernel's idea of which descriptor becomes ready when.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::RawFd;

use crate::errno::{Errno, Result};
use crate::handle::Handle;
use crate::world::World;

/// Bits of an interest that are not kinds of readiness.
const PRIVATE: u32 = (libc::EPOLLWAKEUP | libc::EPOLLONESHOT | libc::EPOLLET | libc::EPOLLEXCLUSIVE) as u32;
/// What is always told.
const ALWAYS: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;

/// A set of descriptors.
#[derive(Debug, Default)]
pub(crate) struct Epoll {
    interests: BTreeMap<RawFd, Interest>,
    /// Those that may be ready, in the order in which they became so.
    ready: VecDeque<RawFd>,
}

#[derive(Clone, Copy, Debug)]
struct Interest {
    events: u32,
    data: u64,
}

impl Epoll {
    fn mark(&mut self, fd: RawFd) {
        if !self.ready.contains(&fd) {
            self.ready.push_back(fd);
        }
    }

    fn forget(&mut self, fd: RawFd) -> bool {
        self.ready.retain(|&ready| ready != fd);
        self.interests.remove(&fd).is_some()
    }
}

impl World {
    /// `epoll_create`.
    pub(crate) fn make_epoll(&mut self) -> Result<RawFd> {
        self.open(Handle::Epoll(Epoll::default()))
    }

    /// Something happened at `fd`: whoever waits for that kind of activity has it on its list.
    pub(crate) fn wake(&mut self, fd: RawFd, activity: i16) {
        for handle in self.handles.values_mut() {
            if let Handle::Epoll(epoll) = handle
                && let Some(interest) = epoll.interests.get(&fd)
                && interest.events & !PRIVATE != 0
                && (interest.events | ALWAYS) & u32::from(activity as u16) != 0
            {
                epoll.mark(fd);
            }
        }
    }

    fn epoll(&mut self, fd: RawFd) -> Result<&mut Epoll> {
        match self.handle(fd)? {
            Handle::Epoll(epoll) => Ok(epoll),
            _ => Err(Errno::INVALID),
        }
    }

    /// `epoll_ctl`.
    pub(crate) fn epoll_ctl(&mut self, set: RawFd, op: i32, fd: RawFd, event: Option<(u32, u64)>) -> Result<()> {
        if set == fd {
            return Err(Errno::INVALID);
        }
        let mask = self.poll_mask(fd)?;
        let epoll = self.epoll(set)?;
        let known = epoll.interests.contains_key(&fd);
        match (op, known) {
            (libc::EPOLL_CTL_DEL, true) => {
                epoll.forget(fd);
                return Ok(());
            }
            (libc::EPOLL_CTL_ADD, false) | (libc::EPOLL_CTL_MOD, true) => {}
            (libc::EPOLL_CTL_ADD, true) => return Err(Errno(libc::EEXIST)),
            (libc::EPOLL_CTL_MOD | libc::EPOLL_CTL_DEL, false) => return Err(Errno(libc::ENOENT)),
            _ => return Err(Errno::INVALID),
        }
        let (events, data) = event.ok_or(Errno::FAULT)?;
        epoll.interests.insert(fd, Interest { events: events | ALWAYS, data });
        if u32::from(mask as u16) & (events | ALWAYS) != 0 {
            epoll.mark(fd);
        }
        Ok(())
    }

    /// `epoll_wait`, without waiting: what is ready, at most `max` of it.
    pub(crate) fn epoll_ready(&mut self, set: RawFd, max: usize) -> Result<Vec<(u32, u64)>> {
        let candidates = core::mem::take(&mut self.epoll(set)?.ready);
        let (mut out, mut again) = (Vec::new(), VecDeque::new());
        for fd in candidates {
            if out.len() == max {
                again.push_back(fd);
                continue;
            }
            let mask = self.poll_mask(fd).unwrap_or(0);
            let Some(interest) = self.epoll(set)?.interests.get_mut(&fd) else { continue };
            let events = u32::from(mask as u16) & interest.events & !PRIVATE;
            if events == 0 {
                continue;
            }
            out.push((events, interest.data));
            if interest.events & libc::EPOLLONESHOT as u32 != 0 {
                interest.events &= PRIVATE;
            } else if interest.events & libc::EPOLLET as u32 == 0 {
                again.push_back(fd);
            }
        }
        self.epoll(set)?.ready = again;
        Ok(out)
    }

    /// A descriptor is closed.
    pub(crate) fn forget_in_sets(&mut self, fd: RawFd) {
        for handle in self.handles.values_mut() {
            if let Handle::Epoll(epoll) = handle {
                epoll.forget(fd);
            }
        }
    }
}
