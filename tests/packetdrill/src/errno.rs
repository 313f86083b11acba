//! Failures as the C library tells them.

use std::io;

use anabranch_core::Error;
use anabranch_core::error::IcmpCause;

/// A value of `errno`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Errno(pub(crate) i32);

impl Errno {
    pub(crate) const AGAIN: Self = Self(libc::EAGAIN);
    pub(crate) const BAD_FD: Self = Self(libc::EBADF);
    pub(crate) const FAULT: Self = Self(libc::EFAULT);
    pub(crate) const INVALID: Self = Self(libc::EINVAL);
    pub(crate) const NOT_CONNECTED: Self = Self(libc::ENOTCONN);
    pub(crate) const PIPE: Self = Self(libc::EPIPE);
    pub(crate) const NO_OPTION: Self = Self(libc::ENOPROTOOPT);

    /// That of the C call that just failed.
    pub(crate) fn last() -> Self {
        Self(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }

    /// Makes this the calling thread's `errno`.
    pub(crate) fn set(self) {
        // SAFETY: the C library's own place for the calling thread's errno, valid as long as the thread.
        unsafe { *libc::__errno_location() = self.0 };
    }
}

impl From<Error> for Errno {
    fn from(error: Error) -> Self {
        Self(match error {
            Error::Refused => libc::ECONNREFUSED,
            Error::Reset => libc::ECONNRESET,
            Error::BrokenPipe => libc::EPIPE,
            Error::TimedOut => libc::ETIMEDOUT,
            Error::Icmp(cause) => match cause {
                IcmpCause::NetworkUnreachable => libc::ENETUNREACH,
                IcmpCause::HostUnreachable => libc::EHOSTUNREACH,
                IcmpCause::ProtocolUnreachable => libc::ENOPROTOOPT,
                IcmpCause::PortUnreachable => libc::ECONNREFUSED,
                IcmpCause::SourceRouteFailed => libc::EOPNOTSUPP,
                IcmpCause::HostUnknown => libc::EHOSTDOWN,
                IcmpCause::HostIsolated => libc::ENONET,
                IcmpCause::Prohibited => libc::EACCES,
                _ => libc::EPROTO,
            },
            Error::Aborted => libc::ECONNABORTED,
            Error::ShutDown => libc::EPIPE,
            Error::NotConnected => libc::ENOTCONN,
            Error::InProgress => libc::EINPROGRESS,
            Error::AddrInUse(_) => libc::EADDRINUSE,
            Error::AddrNotAvailable(_) | Error::NoFreePort(_) => libc::EADDRNOTAVAIL,
            Error::Unreachable(_) | Error::NotUnicast(_) => libc::ENETUNREACH,
            Error::TooManyConnections | Error::OutOfMemory => libc::ENOBUFS,
            Error::UnknownName { .. } => libc::ENOENT,
            _ => libc::EINVAL,
        })
    }
}

/// What a call gives.
pub(crate) type Result<T> = core::result::Result<T, Errno>;
