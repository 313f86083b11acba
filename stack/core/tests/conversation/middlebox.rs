//! Boxes on the way that rewrite what they do not understand.

use anabranch_core::SocketOptions;
use anabranch_sim::{LinkConfig, LinkId, Pair, Verdict};

use crate::edit::*;
use crate::support::*;

/// Both directions of all paths.
fn links(net: &Pair, paths: u16) -> Vec<LinkId> {
    (0..paths).flat_map(|path| [net.up_link(path), net.down_link(path)]).collect()
}

fn lossy() -> LinkConfig {
    wifi().loss(0.005)
}

/// 3 MB each way; what the server knows of its connection when it has read all.
fn exchange(net: &mut Pair, mptcp: bool) -> anabranch_core::ConnInfo {
    let options = SocketOptions { mptcp, ..SocketOptions::default() };
    let apps = start(net, 3 * MEGABYTE, 3 * MEGABYTE, &options);
    finish(net, apps, secs(60));
    let info = net.app(apps.1).flow().info.clone().unwrap();
    close(net, apps);
    info
}

#[test]
fn segments_are_cut_in_two_with_the_options_on_both() {
    for mptcp in [true, false] {
        let mut net = Pair::seeded(1301).path(lossy()).path(lossy()).build();
        for link in links(&net, 2) {
            net.set_middlebox(link, |_, packet| {
                let edit = Edit::new(&packet);
                match edit.payload_len() {
                    0..=500 => Verdict::Pass(packet),
                    _ => Verdict::Replace(edit.split(333).map(Edit::finish).into()),
                }
            });
        }
        // A mapping that comes twice, for bytes that it covers and others that it does not, is no contradiction.
        assert_eq!(exchange(&mut net, mptcp).mptcp, mptcp);
        assert_eq!(net.counters(Pair::SERVER).dss_corruption_reset, 0);
        assert_eq!(net.counters(Pair::SERVER).subflow_stale, 0);
    }
}

#[test]
fn segments_are_cut_in_two_with_the_options_on_the_first() {
    let mut net = Pair::seeded(1302).path(lossy()).path(lossy()).build();
    for link in links(&net, 2) {
        net.set_middlebox(link, |_, packet| {
            let edit = Edit::new(&packet);
            if edit.payload_len() <= 800 {
                return Verdict::Pass(packet);
            }
            let [first, mut second] = edit.split(700);
            second.strip(MPTCP);
            Verdict::Replace(vec![first.finish(), second.finish()])
        });
    }
    // What the first half's mapping covers needs none of its own (RFC 8684 §3.3.1).
    assert!(exchange(&mut net, true).mptcp);
}

#[test]
fn sequence_numbers_are_made_random() {
    for mptcp in [true, false] {
        let mut net = Pair::seeded(1303).path(lossy()).path(lossy()).build();
        for path in 0..2 {
            // Given a firewall that distrusts the client's initial sequence numbers, another offset on each path,
            let offset = 0xdead_0000u32.wrapping_mul(u32::from(path) + 3);
            let (up, down) = (net.up_link(path), net.down_link(path));
            net.set_middlebox(up, move |_, packet| {
                let mut edit = Edit::new(&packet);
                edit.add_seq(offset);
                Verdict::Pass(edit.finish())
            });
            net.set_middlebox(down, move |_, packet| {
                let mut edit = Edit::new(&packet);
                edit.add_ack(offset.wrapping_neg());
                Verdict::Pass(edit.finish())
            });
        }
        // then MPTCP does not notice: its mappings are relative.
        assert_eq!(exchange(&mut net, mptcp).mptcp, mptcp);
        assert_eq!(net.counters(Pair::SERVER).mp_join_ack_rx, u64::from(mptcp));
    }
}

#[test]
fn the_second_path_goes_through_a_nat() {
    let mut net = Pair::seeded(1304).path(lossy()).path(lossy()).build();
    let (inside, outside) = ([10, 0, 1, 1], [198, 51, 100, 7]);
    let (up, down) = (net.up_link(1), net.down_link(1));
    for (link, source, from, to) in [(up, true, inside, outside), (down, false, outside, inside)] {
        net.set_middlebox(link, move |_, packet| {
            let mut edit = Edit::new(&packet);
            edit.set_host(source, from, to);
            Verdict::Pass(edit.finish())
        });
    }
    let info = exchange(&mut net, true);
    // The join is recognised by its token; the address that it seems to come from does not matter.
    assert_eq!(info.subflows_total, 2);
    assert!(net.up_stats(1).delivered_bytes > MEGABYTE / 2);
}

#[test]
fn options_of_the_syn_are_stripped() {
    // Without SACK there is NewReno, without window scaling 64 KiB, without timestamps other ways to measure.
    for kind in [SACK_PERMITTED, WINDOW_SCALE, TIMESTAMPS] {
        for mptcp in [true, false] {
            let mut net = Pair::seeded(1305).path(lossy()).path(lossy()).build();
            for link in links(&net, 2) {
                net.set_middlebox(link, move |_, packet| {
                    let mut edit = Edit::new(&packet);
                    if edit.is_syn() {
                        edit.strip(kind);
                    }
                    Verdict::Pass(edit.finish())
                });
            }
            assert_eq!(exchange(&mut net, mptcp).mptcp, mptcp, "option {kind}");
            assert!(net.elapsed() < secs(20), "option {kind}, mptcp {mptcp}: {:?}", net.elapsed());
        }
    }
}

#[test]
fn every_option_is_stripped_from_every_packet() {
    let mut net = Pair::seeded(1306).path(lossy()).build();
    for link in links(&net, 1) {
        net.set_middlebox(link, |_, packet| {
            let mut edit = Edit::new(&packet);
            for kind in [WINDOW_SCALE, SACK_PERMITTED, SACK, TIMESTAMPS, MPTCP] {
                edit.strip(kind);
            }
            Verdict::Pass(edit.finish())
        });
    }
    assert!(!exchange(&mut net, true).mptcp);
}
