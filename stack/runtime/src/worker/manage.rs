//! The worker's side of addresses and of programs that manage paths.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};

use anabranch_core::pm::{Command, Report};
use anabranch_core::{Endpoint, EndpointFlags, Error, Limits, NewEndpoint};

use super::Worker;

/// Somebody who wants to hear of connections and their paths.
pub(crate) struct Watcher {
    pub(crate) reports: SyncSender<Report>,
    /// Reports for which there was no room.
    pub(crate) lost: Arc<AtomicU64>,
}

impl Worker {
    /// From now on somebody else hears of connections and their paths.
    pub(crate) fn watch(&mut self, watcher: Watcher) {
        self.watchers.push(watcher);
        self.shard.want_reports(true);
    }

    /// Hands reports on, without waiting for anybody.
    pub(super) fn tell_watchers(&mut self) {
        let dropped = self.shard.take_dropped_reports();
        if dropped > 0 {
            for watcher in &self.watchers {
                watcher.lost.fetch_add(dropped, Ordering::Relaxed);
            }
        }
        let first = self.handle.id == 0;
        while let Some(report) = self.shard.poll_report() {
            // Every worker has a part of each listener: one of them speaks for it.
            if report.token == 0 && !first {
                continue;
            }
            self.watchers.retain(|watcher| match watcher.reports.try_send(report) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => {
                    watcher.lost.fetch_add(1, Ordering::Relaxed);
                    true
                }
                Err(TrySendError::Disconnected(_)) => false,
            });
        }
        if self.watchers.is_empty() {
            self.shard.want_reports(false);
        }
    }

    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.shard.endpoints()
    }

    pub(crate) fn add_endpoint(&mut self, new: &NewEndpoint) -> Result<u8, Error> {
        self.shard.add_endpoint(self.clock.now(), new)
    }

    pub(crate) fn remove_endpoint(&mut self, id: u8) -> Result<(), Error> {
        self.shard.remove_endpoint(self.clock.now(), id)
    }

    pub(crate) fn change_endpoint(
        &mut self,
        id: u8,
        flags: EndpointFlags,
        port: Option<NonZeroU16>,
    ) -> Result<(), Error> {
        self.shard.change_endpoint(self.clock.now(), id, flags, port)
    }

    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.shard.set_limits(self.clock.now(), limits);
    }

    pub(crate) fn command(&mut self, token: u32, command: Command) -> Result<(), Error> {
        let conn = self.shard.by_token(token).ok_or(Error::NotConnected)?;
        self.shard.command(self.clock.now(), conn, command)
    }
}
