use core::net::SocketAddr;
use core::time::Duration;

use anabranch_core::shard::{Read, Shutdown};
use anabranch_core::{ConnId, Error, Event, SocketOptions};
use anabranch_frame::{Instant, Payload};

use crate::{Application, HostCtx};

/// Something a [`Chatter`] does at a certain time.
#[derive(Clone, Debug)]
pub enum Action {
    /// Writes bytes, all of them, whatever room there is.
    Write(Vec<u8>),
    /// Shuts down.
    Shutdown(Shutdown),
    /// Starts or stops reading. It reads from the beginning unless told otherwise.
    Read(bool),
    /// Ends the connection at once.
    Abort,
    /// Lets go of the connection.
    Release,
    /// Asks the peer to use, or not to use, a subflow as a backup.
    SetBackup {
        /// Which subflow.
        subflow: u8,
        /// As a backup or not.
        backup: bool,
    },
}

/// Something that happened to a [`Chatter`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// The connection was established.
    Connected,
    /// Bytes came.
    Data(Vec<u8>),
    /// The peer's stream ended.
    Eof,
    /// The connection is over.
    Closed(Option<Error>),
    /// A command failed.
    Refused(Error),
    /// A subflow came up.
    SubflowUp(u8),
    /// A subflow went away.
    SubflowDown(u8),
}

/// One connection that follows a script: what to do when, counted from the time at which the
/// connection was opened or accepted; writes and shutdowns wait until it is established. It writes
/// down everything that happens.
#[derive(Debug)]
pub struct Chatter {
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    options: SocketOptions,
    script: Vec<(Duration, Action)>,
    conn: Option<ConnId>,
    reading: bool,
    established: bool,
    /// What has to wait until the connection is established.
    early: Vec<Action>,
    log: Vec<(Instant, Note)>,
}

impl Chatter {
    /// A client of `remote`.
    #[must_use]
    pub fn connect(remote: SocketAddr) -> Self {
        Self::new(None, Some(remote))
    }

    /// A client of `remote` from a given local address and port, for a simultaneous open.
    #[must_use]
    pub fn connect_from(local: SocketAddr, remote: SocketAddr) -> Self {
        Self::new(Some(local), Some(remote))
    }

    /// A server on `local` for the first connection that comes; later ones are left to wait.
    #[must_use]
    pub fn listen(local: SocketAddr) -> Self {
        Self::new(Some(local), None)
    }

    fn new(local: Option<SocketAddr>, remote: Option<SocketAddr>) -> Self {
        Self {
            local,
            remote,
            options: SocketOptions::default(),
            script: Vec::new(),
            conn: None,
            reading: true,
            established: false,
            early: Vec::new(),
            log: Vec::new(),
        }
    }

    /// Sets the socket's options.
    #[must_use]
    pub fn options(mut self, options: SocketOptions) -> Self {
        self.options = options;
        self
    }

