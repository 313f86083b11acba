//! Differences that are known, with the reason for each.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::scripts::Case;

/// The list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    #[serde(default)]
    difference: Vec<Difference>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    /// Ends of scripts' paths.
    scripts: Vec<String>,
    /// Kinds of addresses; all if there are none.
    #[serde(default)]
    variants: Vec<String>,
    /// Why it differs.
    reason: String,
}

impl Known {
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        toml::from_str(&text).with_context(|| format!("reading {}", file.display()))
    }

    /// Why this one is known to fail.
    pub(crate) fn reason(&self, case: &Case) -> Option<&str> {
        let applies = |difference: &&Difference| {
            let variant = case.variant.name();
            (difference.variants.is_empty() || difference.variants.iter().any(|name| name == variant))
                && difference.scripts.iter().any(|end| case.script.ends_with(end))
        };
        self.difference.iter().find(applies).map(|difference| difference.reason.as_str())
    }
}
