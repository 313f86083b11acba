//! TUN devices against the kernel, each test in a network namespace of its own.

mod netns;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anabranch_drivers::{
    Device, LinkChange, LinkEvent, LinkMonitor, Network, OpenError, State, TransmitError, Tun, TunConfig, TunQueue,
    echo,
};
use anabranch_frame::{PathId, RxChecksum};
use netns::{checksum_is_right, in_namespace, receive_until, run, succeeds, tcp_of, tcp_segment, wait};
use rustix::event::PollFlags;

const OURS: [&str; 2] = ["10.9.0.2", "fd09::2"];
const HOST: [&str; 2] = ["10.9.0.1", "fd09::1"];

fn network(address: &str, prefix: u8, host: &str) -> Network {
    Network { address: address.parse().unwrap(), prefix, host: Some(host.parse().unwrap()) }
}

fn config(name: &str) -> TunConfig {
    let mut config = TunConfig::new(name, PathId(3));
    config.networks = vec![network(OURS[0], 24, HOST[0]), network(OURS[1], 64, HOST[1])];
    config
}

fn open_one(config: &TunConfig) -> TunQueue {
    let mut queues = Tun::open(config).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(queues.len(), 1);
    queues.remove(0)
}

fn owns(addr: IpAddr) -> bool {
    OURS.iter().any(|ours| addr.to_string() == *ours)
}

/// Whether something is so within a second: what a device leaves behind goes with the last copy of its descriptor, and a command
/// that another test is just starting may have one.
fn soon(mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(1);
    while Instant::now() < deadline {
        if is_so() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    is_so()
}

#[test]
fn the_stacks_addresses_answer_pings() {
    for offload in [true, false] {
        in_namespace(move || {
            let mut device = open_one(&TunConfig { offload, ..config("ab0") });
            for addr in OURS {
                let mut ping =
                    Command::new("ping").args(["-q", "-c1", "-W4", addr]).stdout(Stdio::null()).spawn().unwrap();

                receive_until(&mut device, |device, packet| match echo::answer(&packet, owns) {
                    Some(reply) => device.transmit(&reply).map(|()| true).unwrap(),
                    None => false,
                });

                assert!(ping.wait().unwrap().success(), "no answer from {addr}, offload {offload}");
            }
        });
    }
}

#[test]
#[cfg(feature = "tun-tap")]
fn the_stacks_addresses_answer_pings_through_tun_tap() {
    use anabranch_drivers::tun_tap::TunTap;

    in_namespace(|| {
        let mut device = TunTap::open(&config("ab0")).unwrap_or_else(|error| panic!("{error}"));
        for addr in OURS {
            let mut ping = Command::new("ping").args(["-q", "-c1", "-W4", addr]).stdout(Stdio::null()).spawn().unwrap();

            receive_until(&mut device, |device, packet| match echo::answer(&packet, owns) {
                Some(reply) => device.transmit(&reply).map(|()| true).unwrap(),
                None => false,
            });

            assert!(ping.wait().unwrap().success(), "no answer from {addr}");
        }
        let packet = tcp_segment(PathId(3), OURS[0], HOST[0], &[&[1; 3_000]], Some(1_400));
        device.transmit(&packet).unwrap();
        assert_eq!((device.counters().tx_packets, device.counters().tx_segments), (3, 5));

        run("ip link set ab0 down");
        assert!(matches!(device.transmit(&packet), Err(TransmitError::Down)));
        run("ip link set ab0 up");
        assert_eq!(device.refresh(), State::Up);
        run("ip link del ab0");
        assert_eq!(device.refresh(), State::Gone);
    });
}

#[test]
fn the_hosts_addresses_are_its_own_at_once() {
    for attempt in 0..30 {
        in_namespace(move || {
            run("ip link set lo up");
            let _device = open_one(&config("ab0"));
            for addr in HOST {
                let there = UdpSocket::bind((addr, 0)).unwrap();
                there.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                there.send_to(b"to myself", there.local_addr().unwrap()).unwrap();
                let heard = there.recv(&mut [0; 9]);
                assert!(heard.is_ok(), "what goes to {addr} went out by the device, attempt {attempt}");
            }
        });
    }
}

#[test]
fn the_kernels_syn_arrives() {
    for (offload, checksum) in [(true, RxChecksum::Trusted), (false, RxChecksum::Unverified)] {
        in_namespace(move || {
            let mut device = open_one(&TunConfig { offload, ..config("ab0") });
            for addr in OURS {
                let to = SocketAddr::new(addr.parse().unwrap(), 5001);
                let connect =
                    std::thread::spawn(move || TcpStream::connect_timeout(&to, Duration::from_millis(100)).is_ok());

                receive_until(&mut device, |_, packet| {
                    let Some(tcp) = tcp_of(&packet) else { return false };
                    assert_eq!(tcp[2..4], 5001u16.to_be_bytes());
                    assert_eq!(tcp[13] & 0x3f, 0x02, "the first segment is a SYN");
                    assert_eq!((packet.path, packet.checksum, packet.segment_size), (PathId(3), checksum, None));
                    assert!(offload || checksum_is_right(&packet));
                    assert!(packet.data.storage_len() <= 256, "a SYN keeps {} bytes", packet.data.storage_len());
                    true
                });

                assert!(!connect.join().unwrap(), "nobody answered");
            }
        });
    }
}

/// Two TUN devices whose networks the kernel forwards between.
fn forwarding_pair(offload: [bool; 2]) -> [TunQueue; 2] {
    for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{family}"), "1").unwrap();
    }
    [1, 2].map(|n| {
        let mut config = TunConfig::new(format!("ab{n}"), PathId(n));
        config.networks = vec![
            network(&format!("10.9.{n}.2"), 24, &format!("10.9.{n}.1")),
            network(&format!("fd09:{n}::2"), 64, &format!("fd09:{n}::1")),
        ];
        config.offload = offload[usize::from(n) - 1];
        open_one(&config)
    })
}