    /// Speaks plain TCP.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.options.mptcp = false;
        self
    }

    /// Adds an action.
    #[must_use]
    pub fn at(mut self, time: Duration, action: Action) -> Self {
        self.script.push((time, action));
        self
    }

    /// Everything that happened.
    #[must_use]
    pub fn log(&self) -> &[(Instant, Note)] {
        &self.log
    }

    /// Its connection, once there is one.
    #[must_use]
    pub fn conn(&self) -> Option<ConnId> {
        self.conn
    }

    /// When something happened first, if it did.
    #[must_use]
    pub fn when(&self, note: &Note) -> Option<Instant> {
        self.log.iter().find(|(_, logged)| logged == note).map(|&(at, _)| at)
    }

    /// Whether something happened.
    #[must_use]
    pub fn saw(&self, note: &Note) -> bool {
        self.when(note).is_some()
    }

    /// All bytes that came.
    #[must_use]
    pub fn heard(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (_, note) in &self.log {
            if let Note::Data(data) = note {
                bytes.extend_from_slice(data);
            }
        }
        bytes
    }

    /// How the connection ended: `None` while it has not.
    #[must_use]
    pub fn closed(&self) -> Option<Option<Error>> {
        self.log.iter().find_map(|(_, note)| if let Note::Closed(error) = note { Some(*error) } else { None })
    }

    fn note(&mut self, ctx: &HostCtx<'_>, note: Note) {
        self.log.push((ctx.now(), note));
    }

    fn open(&mut self, ctx: &mut HostCtx<'_>, conn: ConnId) {
        self.conn = Some(conn);
        for (index, (time, _)) in self.script.iter().enumerate() {
            ctx.wake_after(*time, index as u64);
        }
    }

    fn read(&mut self, ctx: &mut HostCtx<'_>) {
        let (Some(conn), now) = (self.conn, ctx.now()) else { return };
        while self.reading {
            match ctx.shard().read(conn, usize::MAX) {
                Read::Data(data) => {
                    ctx.shard().consumed(now, conn, data.len());
                    self.note(ctx, Note::Data(data.to_vec()));
                }
                Read::Eof => {
                    if !self.saw(&Note::Eof) {
                        self.note(ctx, Note::Eof);
                    }
                    return;
                }
                Read::Empty | Read::Failed(_) => return,
            }
        }
    }

    fn established(&mut self, ctx: &mut HostCtx<'_>, conn: ConnId) {
        self.established = true;
        self.note(ctx, Note::Connected);
        for action in core::mem::take(&mut self.early) {
            self.act(ctx, conn, action);
        }
    }

    fn act(&mut self, ctx: &mut HostCtx<'_>, conn: ConnId, action: Action) {
        if !self.established && matches!(action, Action::Write(_) | Action::Shutdown(_)) {
            self.early.push(action);
        } else if let Err(error) = self.perform(ctx, conn, action) {
            self.note(ctx, Note::Refused(error));
        }
    }

    fn perform(&mut self, ctx: &mut HostCtx<'_>, conn: ConnId, action: Action) -> Result<(), Error> {
        let now = ctx.now();
        match action {
            Action::Write(bytes) => ctx.shard().write(now, conn, Payload::from(bytes)),
            Action::Shutdown(how) => ctx.shard().shutdown(now, conn, how),
            Action::SetBackup { subflow, backup } => ctx.shard().set_backup(now, conn, subflow, backup),
            Action::Abort => {
                ctx.shard().abort(now, conn);
                Ok(())
            }
            Action::Release => {
                ctx.release(conn);
                Ok(())
            }
            Action::Read(reading) => {
                self.reading = reading;
                self.read(ctx);
                Ok(())
            }
        }
    }
}

impl Application for Chatter {
    fn on_start(&mut self, ctx: &mut HostCtx<'_>) {
        match (self.local, self.remote) {
            (local, Some(remote)) => match ctx.connect(local, remote, &self.options) {
                Ok(conn) => self.open(ctx, conn),
                Err(error) => self.note(ctx, Note::Refused(error)),
            },
            (Some(local), None) => {
                for worker in 0..ctx.workers() {
                    if let Err(error) = ctx.on_worker(worker).listen(local, 16, self.options.clone()) {
                        self.note(ctx, Note::Refused(error));
                    }
                }
            }
            (None, None) => unreachable!("a chatter either connects or listens"),
        }
    }

    fn on_event(&mut self, ctx: &mut HostCtx<'_>, event: Event) {
        match event {
            Event::Acceptable(listener) if self.conn.is_none() => {
                if let Some((conn, _)) = ctx.accept(listener) {
                    self.open(ctx, conn);
                    self.established(ctx, conn);
                    self.read(ctx);
                }
            }
            Event::Connected(conn) => self.established(ctx, conn),
            Event::Readable(_) => self.read(ctx),
            Event::SubflowUp(_, subflow) => self.note(ctx, Note::SubflowUp(subflow)),
            Event::SubflowDown(_, subflow) => self.note(ctx, Note::SubflowDown(subflow)),
            Event::Closed(_, error) => {
                self.read(ctx);
                self.note(ctx, Note::Closed(error));
            }
            _ => {}
        }
    }

    fn on_wake(&mut self, ctx: &mut HostCtx<'_>, token: u64) {
        let (Some(conn), Some((_, action))) = (self.conn, self.script.get(token as usize).cloned()) else { return };
        self.act(ctx, conn, action);
    }
}
