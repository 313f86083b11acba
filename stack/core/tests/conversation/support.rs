//! What the tests share.

use std::time::Duration;

use anabranch_core::SocketOptions;
use anabranch_core::wire::Segment;
use anabranch_frame::{PathId, Payload, RxPacket};
use anabranch_sim::middlebox::{TcpPacket, option};
use anabranch_sim::{AppId, Flow, LinkConfig, LinkId, Pair, Transfer, Verdict};

pub(crate) const MEGABYTE: u64 = 1_000_000;

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// 50 Mbit/s, 10 ms one way, a queue of 50 ms.
pub(crate) fn wifi() -> LinkConfig {
    LinkConfig::new(50, 10).queue_time(ms(50))
}

/// 20 Mbit/s, 40 ms one way, a queue of 100 ms.
pub(crate) fn lte() -> LinkConfig {
    LinkConfig::new(20, 40).queue_time(ms(100))
}

/// Wi-Fi and LTE; the client joins.
pub(crate) fn two_paths(seed: u64) -> Pair {
    Pair::seeded(seed).path(wifi()).path(lte()).build()
}

pub(crate) fn plain() -> SocketOptions {
    SocketOptions { mptcp: false, ..SocketOptions::default() }
}

/// A server that sends `down` bytes and a client that sends `up`, on path 0, over IPv4.
pub(crate) fn start(net: &mut Pair, up: u64, down: u64, options: &SocketOptions) -> (AppId<Transfer>, AppId<Transfer>) {
    let server = Transfer::listen(Pair::server_addr(0)).options(options.clone()).sends(down);
    let server = net.spawn(Pair::SERVER, server);
    let client = Transfer::connect(Pair::server_addr(0)).options(options.clone()).sends(up);
    (net.spawn(Pair::CLIENT, client), server)
}

/// Runs until both sides have read all that the other one sent. How long that took.
pub(crate) fn finish(
    net: &mut Pair,
    (client, server): (AppId<Transfer>, AppId<Transfer>),
    deadline: Duration,
) -> Duration {
    let done = net.run_until(deadline, |world| world.app(client).completed(1) && world.app(server).completed(1));
    let progress = |app: AppId<Transfer>| net.app(app).flows().iter().map(Flow::summary).collect::<Vec<_>>();
    assert!(done, "not done at {:?}: client {:?}, server {:?}", net.elapsed(), progress(client), progress(server));
    net.elapsed()
}

/// Runs until both sides heard that their connection is over, and checks that it ended well.
pub(crate) fn close(net: &mut Pair, (client, server): (AppId<Transfer>, AppId<Transfer>)) {
    let deadline = net.elapsed() + secs(10);
    let over = net.run_until(deadline, |world| world.app(client).is_over() && world.app(server).is_over());
    for app in [client, server] {
        let flow = net.app(app).flow();
        assert!(over && flow.closed_well(), "closed: {:?}", flow.closed);
    }
}

/// A whole transfer in good order: how long it took until everything was read.
pub(crate) fn transfer(net: &mut Pair, up: u64, down: u64, options: &SocketOptions, deadline: Duration) -> Duration {
    let apps = start(net, up, down, options);
    let took = finish(net, apps, deadline);
    assert_eq!(net.app(apps.1).flow().received.bytes, up);
    assert_eq!(net.app(apps.0).flow().received.bytes, down);
    close(net, apps);
    assert_no_reset(net);
    took
}

/// The packet without its MPTCP options, as firewalls leave it.
pub(crate) fn without_mptcp(packet: &Payload) -> Payload {
    let mut segment = TcpPacket::read(packet).expect("a TCP segment");
    segment.strip(option::MPTCP);
    segment.finish()
}

/// A direction of a pair's links.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Up,
    Down,
}

impl Way {
    pub(crate) fn link(self, net: &Pair, path: u16) -> LinkId {
        match self {
            Self::Up => net.up_link(path),
            Self::Down => net.down_link(path),
        }
    }
}

/// Loses the first `count` packets on path 0 that `which` picks.
pub(crate) fn lose(net: &mut Pair, way: Way, mut count: usize, which: impl Fn(&Segment) -> bool + Send + 'static) {
    let link = way.link(net, 0);
    net.set_middlebox(link, move |_, packet| {
        let segment = Segment::parse(RxPacket::new(PathId(0), packet.clone()));
        if count > 0 && segment.is_ok_and(|segment| which(&segment)) {
            count -= 1;
            return Verdict::Drop;
        }
        Verdict::Pass(packet)
    });
}

/// Neither side sent a reset.
pub(crate) fn assert_no_reset(net: &Pair) {
    for host in [Pair::CLIENT, Pair::SERVER] {
        assert_eq!(net.counters(host).tcp_out_rsts, 0, "{host:?} sent a reset");
    }
}

/// Payload bytes per second of a link of `mbits` Mbit/s when full segments with `overhead` bytes of
/// headers fill packets of 1500 bytes.
pub(crate) fn goodput(mbits: f64, overhead: f64) -> f64 {
    mbits * 1e6 / 8.0 * (1500.0 - overhead) / 1500.0
}

/// Headers of a full plain TCP segment over IPv4, with timestamps.
pub(crate) const TCP_OVERHEAD: f64 = 52.0;

/// The same with a DSS of 20 bytes.
pub(crate) const MPTCP_OVERHEAD: f64 = 72.0;
