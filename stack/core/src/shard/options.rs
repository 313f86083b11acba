//! Options of connections and listeners that exist.

use alloc::borrow::Cow;

use anabranch_frame::Instant;

use crate::Error;
use crate::options::{SockOpt, SocketOptions};

use super::place::Place;
use super::{ConnId, ListenerId, Shard};

impl Shard {
    /// Changes an option of a connection, whatever state it is in.
    ///
    /// # Errors
    /// [`Error::NotConnected`], and those of [`SocketOptions::set`]; [`Error::BadOption`] for what was settled when the
    /// connection was opened.
    pub fn set_option(&mut self, now: Instant, conn: ConnId, option: SockOpt) -> Result<(), Error> {
        let mut options = self.options(conn).ok_or(Error::NotConnected)?;
        options.set(option.clone())?;
        let shared = self.shared_options.get(Cow::Owned(options));
        self.with(now, conn, |conn, cx| conn.set_option(cx, option, shared)).ok_or(Error::NotConnected)?
    }

    /// All options of a connection, as they are now.
    #[must_use]
    pub fn options(&self, conn: ConnId) -> Option<SocketOptions> {
        match self.place(conn)? {
            Place::Awake { conn, .. } => Some(conn.options()),
            Place::Resting(resting) => resting.as_ref().map(|resting| resting.options()),
        }
    }

    /// Changes an option of the connections that a listener accepts from now on.
    ///
    /// # Errors
    /// [`Error::NotConnected`] if there is no such listener, and those of [`SocketOptions::set`].
    pub fn set_listener_option(&mut self, listener: ListenerId, option: SockOpt) -> Result<(), Error> {
        let listener = self.listeners.get_mut(listener).ok_or(Error::NotConnected)?;
        let mut options = SocketOptions::clone(&listener.options);
        options.set(option)?;
        listener.options = self.shared_options.get(Cow::Owned(options));
        Ok(())
    }

    /// All options of a listener.
    #[must_use]
    pub fn listener_options(&self, listener: ListenerId) -> Option<&SocketOptions> {
        self.listeners.get(listener).map(|listener| &*listener.options)
    }
}
