//! Boxes on the way that do more than to pass packets on.
//!
//! Each scenario is some MB each way over Wi-Fi, and LTE beside it where there are two paths, with some boxes in between.
//! All of them assert that both streams arrive whole and end well, how long that takes, what the paths carried, what the
//! connection speaks in the end and why, every counter of trouble on both sides, and the reasons of all MP_TCPRST.

mod rewriting;
mod state;
mod stripping;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch_core::wire::{MptcpOption, Segment};
use anabranch_core::{FallbackReason, ResetReason, SocketOptions};
use anabranch_frame::{PathId, RxPacket};
use anabranch_sim::{HostConfig, Pair, Verdict};

use crate::support::*;

/// Counters of which the scenario has to name each that is not zero.
const TROUBLE: [&str; 25] = [
    "MPTcpExtMPCapableFallbackACK",
    "MPTcpExtMPCapableFallbackSYNACK",
    "MPTcpExtMPCapableSYNTXDrop",
    "MPTcpExtMPCapableDataFallback",
    "MPTcpExtMPJoinNoTokenFound",
    "MPTcpExtMPJoinSynAckHMacFailure",
    "MPTcpExtMPJoinSynAckNoMPJoin",
    "MPTcpExtMPJoinAckHMacFailure",
    "MPTcpExtMPJoinAckNoMPJoin",
    "MPTcpExtMPJoinRejected",
    "MPTcpExtDSSNotMatching",
    "MPTcpExtDSSCorruptionFallback",
    "MPTcpExtDSSCorruptionReset",
    "MPTcpExtDssFallback",
    "MPTcpExtFallbackFailed",
    "MPTcpExtDataCsumErr",
    "MPTcpExtInfiniteMapTx",
    "MPTcpExtInfiniteMapRx",
    "MPTcpExtRcvPruned",
    "MPTcpExtMPFailTx",
    "MPTcpExtMPFailRx",
    "MPTcpExtMPFastcloseTx",
    "MPTcpExtMPRstTx",
    "MPTcpExtMPRstRx",
    "TcpOutRsts",
];

/// A path that carries hardly more than handshakes.
const UNUSED: RangeInclusive<u64> = 0..=20_000;
/// Whatever it carries.
const ANY: RangeInclusive<u64> = 0..=u64::MAX;
/// A path that does its share.
const USED: RangeInclusive<u64> = MEGABYTE..=u64::MAX;

/// A conversation through boxes, and what has to come of it.
struct Scenario {
    /// Bytes each way.
    bytes: u64,
    options: SocketOptions,
    two_paths: bool,
    /// Hosts send super-segments: one mapping for many segments.
    gso: bool,
    boxes: fn(&mut Pair),
    within: Duration,
    /// Bytes over each path, both ways together.
    carried: [RangeInclusive<u64>; 2],
    /// Why the client and the server fell back, if they did.
    fallback: [Option<FallbackReason>; 2],
    /// All counters of trouble that are not zero, of the client and of the server.
    trouble: [&'static [(&'static str, RangeInclusive<u64>)]; 2],
    /// Reasons of all MP_TCPRST that were sent.
    resets: &'static [ResetReason],
}

impl Scenario {
    /// One path, and nothing bad comes of the boxes.
    fn one_path(boxes: fn(&mut Pair)) -> Self {
        Self {
            bytes: 4 * MEGABYTE,
            options: SocketOptions::default(),
            two_paths: false,
            gso: true,
            boxes,
            within: secs(2),
            carried: [ANY, ANY],
            fallback: [None, None],
            trouble: [&[], &[]],
            resets: &[],
        }
    }

    /// Two paths, of which both are used.
    fn two_paths(boxes: fn(&mut Pair)) -> Self {
        Self { two_paths: true, carried: [USED, USED], ..Self::one_path(boxes) }
    }

