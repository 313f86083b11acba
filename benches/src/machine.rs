//! Where it was measured.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cpu;

/// The machine, as its kernel describes it.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Model of the processors.
    pub model: String,
    /// How many of them.
    pub cores: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// Whether it is a virtual one.
    pub is_virtual: bool,
}

impl Machine {
    /// The one that this runs on.
    ///
    /// # Errors
    /// What `/proc` says cannot be read.
    pub fn this() -> Result<Self> {
        let cpus = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
        let value = |key: &str| {
            let line = cpus.lines().find(|line| line.starts_with(key));
            line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
        };
        let flags = value("flags").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's release")?;
        Ok(Self {
            model: value("model name").unwrap_or_else(|| "unknown processor".into()),
            cores: cpu::count(),
            kernel: kernel.trim().to_owned(),
            is_virtual: flags.split_whitespace().any(|flag| flag == "hypervisor"),
        })
    }
}
