use core::time::Duration;

/// How the size of packets is fitted to paths (RFC 1191, RFC 8201, RFC 4821), under the names of `net.ipv4`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PmtuConfig {
    /// What an ICMP message taught of a path is forgotten after this (`route.mtu_expires`).
    pub mtu_expires: Duration,
    /// An IPv4 path that claims to take less than this, in bytes, is sent packets of this size without DF
    /// (`route.min_pmtu`): below it forgery is more likely than such a path.
    pub min_pmtu: u16,
    /// Whether the size is found out by sending (`tcp_mtu_probing`).
    pub mtu_probing: MtuProbing,
    /// Payload of the segments with which that begins, in bytes (`tcp_base_mss`).
    pub base_mss: u16,
    /// Least payload that black holes are evaded with, in bytes (`tcp_mtu_probe_floor`).
    pub probe_floor: u16,
    /// The search ends when the size is known to so many bytes (`tcp_probe_threshold`)…
    pub probe_threshold: u16,
    /// …and begins again after so long (`tcp_probe_interval`).
    pub probe_interval: Duration,
}

/// When probes are sent (`net.ipv4.tcp_mtu_probing`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MtuProbing {
    /// Never.
    #[default]
    Off,
    /// Once nothing gets through any more, though there is no word from a router.
    BlackHole,
    /// Always: begins small, and looks for more.
    Always,
}

impl Default for PmtuConfig {
    fn default() -> Self {
        Self {
            mtu_expires: Duration::from_secs(600),
            min_pmtu: 552,
            mtu_probing: MtuProbing::Off,
            base_mss: 1024,
            probe_floor: 48,
            probe_threshold: 8,
            probe_interval: Duration::from_secs(600),
        }
    }
}
