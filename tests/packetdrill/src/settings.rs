//! The namespace's sysctls.

use std::fs;
use std::str::FromStr;
use std::time::Duration;

use anabranch_core::{ShardConfig, SocketOptions};

/// Everything a script may set that the stack knows, under the kernel's names.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) tcp_rmem_max: u32,
    pub(crate) tcp_wmem_max: u32,
    pub(crate) congestion: String,
    pub(crate) mptcp_scheduler: String,
    pub(crate) mptcp_enabled: bool,
    pub(crate) add_addr_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) syn_retrans_before_tcp_fallback: u8,
    pub(crate) ports: (u16, u16),
}

impl Default for Settings {
    /// The kernel's.
    fn default() -> Self {
        Self {
            tcp_rmem_max: 6 << 20,
            tcp_wmem_max: 4 << 20,
            congestion: "cubic".into(),
            mptcp_scheduler: "default".into(),
            mptcp_enabled: true,
            add_addr_timeout: Duration::from_secs(120),
            close_timeout: Duration::from_secs(60),
            syn_retrans_before_tcp_fallback: 2,
            ports: (32_768, 60_999),
        }
    }
}

impl Settings {
    /// Those of the calling process's namespace. What cannot be read is as the kernel has it by default.
    ///
    /// `inherited` is the congestion control that a new namespace has from the machine. Nobody has chosen that for the
    /// test, and many machines allow nothing else to be set, so it stands for the kernel's own default.
    pub(crate) fn read(inherited: Option<&str>) -> Self {
        let default = Self::default();
        let range = numbers("net/ipv4/ip_local_port_range");
        Self {
            tcp_rmem_max: numbers("net/ipv4/tcp_rmem").get(2).copied().unwrap_or(default.tcp_rmem_max),
            tcp_wmem_max: numbers("net/ipv4/tcp_wmem").get(2).copied().unwrap_or(default.tcp_wmem_max),
            congestion: congestion_control()
                .filter(|name| Some(name.as_str()) != inherited)
                .unwrap_or(default.congestion),
            mptcp_scheduler: text("net/mptcp/scheduler").unwrap_or(default.mptcp_scheduler),
            mptcp_enabled: number("net/mptcp/enabled").is_none_or(|enabled: u8| enabled != 0),
            add_addr_timeout: number("net/mptcp/add_addr_timeout")
                .map_or(default.add_addr_timeout, Duration::from_secs),
            close_timeout: number("net/mptcp/close_timeout").map_or(default.close_timeout, Duration::from_secs),
            syn_retrans_before_tcp_fallback: number("net/mptcp/syn_retrans_before_tcp_fallback")
                .unwrap_or(default.syn_retrans_before_tcp_fallback),
            ports: match range[..] {
                [low, high] => (low, high),
                _ => default.ports,
            },
        }
    }

    /// What a stack is made with.
    pub(crate) fn shard_config(&self) -> ShardConfig {
        ShardConfig {
            rest_after: Duration::MAX,
            add_addr_timeout: self.add_addr_timeout,
            close_timeout: self.close_timeout,
            syn_retrans_before_tcp_fallback: self.syn_retrans_before_tcp_fallback,
            ephemeral_ports: self.ports,
            ..ShardConfig::single(1)
        }
    }

    /// What a socket is made with.
    pub(crate) fn socket_options(&self, mptcp: bool) -> SocketOptions {
        SocketOptions {
            mptcp: mptcp && self.mptcp_enabled,
            congestion: self.congestion.clone(),
            scheduler: if self.mptcp_scheduler == "default" { "linux".into() } else { self.mptcp_scheduler.clone() },
            send_buffer_max: self.tcp_wmem_max,
            recv_buffer_max: self.tcp_rmem_max,
            ..SocketOptions::default()
        }
    }
}

/// The namespace's congestion control.
pub(crate) fn congestion_control() -> Option<String> {
    text("net/ipv4/tcp_congestion_control")
}

fn text(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok().map(|text| text.trim().to_owned())
}

fn number<T: FromStr>(name: &str) -> Option<T> {
    text(name)?.parse().ok()
}

fn numbers<T: FromStr>(name: &str) -> Vec<T> {
    text(name).unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect()
}