    /// With plain TCP, which has only the first path.
    fn plain(mut self) -> Self {
        self.options.mptcp = false;
        Self { carried: [USED, 0..=0], fallback: [Some(FallbackReason::Disabled); 2], ..self }
    }

    fn checksums(mut self) -> Self {
        self.options.checksum = true;
        self
    }

    fn build(&self, seed: u64) -> Pair {
        let mut builder = Pair::seeded(seed).path(wifi());
        if self.two_paths {
            builder = builder.path(lte());
        }
        let cut = |host: &mut HostConfig| {
            if !self.gso {
                host.paths.iter_mut().for_each(|path| path.gso_max = 0);
            }
        };
        builder.client(cut).server(cut).build()
    }

    #[track_caller]
    fn run(self, seed: u64) {
        let paths = if self.two_paths { 2 } else { 1 };
        let mut net = self.build(seed);
        let told = watch_resets(&mut net, paths);
        (self.boxes)(&mut net);
        let apps = start(&mut net, self.bytes, self.bytes, &self.options);
        let took = finish(&mut net, apps, secs(120));
        close(&mut net, apps);
        let infos = [apps.0, apps.1].map(|app| net.app(app).flow().info.clone().expect("the stream ended"));
        let trouble = [Pair::CLIENT, Pair::SERVER].map(|host| trouble_of(&net, host));
        let resets = told.lock().unwrap().clone();
        let carried = |path| net.up_stats(path).delivered_bytes + net.down_stats(path).delivered_bytes;
        let carried: Vec<_> = (0..paths).map(carried).collect();
        let fallback = infos.each_ref().map(|info| info.fallback);
        let story = format!("took {took:?}, carried {carried:?}, {fallback:?}, {trouble:?}, {resets:?}");
        assert!(took <= self.within, "too long: {story}");
        assert!(self.carried.iter().zip(&carried).all(|(range, bytes)| range.contains(bytes)), "paths: {story}");
        assert_eq!(fallback, self.fallback, "{story}");
        for (found, expected) in trouble.iter().zip(self.trouble) {
            let names: Vec<_> = found.keys().copied().collect();
            let mut wanted: Vec<_> = expected.iter().map(|(name, _)| *name).collect();
            wanted.sort_unstable();
            assert_eq!(names, wanted, "{story}");
            assert!(expected.iter().all(|(name, range)| range.contains(&found[name])), "{story}");
        }
        assert!(resets.iter().all(|reason| self.resets.contains(reason)), "{story}");
        assert_eq!(resets.is_empty(), self.resets.is_empty(), "{story}");
    }
}

/// Reasons of MP_TCPRST that hosts send.
fn watch_resets(net: &mut Pair, paths: u16) -> Arc<Mutex<Vec<ResetReason>>> {
    let told = Arc::new(Mutex::new(Vec::new()));
    for link in (0..paths).flat_map(|path| [net.up_link(path), net.down_link(path)]).collect::<Vec<_>>() {
        let told = Arc::clone(&told);
        net.set_middlebox(link, move |_, packet| {
            let segment = Segment::parse(RxPacket::new(PathId(0), packet.clone()));
            for option in segment.iter().flat_map(|segment| &segment.options.mptcp) {
                if let MptcpOption::Reset { reason, .. } = option {
                    told.lock().unwrap().push(*reason);
                }
            }
            Verdict::Pass(packet)
        });
    }
    told
}

fn trouble_of(net: &Pair, host: anabranch_sim::HostId) -> BTreeMap<&'static str, u64> {
    let counters = net.counters(host);
    counters.iter().filter(|&(name, count)| count > 0 && TROUBLE.contains(&name)).collect()
}

/// Both directions of all paths.
fn everywhere<B: anabranch_sim::middlebox::Middlebox + 'static>(net: &mut Pair, paths: u16, one: impl Fn() -> B) {
    for path in 0..paths {
        net.box_up(path, one());
        net.box_down(path, one());
    }
}
