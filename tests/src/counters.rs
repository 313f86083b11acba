//! The kernel's counters, as `nstat -az` names them.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;

use crate::Netns;

/// Counters of one namespace at one time, or the growth between two times.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// What a namespace has counted so far: `Tcp…`, `TcpExt…`, `MPTcpExt…`, `Ip…`.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn read(netns: &Netns) -> Result<Self> {
        let mut counters = BTreeMap::new();
        for file in ["netstat", "snmp"] {
            parse(&netns.read(&format!("/proc/thread-self/net/{file}"))?, &mut counters);
        }
        Ok(Self(counters))
    }

    /// The growth since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(self.0.iter().map(|(name, value)| (name.clone(), value.saturating_sub(earlier.get(name)))).collect())
    }

    /// One counter; 0 if the kernel does not have it.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Those of `names` that are not 0, with their values: empty when all is well.
    #[must_use]
    pub fn nonzero<'a>(&self, names: &[&'a str]) -> Vec<(&'a str, u64)> {
        names.iter().map(|&name| (name, self.get(name))).filter(|&(_, value)| value != 0).collect()
    }
}

/// Only what is not 0 and has to do with TCP.
impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().filter(|(name, value)| **value != 0 && name.contains("Tcp"));
        f.debug_map().entries(shown).finish()
    }
}

/// Pairs of lines, `Group: name name…` and `Group: value value…`. Values that are not counts are left out.
fn parse(text: &str, counters: &mut BTreeMap<String, u64>) {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let Some((group, names)) = names.split_once(':') else { continue };
        let Some((_, values)) = values.split_once(':') else { continue };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            if let Ok(value) = value.parse() {
                counters.insert(format!("{group}{name}"), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_nstat() {
        let mut counters = BTreeMap::new();
        parse("Tcp: MaxConn OutRsts\nTcp: -1 3\nMPTcpExt: MPJoinSynRx\nMPTcpExt: 2\n", &mut counters);
        let counters = Counters(counters);
        assert_eq!(counters.get("TcpOutRsts"), 3);
        assert_eq!(counters.get("MPTcpExtMPJoinSynRx"), 2);
        assert_eq!(counters.get("TcpMaxConn"), 0);
    }
}
