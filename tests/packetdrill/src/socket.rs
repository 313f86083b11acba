//! A socket: what of it is not the stack's business.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use anabranch_core::{ConnId, Event, ListenerId, SocketOptions, SubflowInfo};
use anabranch_frame::Payload;

use crate::address::Family;
use crate::errno::Errno;
use crate::errqueue::ErrorQueue;
use crate::sendbuf::SendBuffer;

/// Where a socket is in its life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Neither connected nor listening.
    Idle,
    /// A wildcard of the IPv6 family listens in both.
    Listening(Vec<ListenerId>),
    Connecting(ConnId),
    Connected(ConnId),
    /// The connection is over; there may be bytes left to read.
    Ended(ConnId),
}

/// How far a connection is that its user may write to before it exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Opening {
    /// The SYN goes out with the first data.
    Deferred,
    /// It went out.
    Underway,
}

/// A stream socket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) family: Family,
    pub(crate) nonblocking: bool,
    pub(crate) bound: Option<SocketAddr>,
    pub(crate) stage: Stage,
    /// What went wrong and was not told yet (`SO_ERROR`).
    pub(crate) error: Option<Errno>,
    /// Connected in name only: the SYN waits for the first data, or for its answer (TCP Fast Open).
    pub(crate) opening: Option<Opening>,
    /// `connect` has reported how it ended.
    pub(crate) connect_told: bool,
    pub(crate) read_shut: bool,
    pub(crate) write_shut: bool,
    /// The peer's stream ended in good order.
    pub(crate) at_eof: bool,
    /// Taken out of the stack by `MSG_PEEK`, not read yet.
    pub(crate) peeked: VecDeque<Payload>,
    pub(crate) options: SocketOptions,
    /// The latest that is known of the first subflow, which is gone before the socket is.
    pub(crate) info: Option<SubflowInfo>,
    pub(crate) send_buffer: SendBuffer,
    pub(crate) errors: ErrorQueue,
    /// `TCP_INQ`.
    pub(crate) tells_unread: bool,
    /// `SO_RCVTIMEO` and `SO_SNDTIMEO`.
    pub(crate) receive_timeout: Option<Duration>,
    pub(crate) send_timeout: Option<Duration>,
    /// Options that mean nothing here, as they were set, by level and name.
    pub(crate) values: BTreeMap<(i32, i32), Vec<u8>>,
}

impl Socket {
    pub(crate) fn new(family: Family, options: SocketOptions, send_buffer: SendBuffer) -> Self {
        Self {
            family,
            nonblocking: false,
            bound: None,
            stage: Stage::Idle,
            error: None,
            opening: None,
            connect_told: false,
            read_shut: false,
            write_shut: false,
            at_eof: false,
            peeked: VecDeque::new(),
            options,
            info: None,
            send_buffer,
            errors: ErrorQueue::default(),
            tells_unread: false,
            receive_timeout: None,
            send_timeout: None,
            values: BTreeMap::new(),
        }
    }

    /// It opens a connection.
    pub(crate) fn begin(&mut self, conn: ConnId) {
        (self.stage, self.connect_told, self.opening) = (Stage::Connecting(conn), false, None);
        (self.read_shut, self.write_shut, self.at_eof) = (false, false, false);
        self.send_buffer = self.send_buffer.inherit();
        self.info = None;
    }

    /// A socket for a connection that this listener accepts, with its options.
    pub(crate) fn child(&self) -> Self {
        Self {
            bound: self.bound,
            errors: self.errors.inherit(),
            tells_unread: self.tells_unread,
            receive_timeout: self.receive_timeout,
            send_timeout: self.send_timeout,
            values: self.values.clone(),
            ..Self::new(self.family, self.options.clone(), self.send_buffer.inherit())
        }
    }

    /// The connection, if there is or was one.
    pub(crate) fn conn(&self) -> Option<ConnId> {
        match self.stage {
            Stage::Connecting(conn) | Stage::Connected(conn) | Stage::Ended(conn) => Some(conn),
            Stage::Idle | Stage::Listening(_) => None,
        }
    }

    pub(crate) fn peeked_len(&self) -> usize {
        self.peeked.iter().map(Payload::len).sum()
    }

    /// Takes what went wrong, which is told once.
    pub(crate) fn take_error(&mut self) -> Option<Errno> {
        self.error.take()
    }

    pub(crate) fn on_event(&mut self, event: Event) {
        match event {
            Event::Connected(conn) => self.stage = Stage::Connected(conn),
            Event::Closed(conn, error) => {
                self.opening = None;
                self.stage = Stage::Ended(conn);
                self.read_shut |= error.is_some();
                self.write_shut = true;
                self.error = error.map(|error| match Errno::from(error) {
                    // The peer had said that it was done: nobody hears what we still write.
                    Errno(libc::ECONNRESET) if self.at_eof => Errno::PIPE,
                    errno => errno,
                });
            }
            _ => {}
        }
    }
}