const FORWARDED: [(&str, &str); 2] = [("10.9.1.2", "10.9.2.2"), ("fd09:1::2", "fd09:2::2")];

#[test]
fn a_super_segment_leaves_in_one_piece_and_is_cut_by_the_kernel() {
    in_namespace(|| {
        let [mut sender, mut receiver] = forwarding_pair([true, false]);
        let data: Vec<u8> = (0..5_000u32).map(|n| (n * 7) as u8).collect();
        // More pieces than one writev takes, too.
        for pieces in [1, 3, 200] {
            let pieces: Vec<&[u8]> = data.chunks(data.len().div_ceil(pieces)).collect();
            for (source, destination) in FORWARDED {
                let packet = tcp_segment(PathId(1), source, destination, &pieces, Some(1_400));
                sender.transmit(&packet).unwrap();

                let mut received = Vec::new();
                receive_until(&mut receiver, |_, packet| {
                    let Some(tcp) = tcp_of(&packet) else { return false };
                    assert!(packet.checksum == RxChecksum::Trusted || checksum_is_right(&packet));
                    assert_eq!(tcp[4..8], (received.len() as u32).to_be_bytes(), "sequence number");
                    received.extend_from_slice(&tcp[20..]);
                    received.len() == data.len()
                });

                assert_eq!(received, data);
            }
        }
        assert_eq!((sender.counters().tx_packets, sender.counters().tx_segments), (6, 24));
        assert_eq!(receiver.counters().rx_segments, 24);
        assert_eq!(sender.counters().tx_rejected, 0);
    });
}

#[test]
fn a_super_segment_arrives_in_one_piece() {
    in_namespace(|| {
        let [mut sender, mut receiver] = forwarding_pair([true, true]);
        let data = vec![0x5a; 60_000];
        for (source, destination) in FORWARDED {
            sender.transmit(&tcp_segment(PathId(1), source, destination, &[&data], Some(1_400))).unwrap();

            receive_until(&mut receiver, |_, packet| {
                let Some(tcp) = tcp_of(&packet) else { return false };
                assert_eq!((packet.checksum, packet.segment_size), (RxChecksum::Trusted, Some(1_400)));
                assert_eq!(tcp[20..], data);
                true
            });
        }
        assert_eq!(receiver.counters().rx_segments - receiver.counters().rx_packets, 2 * (60_000 / 1_400));
    });
}

