//! The namespace's sysctls.

use std::fs;
use std::str::FromStr;
use std::time::Duration;

use anabranch_core::config::{FastOpenKeys, Handshake, MtuProbing, PacingConfig, PmtuConfig, Recovery, SynCookies};
use anabranch_core::options::Ecn;
use anabranch_core::{ShardConfig, SocketOptions};

use crate::sendbuf::SendBuffer;

/// Everything a script may set that the stack knows, under the kernel's names.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) tcp_notsent_lowat: u32,
    pub(crate) mptcp_enabled: bool,
    pub(crate) handshake: Handshake,
    pub(crate) recovery: Recovery,
    pub(crate) pacing: PacingConfig,
    pmtu: PmtuConfig,
    tcp_rmem: [u32; 3],
    tcp_wmem: [u32; 3],
    ecn: Ecn,
    ecn_fallback: bool,
    keepidle: Duration,
    keepintvl: Duration,
    keepcnt: u8,
    fin_timeout: Duration,
    hop_limit: u8,
    thin_linear_timeouts: bool,
    congestion: String,
    scheduler: String,
    add_addr_timeout: Duration,
    close_timeout: Duration,
    syn_retrans_before_tcp_fallback: u8,
    blackhole_timeout: Duration,
    ports: [u16; 2],
}

impl Settings {
    /// Those of the calling process's namespace. What cannot be read is as the kernel has it by default.
    ///
    /// `inherited` is the congestion control that a new namespace has from the machine. Nobody has chosen that for the
    /// test, and many machines allow nothing else to be set, so it stands for the kernel's own default.
    pub(crate) fn read(inherited: Option<&str>) -> Self {
        let congestion = congestion_control().filter(|name| Some(name.as_str()) != inherited);
        let scheduler = text("net/mptcp/scheduler").filter(|name| name != "default");
        Self {
            tcp_notsent_lowat: tcp("notsent_lowat").unwrap_or(u32::MAX),
            mptcp_enabled: number("net/mptcp/enabled").unwrap_or(1) != 0,
            handshake: handshake(),
            recovery: recovery(),
            pacing: pacing(),
            pmtu: pmtu(),
            tcp_rmem: numbers("net/ipv4/tcp_rmem").unwrap_or([4096, 131_072, 6 << 20]),
            tcp_wmem: numbers("net/ipv4/tcp_wmem").unwrap_or([4096, 16_384, 4 << 20]),
            ecn: match tcp("ecn").unwrap_or(2) {
                0 => Ecn::Off,
                1 => Ecn::Request,
                _ => Ecn::Accept,
            },
            ecn_fallback: tcp("ecn_fallback").unwrap_or(1) != 0,
            keepidle: Duration::from_secs(tcp("keepalive_time").unwrap_or(7200)),
            keepintvl: Duration::from_secs(tcp("keepalive_intvl").unwrap_or(75)),
            keepcnt: tcp("keepalive_probes").unwrap_or(9),
            fin_timeout: Duration::from_secs(tcp("fin_timeout").unwrap_or(60)),
            hop_limit: number("net/ipv4/ip_default_ttl").unwrap_or(64),
            thin_linear_timeouts: tcp("thin_linear_timeouts").unwrap_or(0) != 0,
            congestion: congestion.unwrap_or_else(|| "cubic".into()),
            scheduler: scheduler.unwrap_or_else(|| "linux".into()),
            add_addr_timeout: Duration::from_secs(number("net/mptcp/add_addr_timeout").unwrap_or(120)),
            close_timeout: Duration::from_secs(number("net/mptcp/close_timeout").unwrap_or(60)),
            syn_retrans_before_tcp_fallback: number("net/mptcp/syn_retrans_before_tcp_fallback").unwrap_or(2),
            blackhole_timeout: Duration::from_secs(number("net/mptcp/blackhole_timeout").unwrap_or(3600)),
            ports: numbers("net/ipv4/ip_local_port_range").unwrap_or([32_768, 60_999]),
        }
    }

    /// What a stack is made with.
    pub(crate) fn shard_config(&self) -> ShardConfig {
        ShardConfig {
            rest_after: Duration::MAX,
            add_addr_timeout: self.add_addr_timeout,
            close_timeout: self.close_timeout,
            syn_retrans_before_tcp_fallback: self.syn_retrans_before_tcp_fallback,
            blackhole_timeout: self.blackhole_timeout,
            ecn_fallback: self.ecn_fallback,
            ephemeral_ports: (self.ports[0], self.ports[1]),
            handshake: self.handshake,
            recovery: self.recovery,
            pacing: self.pacing,
            pmtu: self.pmtu,
            ..ShardConfig::single(1)
        }
    }

    /// The send buffer of a new socket.
    pub(crate) fn send_buffer(&self) -> SendBuffer {
        let [_, limit, max] = self.tcp_wmem;
        SendBuffer::new(limit.into(), Some(max.into()), self.tcp_notsent_lowat.into())
    }

    /// What a socket is made with.
    pub(crate) fn socket_options(&self, mptcp: bool) -> SocketOptions {
        SocketOptions {
            mptcp: mptcp && self.mptcp_enabled,
            congestion: self.congestion.clone(),
            scheduler: self.scheduler.clone(),
            send_buffer_max: self.tcp_wmem[2],
            recv_buffer_max: self.tcp_rmem[2],
            keepidle: self.keepidle,
            keepintvl: self.keepintvl,
            keepcnt: self.keepcnt,
            linger2: Some(self.fin_timeout),
            hop_limit: self.hop_limit,
            thin_linear_timeouts: self.thin_linear_timeouts,
            ecn: self.ecn,
            ..SocketOptions::default()
        }
    }
}

