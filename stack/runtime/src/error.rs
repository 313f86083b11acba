use std::io;
use std::path::PathBuf;

/// Why a stack could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path's device could not be opened. The source says why and what helps.
    #[error("path {name}: {source}")]
    Device {
        /// The path's interface.
        name: String,
        /// What the driver says.
        source: io::Error,
    },
    /// Two paths want the same thing, or a path's settings do not fit its device.
    #[error("path {name}: {problem}")]
    Path {
        /// The path's interface.
        name: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A scheduler, congestion control or path manager that nobody knows.
    #[error("unknown {kind} '{name}'; known are {known}")]
    UnknownName {
        /// What was looked up.
        kind: &'static str,
        /// The name that was given.
        name: String,
        /// The known names, separated by commas.
        known: &'static str,
    },
    /// A setting is outside its range.
    #[error("{setting} = {value}: {problem}")]
    Setting {
        /// The builder's method.
        setting: &'static str,
        /// What was given.
        value: String,
        /// The allowed range.
        problem: String,
    },
    /// An option of sockets has a value that it cannot have.
    #[error("socket options: {0}")]
    SocketOptions(anabranch_core::Error),
    /// The capture file could not be created.
    #[error("capture file {}: {source}", path.display())]
    Capture {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system refused what every worker needs: a thread, an epoll set, an event descriptor, random bytes.
    #[error("{what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// Why it was refused.
        source: io::Error,
    },
}

/// The error that a kernel socket would give, with ours as its source.
pub(crate) fn to_io(error: anabranch_core::Error) -> io::Error {
    io::Error::new(kind_of(error), error)
}

fn kind_of(error: anabranch_core::Error) -> io::ErrorKind {
    use anabranch_core::{Error as E, IcmpCause};
    match error {
        E::Refused => io::ErrorKind::ConnectionRefused,
        E::Reset => io::ErrorKind::ConnectionReset,
        E::TimedOut => io::ErrorKind::TimedOut,
        E::Icmp(IcmpCause::NetworkUnreachable) => io::ErrorKind::NetworkUnreachable,
        E::Icmp(IcmpCause::HostUnreachable | IcmpCause::HostUnknown) => io::ErrorKind::HostUnreachable,
        E::Icmp(IcmpCause::Prohibited) => io::ErrorKind::PermissionDenied,
        E::Aborted => io::ErrorKind::ConnectionAborted,
        E::ShutDown | E::BrokenPipe => io::ErrorKind::BrokenPipe,
        E::NotConnected => io::ErrorKind::NotConnected,
        E::InProgress => io::ErrorKind::WouldBlock,
        E::AddrInUse(_) => io::ErrorKind::AddrInUse,
        E::AddrNotAvailable(_) | E::NoFreePort(_) => io::ErrorKind::AddrNotAvailable,
        E::Unreachable(_) | E::NotUnicast(_) => io::ErrorKind::NetworkUnreachable,
        E::TooManyConnections => io::ErrorKind::QuotaExceeded,
        E::OutOfMemory => io::ErrorKind::OutOfMemory,
        E::UnknownName { .. } | E::BadOption { .. } => io::ErrorKind::InvalidInput,
        E::BadPath => io::ErrorKind::NotFound,
        _ => io::ErrorKind::Other,
    }
}

/// The stack was shut down.
pub(crate) fn stack_is_gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the stack was shut down")
}
