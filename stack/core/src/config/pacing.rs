/// How much a sender lets go at once, and how fast: the settings `net.ipv4.tcp_*` of the same names, with the kernel's
/// defaults. Connections take over what holds when they are established, see
/// [`Shard::set_pacing`](crate::Shard::set_pacing).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PacingConfig {
    /// Segments of a super-segment however slow the connection is, if there is data for them; at least 1.
    pub min_tso_segs: u8,
    /// The largest super-segment is halved for each 2^this microseconds of the smallest round-trip time, and what is left
    /// of it added to what the rate makes in a millisecond; 0: nothing is added.
    pub tso_rtt_log: u8,
    /// Pace in slow start, in per cent of a window in a round-trip time; at most 1000.
    pub pacing_ss_ratio: u16,
    /// The same afterwards.
    pub pacing_ca_ratio: u16,
}

impl Default for PacingConfig {
    fn default() -> Self {
        Self { min_tso_segs: 2, tso_rtt_log: 9, pacing_ss_ratio: 200, pacing_ca_ratio: 120 }
    }
}
