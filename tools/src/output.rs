//! What a command says: lines for people, or JSON lines for programs.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

/// Nobody reads the standard output any more.
static DEAF: AtomicBool = AtomicBool::new(false);

/// Where a command says what it has to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Output {
    json: bool,
    /// Standard output carries data: say everything on standard error.
    to_stderr: bool,
}

#[derive(Serialize)]
struct ErrorEvent {
    event: &'static str,
    message: String,
}

impl Output {
    /// On standard output, in JSON lines if `json`.
    pub(crate) fn new(json: bool) -> Self {
        Self { json, to_stderr: false }
    }

    /// On standard error, in JSON lines if `json`.
    pub(crate) fn beside_data(json: bool) -> Self {
        Self { json, to_stderr: true }
    }

    /// Whether JSON lines are wanted.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// A line for people; programs that read JSON do not see it.
    pub(crate) fn line(self, text: impl fmt::Display) {
        if !self.json {
            self.write(format_args!("{text}\n"));
        }
    }

    /// An event for programs; people do not see it.
    pub(crate) fn event(self, event: &impl Serialize) {
        if !self.json {
            return;
        }
        match serde_json::to_string(event) {
            Ok(text) => self.write(format_args!("{text}\n")),
            Err(error) => tracing::error!("an event cannot be written as JSON: {error}"),
        }
    }

    /// Why the command failed: always on standard error for people, and as an event for programs.
    pub(crate) fn error(self, error: &anyhow::Error) {
        let message = format!("{error:#}");
        if self.json {
            self.event(&ErrorEvent { event: "error", message: message.clone() });
        }
        if !(self.json && self.to_stderr) {
            // There is no one left to tell if this fails.
            let _ = writeln!(io::stderr(), "anabranch: {message}");
        }
    }

    /// A reader that goes away ends the talking, not the work.
    fn write(self, text: fmt::Arguments<'_>) {
        let result = match self.to_stderr {
            true => io::stderr().lock().write_fmt(text),
            false if DEAF.load(Ordering::Relaxed) => Ok(()),
            false => write_now(text),
        };
        if let Err(error) = result
            && !self.to_stderr
            && !DEAF.swap(true, Ordering::Relaxed)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            tracing::warn!("standard output: {error}; the rest is not printed");
        }
    }
}

fn write_now(text: fmt::Arguments<'_>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_fmt(text)?;
    stdout.flush()
}