#[test]
fn without_offload_super_segments_are_cut_in_software() {
    in_namespace(|| {
        let [mut sender, mut receiver] = forwarding_pair([false, false]);
        // The kernel has things to say of its own to routers.
        let mut others = 0;
        for (source, destination) in FORWARDED {
            sender.transmit(&tcp_segment(PathId(1), source, destination, &[&[1; 3_000]], Some(1_400))).unwrap();

            let mut received = Vec::new();
            receive_until(&mut receiver, |_, packet| {
                let Some(tcp) = tcp_of(&packet) else {
                    others += 1;
                    return false;
                };
                received.extend_from_slice(&tcp[20..]);
                received.len() == 3_000
            });

            assert_eq!(received, [1; 3_000]);
        }
        assert_eq!(receiver.counters().rx_segments - others, 6, "1400, 1400 and 200 bytes each");
    });
}

#[test]
fn without_offload_segments_that_wait_together_are_handed_up_together() {
    in_namespace(|| {
        let [mut sender, mut receiver] = forwarding_pair([true, false]);
        let data: Vec<u8> = (0..40_000u32).map(|n| (n * 7) as u8).collect();
        for (source, destination) in FORWARDED {
            let packet = tcp_segment(PathId(1), source, destination, &[&data], Some(1_400));
            for _ in 0..2 {
                sender.transmit(&packet).unwrap();
            }
            // All of both is there before anybody looks.
            std::thread::sleep(Duration::from_millis(100));

            let mut received = Vec::new();
            receive_until(&mut receiver, |_, packet| {
                received.extend(tcp_of(&packet).is_some().then_some(packet));
                received.len() == 2
            });

            for packet in received {
                assert_eq!((packet.checksum, packet.segment_size), (RxChecksum::Trusted, Some(1_400)));
                assert!(tcp_of(&packet).unwrap()[20..] == data, "what came is not what was sent");
            }
        }
    });
}

#[test]
fn the_interface_is_configured_and_vanishes_with_its_queues() {
    in_namespace(|| {
        let queues = Tun::open(&TunConfig { queues: 2, mtu: Some(1_400), ..config("ab0") }).unwrap();

        let shown = Command::new("ip").args(["-d", "addr", "show", "dev", "ab0"]).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        for part in ["UP", "mtu 1400", "qlen 1000", "multi_queue", "10.9.0.1/24", "fd09::1/64 scope global nodad"] {
            assert!(shown.contains(part), "no `{part}` in\n{shown}");
        }
        assert!(!shown.contains("fe80:"), "a link-local address in\n{shown}");
        assert_eq!(queues.iter().map(|queue| queue.capabilities().mtu).collect::<Vec<_>>(), [1_400, 1_400]);
        drop(queues);
        assert!(soon(|| !succeeds("ip link show dev ab0")), "the interface is still there");
    });
}

#[test]
fn a_network_without_a_host_address_is_routed() {
    in_namespace(|| {
        let mut config = config("ab0");
        config.networks.iter_mut().for_each(|network| network.host = None);
        let _device = open_one(&config);

        for (route, family) in [("10.9.0.0/24", "-4"), ("fd09::/64", "-6")] {
            let shown = Command::new("ip").args([family, "route", "show", route]).output().unwrap();
            assert!(String::from_utf8_lossy(&shown.stdout).contains("dev ab0"), "no route to {route}");
        }
    });
}

