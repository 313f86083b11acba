//! Ways for a path to die.

use anyhow::{Result, ensure};

use crate::{Family, Lab, Layout};

/// A way for a path to die.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Breakage {
    /// The subject's device is set down.
    DeviceDown,
    /// The link behind the router is set down: nothing tells the subject.
    LinkDown,
    /// The firewall drops everything on it, silently.
    Firewall,
    /// The router throws everything away, silently.
    Blackhole,
}

impl Breakage {
    /// Breaks one of the lab's paths for good.
    ///
    /// # Errors
    /// When the lab's layout has no such thing, or a command fails.
    pub fn strike(self, lab: &Lab, path: u8) -> Result<()> {
        let wires = &lab.wires;
        let routed = lab.plan.layout == Layout::Routed;
        ensure!(routed || !matches!(self, Self::LinkDown | Self::Blackhole), "{self:?} needs a router");
        match self {
            Self::DeviceDown => drop(wires.ip(&format!("link set ab{path} down"))?),
            Self::LinkDown => drop(wires.ip(&format!("link set va{path} down"))?),
            Self::Firewall => {
                let nft = |words: String| wires.command("nft", &words);
                nft("add table inet broken".to_owned())?;
                for (hook, device) in [("prerouting", "iifname"), ("postrouting", "oifname")] {
                    nft(format!("add chain inet broken {hook} {{ type filter hook {hook} priority 0 ; }}"))?;
                    nft(format!("add rule inet broken {hook} {device} ab{path} drop"))?;
                }
            }
            Self::Blackhole => {
                for table in [100 + 2 * path, 101 + 2 * path] {
                    match lab.plan.family {
                        Family::V4 => wires.ip(&format!("route replace blackhole default table {table}"))?,
                        // Another IPv6 route stays beside the first one, so it has to be a better one.
                        Family::V6 => wires.ip(&format!("-6 route add blackhole default metric 1 table {table}"))?,
                    };
                }
            }
        }
        Ok(())
    }
}
