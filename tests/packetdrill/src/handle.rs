//! What a descriptor stands for.

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::epoll::Epoll;
use crate::errno::{Errno, Result};
use crate::pipe::PipeEnd;
use crate::socket::Socket;

/// Kinds of activity that somebody may wait for: bits of `poll`.
pub(crate) const READ: i16 = libc::POLLIN | libc::POLLRDNORM;
pub(crate) const WRITE: i16 = libc::POLLOUT | libc::POLLWRNORM;
pub(crate) const HANG_UP: i16 = libc::POLLHUP | libc::POLLRDHUP | libc::POLLERR;

/// Behind a descriptor.
#[derive(Debug)]
pub(crate) enum Handle {
    Socket(Box<Socket>),
    Epoll(Epoll),
    Pipe(PipeEnd),
}

/// Which descriptors are ours. Apart from everything else, since any code of this process may close a file at any time.
static OURS: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

fn ours() -> MutexGuard<'static, BTreeSet<RawFd>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a descriptor is one of ours.
pub(crate) fn is_ours(fd: RawFd) -> bool {
    ours().contains(&fd)
}

/// A descriptor of the kernel's that nobody else has: the tool calls the C library with it here and there.
pub(crate) fn descriptor() -> Result<RawFd> {
    // SAFETY: takes numbers only.
    match unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) } {
        -1 => Err(Errno::last()),
        fd => {
            ours().insert(fd);
            Ok(fd)
        }
    }
}

/// Gives a descriptor back, ours or another.
pub(crate) fn close_descriptor(fd: RawFd) -> Result<()> {
    ours().remove(&fd);
    // SAFETY: takes a number only; by system call, since this library stands in for the C library's `close`.
    match unsafe { libc::syscall(libc::SYS_close, fd) } {
        0 => Ok(()),
        _ => Err(Errno::last()),
    }
}
