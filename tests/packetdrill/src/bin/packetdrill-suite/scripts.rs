//! Which scripts are run, and how.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

/// Kinds of addresses that a script can be run with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Variant {
    /// IPv4 sockets.
    Ipv4,
    /// IPv6 sockets that speak IPv4.
    #[value(name = "ipv4-mapped-ipv6")]
    Ipv4MappedIpv6,
    /// IPv6 sockets.
    Ipv6,
}

impl Variant {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv4MappedIpv6 => "ipv4-mapped-ipv6",
            Self::Ipv6 => "ipv6",
        }
    }

    /// Options of the tool that say where everybody is.
    fn addresses(self) -> &'static [&'static str] {
        match self {
            Self::Ipv4 | Self::Ipv4MappedIpv6 => &[
                "--local_ip=192.168.0.1",
                "--gateway_ip=192.168.0.1",
                "--netmask_ip=255.255.0.0",
                "--remote_ip=192.0.2.1",
            ],
            Self::Ipv6 => &[
                "--mtu=1520",
                "--local_ip=fd3d:0a0b:17d6::1",
                "--gateway_ip=fd3d:0a0b:17d6:8888::1",
                "--remote_ip=fd3d:fa7b:d17d::1",
            ],
        }
    }

    /// Constants that scripts use.
    fn constants(self) -> Vec<String> {
        let constants: &[&str] = match self {
            Self::Ipv4 | Self::Ipv4MappedIpv6 => {
                &["-DTFO_COOKIE=3021b9d889017eeb", "-DTFO_COOKIE_ZERO=b7c12350a90dc8f5", "-DCODE=host_unreachable"]
            }
            Self::Ipv6 => {
                &["-DTFO_COOKIE=c1d1e9742a47a9bc", "-DTFO_COOKIE_ZERO=82af1a8f9a205c34", "-DCODE=address_unreachable"]
            }
        };
        let messages: &[&str] = match self {
            Self::Ipv4 => &["-DCMSG_LEVEL_IP=SOL_IP", "-DCMSG_TYPE_RECVERR=IP_RECVERR"],
            _ => &["-DCMSG_LEVEL_IP=SOL_IPV6", "-DCMSG_TYPE_RECVERR=IPV6_RECVERR"],
        };
        constants.iter().chain(messages).map(|&constant| constant.to_owned()).collect()
    }
}

/// A script and the addresses to run it with.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) script: PathBuf,
    /// The folder that it is summed up under.
    pub(crate) folder: String,
    pub(crate) variant: Variant,
    /// Options of the tool that the script itself begins with.
    own: Vec<String>,
}

impl Case {
    fn new(script: PathBuf, folder: String, variant: Variant) -> Result<Self> {
        let text = fs::read(&script).with_context(|| format!("{}", script.display()))?;
        let text = String::from_utf8_lossy(&text);
        let own = text.lines().filter(|line| line.starts_with("--")).map(|line| line.trim().to_owned()).collect();
        Ok(Self { script, folder, variant, own })
    }

    /// Whether the script says itself what this option is.
    pub(crate) fn sets(&self, name: &str) -> bool {
        self.own_value(name).is_some()
    }

    /// What the script says of this option, unless that is an address of another family than it is run with.
    fn own_value(&self, name: &str) -> Option<&str> {
        let own = self.own.iter().find_map(|option| option.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('='));
        own.filter(|value| !name.ends_with("_ip") || value.contains(':') == (self.variant == Variant::Ipv6))
    }

    /// Options of the tool. They would win over those of the script.
    pub(crate) fn options(&self) -> Vec<String> {
        let mut options = vec![format!("--ip_version={}", self.variant.name())];
        let name = |option: &str| option.trim_start_matches('-').split('=').next().unwrap_or_default().to_owned();
        let given = self.variant.addresses().iter().filter(|option| !self.sets(&name(option)));
        options.extend(given.map(|&option| option.to_owned()));
        options.extend(self.variant.constants());
        options
    }

    /// An address, the script's own or the usual one.
    fn address(&self, name: &str) -> &str {
        let usual = || {
            let value = |option: &&'static str| option.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('=');
            self.variant.addresses().iter().find_map(value)
        };
        self.own_value(name).or_else(usual).unwrap_or_default()
    }

    /// Our address, which is not on the command line.
    pub(crate) fn local_ip(&self) -> &str {
        self.address("local_ip")
    }

    /// The commands that make the namespace: an unused `tun0` with the address, and a route to the peer.
    pub(crate) fn setup(&self) -> String {
        let (local, remote) = (self.local_ip(), self.address("remote_ip"));
        match self.variant {
            Variant::Ipv4 | Variant::Ipv4MappedIpv6 => {
                format!("ip addr add {local}/16 dev tun0 && ip route add {remote} dev tun0")
            }
            Variant::Ipv6 => format!(
                "ip link set tun0 mtu 1520 && ip addr add {local}/48 dev tun0 nodad && ip route add {remote} dev tun0"
            ),
        }
    }
}

/// All cases, in order. As is the custom, a script whose name ends in `v4` or `v6` is for that family only, and one that
/// says `--ip_version` itself for nothing else.
pub(crate) fn find(paths: &[PathBuf], variants: &[Variant], only: Option<&str>) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for path in paths {
        let root = path.canonicalize().with_context(|| format!("{}", path.display()))?;
        let mut scripts = Vec::new();
        collect(&root, &mut scripts)?;
        scripts.sort();
        for script in scripts {
            let text = script.to_string_lossy().into_owned();
            if only.is_some_and(|only| !text.contains(only)) {
                continue;
            }
            let folder = script.parent().unwrap_or(&root);
            let above = root.parent().unwrap_or(&root);
            let folder = folder.strip_prefix(above).unwrap_or(folder).to_string_lossy().into_owned();
            for &variant in variants {
                let other = if variant == Variant::Ipv6 { "v4.pkt" } else { "v6.pkt" };
                let case = Case::new(script.clone(), folder.clone(), variant)?;
                let suits = case.own_value("ip_version").is_none_or(|version| version == variant.name());
                if suits && !text.ends_with(other) {
                    cases.push(case);
                }
            }
        }
    }
    Ok(cases)
}

fn collect(path: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        out.push(path.to_owned());
        return Ok(());
    }
    for entry in path.read_dir().with_context(|| format!("{}", path.display()))? {
        let entry = entry?.path();
        if entry.is_dir() || entry.extension().is_some_and(|extension| extension == "pkt") {
            collect(&entry, out)?;
        }
    }
    Ok(())
}
