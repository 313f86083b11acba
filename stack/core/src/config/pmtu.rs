use core::time::Duration;

/// How the size of packets is fitted to paths (RFC 1191, RFC 8201), under the names of `net.ipv4`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PmtuConfig {
    /// What an ICMP message taught of a path is forgotten after this (`route.mtu_expires`).
    pub mtu_expires: Duration,
    /// An IPv4 path that claims to take less than this, in bytes, is sent packets of this size without DF
    /// (`route.min_pmtu`): below it forgery is more likely than such a path.
    pub min_pmtu: u16,
}

impl Default for PmtuConfig {
    fn default() -> Self {
        Self { mtu_expires: Duration::from_secs(600), min_pmtu: 552 }
    }
}