#[test]
fn a_persistent_interface_is_adopted_without_privileges() {
    in_namespace(|| {
        run("ip tuntap add dev ab0 mode tun user root multi_queue vnet_hdr");
        run("ip addr add 10.9.0.1/24 dev ab0");
        run("ip addr add fd09::1/64 dev ab0 nodad");
        run("ip link set dev ab0 up");
        drop_privileges();

        for queues in [1, 2] {
            let devices = Tun::open(&TunConfig { queues, ..config("ab0") }).unwrap_or_else(|error| panic!("{error}"));

            assert_eq!(devices.len(), queues);
            assert!(devices.iter().all(|device| device.state() == State::Up));
        }

        assert!(succeeds("ip link show dev ab0"), "a persistent interface stays");
        let error = Tun::open(&TunConfig { mtu: Some(1_300), ..config("ab0") }).unwrap_err();
        assert!(error.to_string().contains("`sudo ip link set dev ab0 mtu 1300`"), "{error}");
        let error = Tun::open(&config("ab1")).unwrap_err();
        assert!(matches!(error, OpenError::NoPermission { .. }), "{error}");
        for part in ["run as root", "setcap cap_net_admin+ep", "ip tuntap add dev ab1", "ip addr add fd09::1/64"] {
            assert!(error.to_string().contains(part), "no `{part}` in: {error}");
        }
    });
}

/// Gives up all capabilities of this thread.
fn drop_privileges() {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).unwrap();
}

#[test]
fn what_stands_in_the_way_is_named() {
    in_namespace(|| {
        run("ip tuntap add dev single mode tun");
        run("ip tuntap add dev tap mode tap");
        let _busy = open_one(&TunConfig::new("busy", PathId(0)));

        let error = |config: TunConfig| Tun::open(&config).expect_err("an error").to_string();

        let plain = |name: &str| TunConfig::new(name, PathId(0));
        let mut crossed = config("ab0");
        crossed.networks[0].host = Some("fd09::1".parse().unwrap());
        let cases = [
            (plain("a-name-too-long-for-linux"), "1 to 15 bytes"),
            (plain("lo"), "lo is there already and is no TUN interface"),
            (plain("tap"), "tap is there already and is no TUN interface"),
            (plain("busy"), "busy is in use by another process"),
            (TunConfig { queues: 2, ..plain("single") }, "single is there already and does not take 2 queues"),
            (TunConfig { mtu: Some(1_000), ..config("ab0") }, "at least 1280"),
            (crossed, "do not go together"),
        ];
        for (config, expected) in cases {
            let text = error(config);
            assert!(text.contains(expected), "no `{expected}` in: {text}");
        }
    });
}

#[test]
fn a_deleted_interface_is_gone_for_good() {
    in_namespace(|| {
        let mut device = open_one(&config("ab0"));
        let packet = tcp_segment(PathId(3), OURS[0], HOST[0], &[b"data"], None);
        device.transmit(&packet).unwrap();

        run("ip link del ab0");

        assert!(wait(&device, PollFlags::IN).contains(PollFlags::ERR), "epoll must hear of it");
        assert_eq!(device.refresh(), State::Gone);
        assert!(matches!(device.transmit(&packet), Err(TransmitError::Gone(_))));
        let mut batch = Vec::new();
        assert!(std::iter::from_fn(|| device.receive(&mut batch, 64).ok()).take(1_000).count() < 1_000);
        assert_eq!((device.state(), device.counters().tx_down), (State::Gone, 1));
    });
}

#[test]
fn an_interface_goes_down_and_comes_back() {
    in_namespace(|| {
        let mut device = open_one(&config("ab0"));
        let packet = tcp_segment(PathId(3), OURS[0], HOST[0], &[b"data"], None);

        run("ip link set dev ab0 down");

        assert!(matches!(device.transmit(&packet), Err(TransmitError::Down)));
        assert_eq!((device.state(), device.refresh()), (State::Down, State::Down));
        let mut batch = Vec::new();
        while device.receive(&mut batch, 64).unwrap() > 0 {}
        assert_eq!(wait(&device, PollFlags::IN | PollFlags::OUT), PollFlags::empty(), "a quiet descriptor");

        run("ip link set dev ab0 up mtu 1400");

        assert!(wait(&device, PollFlags::OUT).contains(PollFlags::OUT), "there is room again");
        assert_eq!((device.refresh(), device.capabilities().mtu), (State::Up, 1_400));
        device.transmit(&packet).unwrap();
        assert_eq!(device.counters().tx_down, 1);
    });
}