fn handshake() -> Handshake {
    let mut handshake = Handshake::default();
    let set = |name, default: u8| tcp(name).unwrap_or(default);
    handshake.syn_retries = set("syn_retries", handshake.syn_retries);
    handshake.syn_linear_timeouts = set("syn_linear_timeouts", handshake.syn_linear_timeouts);
    handshake.synack_retries = set("synack_retries", handshake.synack_retries);
    handshake.syncookies = match set("syncookies", 1) {
        0 => SynCookies::Never,
        1 => SynCookies::UnderLoad,
        _ => SynCookies::Always,
    };
    handshake.abort_on_overflow = set("abort_on_overflow", 0) != 0;
    handshake.rfc1337 = set("rfc1337", 0) != 0;
    handshake.tw_reuse = set("tw_reuse", 2) == 1;
    handshake.invalid_ratelimit = tcp("invalid_ratelimit").map_or(handshake.invalid_ratelimit, Duration::from_millis);
    handshake.challenge_ack_limit = tcp("challenge_ack_limit").unwrap_or(handshake.challenge_ack_limit);
    handshake.offers.timestamps = set("timestamps", 1) != 0;
    handshake.offers.sack = set("sack", 1) != 0;
    handshake.offers.window_scaling = set("window_scaling", 1) != 0;
    handshake.fastopen.set_bits(tcp("fastopen").unwrap_or(1));
    handshake.fastopen.keys = text("net/ipv4/tcp_fastopen_key").and_then(|keys| parse_keys(&keys));
    let blackhole = tcp("fastopen_blackhole_timeout_sec").unwrap_or(0);
    handshake.fastopen.blackhole_timeout = Duration::from_secs(blackhole);
    handshake
}

fn recovery() -> Recovery {
    let mut recovery = Recovery::default();
    let bits: u32 = tcp("recovery").unwrap_or(1);
    let millis = |name, default| tcp(name).map_or(default, Duration::from_millis);
    recovery.early_retrans = matches!(tcp("early_retrans").unwrap_or(3), 3 | 4);
    recovery.frto = tcp("frto").unwrap_or(2) != 0;
    recovery.static_reo_wnd = bits & 2 != 0;
    recovery.no_dupthresh = bits & 4 != 0;
    recovery.reordering = tcp("reordering").unwrap_or(recovery.reordering);
    recovery.max_reordering = tcp("max_reordering").unwrap_or(recovery.max_reordering);
    recovery.retries2 = tcp("retries2").unwrap_or(recovery.retries2);
    recovery.orphan_retries = tcp("orphan_retries").unwrap_or(recovery.orphan_retries);
    recovery.slow_start_after_idle = tcp("slow_start_after_idle").unwrap_or(1) != 0;
    recovery.rto_min = tcp("rto_min_us").map_or(recovery.rto_min, Duration::from_micros);
    recovery.rto_max = millis("rto_max_ms", recovery.rto_max);
    recovery.thin_linear_timeouts = tcp("thin_linear_timeouts").unwrap_or(0) != 0;
    recovery
}

fn pacing() -> PacingConfig {
    let mut pacing = PacingConfig::default();
    pacing.min_tso_segs = tcp("min_tso_segs").unwrap_or(pacing.min_tso_segs);
    pacing.tso_rtt_log = tcp("tso_rtt_log").unwrap_or(pacing.tso_rtt_log);
    pacing.pacing_ss_ratio = tcp("pacing_ss_ratio").unwrap_or(pacing.pacing_ss_ratio);
    pacing.pacing_ca_ratio = tcp("pacing_ca_ratio").unwrap_or(pacing.pacing_ca_ratio);
    pacing
}

fn pmtu() -> PmtuConfig {
    let mut pmtu = PmtuConfig::default();
    pmtu.mtu_probing = match tcp("mtu_probing").unwrap_or(0) {
        0 => MtuProbing::Off,
        1 => MtuProbing::BlackHole,
        _ => MtuProbing::Always,
    };
    pmtu.base_mss = tcp("base_mss").unwrap_or(pmtu.base_mss);
    pmtu.probe_floor = tcp("mtu_probe_floor").unwrap_or(pmtu.probe_floor);
    pmtu.probe_threshold = tcp("probe_threshold").unwrap_or(pmtu.probe_threshold);
    pmtu.probe_interval = tcp("probe_interval").map_or(pmtu.probe_interval, Duration::from_secs);
    pmtu.mtu_expires = number("net/ipv4/route/mtu_expires").map_or(pmtu.mtu_expires, Duration::from_secs);
    pmtu.min_pmtu = number("net/ipv4/route/min_pmtu").unwrap_or(pmtu.min_pmtu);
    pmtu
}

/// Keys as `tcp_fastopen_key` shows them: four numbers of eight digits each, one key or two.
fn parse_keys(text: &str) -> Option<FastOpenKeys> {
    let key = |text: &str| {
        let mut key = [0; 16];
        for (to, word) in key.chunks_mut(4).zip(text.trim().split('-')) {
            to.copy_from_slice(&u32::from_str_radix(word, 16).ok()?.to_le_bytes());
        }
        Some(key)
    };
    let mut keys = text.split(',').map(key);
    Some(FastOpenKeys { primary: keys.next()??, backup: keys.next().flatten() })
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

/// A sysctl `net.ipv4.tcp_…`.
fn tcp<T: FromStr>(name: &str) -> Option<T> {
    number(&format!("net/ipv4/tcp_{name}"))
}

fn numbers<T: FromStr, const N: usize>(name: &str) -> Option<[T; N]> {
    let all: Vec<T> = text(name)?.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    all.try_into().ok()
}
