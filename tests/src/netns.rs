//! Network namespaces without names.
//!
//! A namespace is held by an open file only, so it cannot clash with another test's and is gone with
//! the process, however that ends.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::command::run;

/// A network namespace. Clones are the same one; it ends with the last clone, thread and socket in it.
#[derive(Clone, Debug)]
pub struct Netns {
    label: Arc<str>,
    file: Arc<File>,
}

impl Netns {
    /// A fresh namespace with its loopback up. `label` is for messages.
    ///
    /// # Errors
    /// Without the permission to.
    pub fn new(label: &str) -> Result<Self> {
        let file = thread::scope(|scope| {
            scope
                .spawn(|| -> Result<File> {
                    // SAFETY: NEWNET leaves the file table and everything else of the process shared,
                    // and this thread ends here, so nobody else notices the change.
                    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.context("unshare(CLONE_NEWNET)")?;
                    File::open("/proc/thread-self/ns/net").context("opening /proc/thread-self/ns/net")
                })
                .join()
                .expect("the thread that makes a namespace")
        })?;
        let netns = Self { label: label.into(), file: Arc::new(file) };
        netns.prepare().with_context(|| format!("setting up namespace {label}"))?;
        Ok(netns)
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn current() -> Result<Self> {
        let file = File::open("/proc/thread-self/ns/net").context("opening /proc/thread-self/ns/net")?;
        Ok(Self { label: "current".into(), file: Arc::new(file) })
    }

    /// The label it was made with.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// A path that `ip link set … netns PATH` understands.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Runs `work` on a thread in the namespace. Sockets, threads and processes made by it stay there.
    ///
    /// # Panics
    /// If `work` does, or the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("entering a namespace of our own");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `ip` with these words.
    ///
    /// # Errors
    /// With what `ip` said.
    pub fn ip(&self, words: &str) -> Result<String> {
        self.command("ip", words)
    }

    /// Runs a program with these words (split at blanks) and gives its standard output.
    ///
    /// # Errors
    /// With what it said.
    pub fn command(&self, program: &str, words: &str) -> Result<String> {
        let words: Vec<&str> = words.split_whitespace().collect();
        self.run(|| run(program, &words)).with_context(|| format!("in namespace {}", self.label))
    }

    /// Sets a variable of `sysctl`, dots for slashes.
    ///
    /// # Errors
    /// When the kernel has no such variable or refuses the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.run(|| fs::write(&path, value)).with_context(|| format!("writing {value} to {path}"))
    }

    /// The text of a file such as `/proc/thread-self/net/dev`, read inside.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: &str) -> Result<String> {
        self.run(|| fs::read_to_string(path)).with_context(|| format!("reading {path}"))
    }

    fn prepare(&self) -> Result<()> {
        for name in ["all", "default"] {
            self.sysctl(&format!("net.ipv4.conf.{name}.rp_filter"), "0")?;
            self.sysctl(&format!("net.ipv6.conf.{name}.disable_ipv6"), "0")?;
            self.sysctl(&format!("net.ipv6.conf.{name}.accept_dad"), "0")?;
        }
        self.sysctl("net.ipv4.tcp_no_metrics_save", "1")?;
        self.ip("link set lo up")?;
        Ok(())
    }
}
