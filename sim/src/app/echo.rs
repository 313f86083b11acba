use core::net::SocketAddr;
use std::collections::BTreeMap;

use anabranch_core::shard::{Read, Shutdown};
use anabranch_core::{ConnId, Event, SocketOptions, WorkerId};

use crate::{Application, HostCtx};

/// A server that sends back what it gets (RFC 862), as fast as the peer takes it.
#[derive(Debug)]
pub struct Echo {
    local: SocketAddr,
    options: SocketOptions,
    /// Open connections and whether the end of their stream was seen.
    ended: BTreeMap<(WorkerId, ConnId), bool>,
    served: usize,
}

impl Echo {
    /// A server on `local`.
    #[must_use]
    pub fn listen(local: SocketAddr) -> Self {
        Self { local, options: SocketOptions::default(), ended: BTreeMap::new(), served: 0 }
    }

    /// Sets the listener's options.
    #[must_use]
    pub fn options(mut self, options: SocketOptions) -> Self {
        self.options = options;
        self
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn served(&self) -> usize {
        self.served
    }

    /// Connections that are still there.
    #[must_use]
    pub fn open(&self) -> usize {
        self.ended.len()
    }

    fn pump(&mut self, ctx: &mut HostCtx<'_>, conn: ConnId) {
        let now = ctx.now();
        let Some(ended) = self.ended.get_mut(&(ctx.worker(), conn)) else { return };
        if *ended {
            return;
        }
        loop {
            let room = ctx.shard().write_room(conn);
            if room == 0 {
                return;
            }
            match ctx.shard().read(conn, room) {
                Read::Data(data) => {
                    let len = data.len();
                    // An error here is followed by `Event::Closed`.
                    let _ = ctx.shard().write(now, conn, data);
                    ctx.shard().consumed(now, conn, len);
                }
                Read::Eof => {
                    *ended = true;
                    let _ = ctx.shard().shutdown(now, conn, Shutdown::Write);
                    return;
                }
                Read::Empty | Read::Failed(_) => return,
            }
        }
    }
}

impl Application for Echo {
    fn on_start(&mut self, ctx: &mut HostCtx<'_>) {
        for worker in 0..ctx.workers() {
            if let Err(error) = ctx.on_worker(worker).listen(self.local, 1024, self.options.clone()) {
                panic!("echo cannot listen on {}: {error}", self.local);
            }
        }
    }

    fn on_event(&mut self, ctx: &mut HostCtx<'_>, event: Event) {
        match event {
            Event::Acceptable(listener) => {
                while let Some((conn, _)) = ctx.accept(listener) {
                    self.served += 1;
                    self.ended.insert((ctx.worker(), conn), false);
                    self.pump(ctx, conn);
                }
            }
            Event::Readable(conn) | Event::Writable(conn) => self.pump(ctx, conn),
            Event::Closed(conn, _) => {
                self.ended.remove(&(ctx.worker(), conn));
                ctx.release(conn);
            }
            _ => {}
        }
    }
}