#[test]
fn the_monitor_hears_of_every_change() {
    in_namespace(|| {
        let mut monitor = LinkMonitor::open().unwrap();
        let device = open_one(&config("ab0"));
        let index = device.interface_index().unwrap();
        let mut last = |what: &str| {
            let mut events = Vec::<LinkEvent>::new();
            let count = monitor.poll(&mut events).unwrap();
            assert_eq!(count, events.len());
            let event = events.pop().unwrap_or_else(|| panic!("heard nothing of: {what}"));
            assert_eq!((event.index, event.name.as_str()), (index, "ab0"), "{what}");
            event.change
        };

        assert_eq!(last("opened"), LinkChange::Present { up: true, mtu: 1_500 });
        run("ip link set dev ab0 mtu 1400");
        assert_eq!(last("another MTU"), LinkChange::Present { up: true, mtu: 1_400 });
        run("ip link set dev ab0 down");
        assert_eq!(last("down"), LinkChange::Present { up: false, mtu: 1_400 });
        run("ip link set dev ab0 up");
        assert_eq!(last("up"), LinkChange::Present { up: true, mtu: 1_400 });
        drop(device);
        assert_eq!(last("dropped"), LinkChange::Removed);
        assert_eq!(monitor.poll(&mut Vec::new()).unwrap(), 0, "nothing is reported twice");
    });
}

#[test]
fn the_monitor_looks_for_itself_when_there_is_too_much_to_hear() {
    in_namespace(|| {
        let mut monitor = LinkMonitor::open().unwrap();
        let stays = open_one(&config("ab0"));
        let goes = open_one(&TunConfig::new("ab1", PathId(4)));
        let (stays_index, goes_index) = (stays.interface_index().unwrap(), goes.interface_index().unwrap());
        monitor.poll(&mut Vec::new()).unwrap();

        let changes: String = (0..1_000).map(|n| format!("link set dev ab0 mtu {}\n", 1_300 + n % 2)).collect();
        let batch = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(batch.path(), changes + "link set dev ab0 mtu 1444\n").unwrap();
        run(&format!("ip -batch {}", batch.path().display()));
        drop(goes);

        let mut events = Vec::new();
        assert!(soon(|| {
            monitor.poll(&mut events).unwrap();
            events.iter().any(|event| event.index == goes_index && event.change == LinkChange::Removed)
        }));
        assert!(events.len() < 1_000, "the socket held all {} events", events.len());
        let last = events.iter().rev().find(|event| event.index == stays_index).map(|event| &event.change);
        assert_eq!(last, Some(&LinkChange::Present { up: true, mtu: 1_444 }));
    });
}

#[test]
fn each_queue_gets_flows_of_its_own() {
    in_namespace(|| {
        let mut queues = Tun::open(&TunConfig { queues: 2, ..config("ab0") }).unwrap();
        let to = SocketAddr::new(OURS[0].parse().unwrap(), 5001);
        let connects: Vec<_> = (0..32)
            .map(|_| std::thread::spawn(move || TcpStream::connect_timeout(&to, Duration::from_millis(50)).is_ok()))
            .collect();
        connects.into_iter().for_each(|connect| assert!(!connect.join().unwrap()));

        let ports = queues.iter_mut().map(|queue| {
            let mut batch = Vec::new();
            while queue.receive(&mut batch, 8).unwrap() > 0 {}
            let port = |packet| tcp_of(packet).map(|tcp| [tcp[0], tcp[1]]);
            batch.iter().filter_map(port).collect::<BTreeSet<_>>()
        });
        let ports: Vec<_> = ports.collect();

        assert!(ports.iter().all(|ports| !ports.is_empty()), "a queue without a flow");
        assert_eq!(ports[0].len() + ports[1].len(), 32, "every flow arrived, at one queue");
        assert!(ports[0].is_disjoint(&ports[1]));
    });
}
