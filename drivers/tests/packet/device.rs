//! Devices with addresses of their own, against the kernel and against frames that no kernel would send.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

#[cfg(feature = "pnet")]
use anabranch_drivers::TransmitError;
use anabranch_drivers::packet::{
    Mac, OpenError, Packet, PacketConfig, PacketQueue, Reception, VlanTag, Wire, WireConfig, WireFrame,
};
use anabranch_drivers::{Device, State, echo};
use anabranch_frame::{PathId, RxChecksum, RxPacket};

use crate::netns::{checksum_is_right, in_namespace, receive_until, run, tcp_of, tcp_segment, wait};

const OURS: [&str; 2] = ["10.9.0.2", "fd09::2"];
const HOST: [&str; 2] = ["10.9.0.1", "fd09::1"];

/// The kernel on `va`; `vb` is for the device. Both are in one namespace: the kernel must not think that it is on
/// both ends of the wire.
fn make_pair() {
    run("ip link add va type veth peer name vb");
    run("sysctl -qw net.ipv6.conf.vb.disable_ipv6=1");
    run("sysctl -qw net.ipv4.conf.vb.arp_ignore=8");
    for address in ["10.9.0.1/24", "fd09::1/64 nodad"] {
        run(&format!("ip addr add {address} dev va"));
    }
    run("ip link set va up");
    run("ip link set vb up");
}

fn config() -> PacketConfig {
    let addresses = vec![(addr(OURS[0]), 24), (addr(OURS[1]), 64)];
    PacketConfig { addresses, ..PacketConfig::new("vb", PathId(3)) }
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn open_one(config: &PacketConfig) -> PacketQueue {
    let mut queues = Packet::open(config).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(queues.len(), 1);
    queues.remove(0)
}

fn owns(addr: IpAddr) -> bool {
    OURS.iter().any(|ours| addr.to_string() == *ours)
}

#[test]
fn addresses_answer_pings() {
    for (reception, offload) in [(Reception::Queue, true), (Reception::Ring, true), (Reception::Queue, false)] {
        in_namespace(move || {
            make_pair();
            let mut device = open_one(&PacketConfig { reception, offload, ..config() });
            for addr in OURS {
                let mut ping =
                    Command::new("ping").args(["-q", "-c1", "-W4", addr]).stdout(Stdio::null()).spawn().unwrap();

                receive_until(&mut device, |device, packet| match echo::answer(&packet, owns) {
                    Some(reply) => device.transmit(&reply).map(|()| true).unwrap(),
                    None => false,
                });

                assert!(ping.wait().unwrap().success(), "no answer from {addr}, {reception:?}, offload {offload}");
            }
            assert_eq!(device.counters().rx_malformed, 0);
        });
    }
}

#[test]
#[cfg(feature = "pnet")]
fn addresses_answer_pings_through_pnet() {
    use anabranch_drivers::pnet::Pnet;

    in_namespace(|| {
        make_pair();
        let mut device = Pnet::open(&config()).unwrap_or_else(|error| panic!("{error}"));
        for addr in OURS {
            let mut ping = Command::new("ping").args(["-q", "-c1", "-W4", addr]).stdout(Stdio::null()).spawn().unwrap();

            receive_until(&mut device, |device, packet| match echo::answer(&packet, owns) {
                Some(reply) => device.transmit(&reply).map(|()| true).unwrap(),
                None => false,
            });

            assert!(ping.wait().unwrap().success(), "no answer from {addr}");
        }
        // A super-segment is cut up before it is sent.
        let mut there = wire("va");
        device.transmit(&tcp_segment(PathId(3), OURS[0], HOST[0], &[&[1; 3_000]], Some(1_400))).unwrap();
        let lens: Vec<usize> = (0..3)
            .map(|_| frames(&mut there, |frame| frame.data[12..14] == [8, 0] && frame.data[23] == 6).data.len())
            .collect();
        assert_eq!(lens, [1_454, 1_454, 254]);

        run("ip link set vb down");
        assert_eq!(device.refresh(), State::Down);
        device.receive(&mut Vec::new(), 64).unwrap();
        assert!(matches!(
            device.transmit(&tcp_segment(PathId(3), OURS[0], HOST[0], &[b"?"], None)),
            Err(TransmitError::Down)
        ));
        run("ip link set vb up");
        assert_eq!(device.refresh(), State::Up);
        run("ip link del va");
        assert_eq!(device.refresh(), State::Gone);
    });
}

#[test]
fn the_kernels_syn_arrives() {
    for offload in [true, false] {
        in_namespace(move || {
            make_pair();
            let mut device = open_one(&PacketConfig { offload, ..config() });
            for addr in OURS {
                let to = SocketAddr::new(addr.parse().unwrap(), 5001);
                let connect =
                    std::thread::spawn(move || TcpStream::connect_timeout(&to, Duration::from_millis(200)).is_ok());

                receive_until(&mut device, |_, packet| {
                    let Some(tcp) = tcp_of(&packet) else { return false };
                    assert_eq!(tcp[2..4], 5001u16.to_be_bytes());
                    assert_eq!((packet.path, packet.segment_size), (PathId(3), None));
                    // Its checksum is left out on a veth pair, and the device knows.
                    assert_eq!(packet.checksum, RxChecksum::Trusted);
                    assert!(packet.data.storage_len() <= 256, "a SYN keeps {} bytes", packet.data.storage_len());
                    true
                });

                assert!(!connect.join().unwrap(), "nobody answered");
            }
        });
    }
}

#[test]
fn what_is_sent_waits_for_its_neighbour() {
    in_namespace(|| {
        make_pair();
        let mut device = open_one(&config());
        let mut there = wire("va");
        for ((ours, host), sent) in OURS.into_iter().zip(HOST).zip(1..) {
            device.transmit(&tcp_segment(PathId(3), ours, host, &[&[1; 3_000]], Some(1_400))).unwrap();

            // The kernel answers the question, and the device sends what waited.
            while device.counters().tx_packets < sent {
                wait(&device, rustix::event::PollFlags::IN);
                device.receive(&mut Vec::new(), 8).unwrap();
            }
            let arrived = frames(&mut there, |frame| frame.segment_size() == Some(1_400));

            assert_eq!(arrived.data[arrived.data.len() - 3_000..], [1; 3_000]);
        }
        assert_eq!((device.counters().tx_packets, device.counters().tx_unresolved), (2, 0));

        // Nobody is there, and nothing leads there.
        device.transmit(&tcp_segment(PathId(3), OURS[0], "10.9.0.99", &[b"?"], None)).unwrap();
        device.transmit(&tcp_segment(PathId(3), OURS[0], "192.0.2.1", &[b"?"], None)).unwrap();
        assert_eq!((device.counters().tx_packets, device.counters().tx_unresolved), (2, 1));
    });
}

/// The bare wire of an interface, with all that passes.
fn wire(name: &str) -> Wire {
    Wire::open(&WireConfig { metadata: true, promiscuous: true, ..WireConfig::new(name) }).unwrap().remove(0)
}

/// The first frame that satisfies.
fn frames(wire: &mut Wire, mut satisfied: impl FnMut(&WireFrame) -> bool) -> WireFrame {
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    let mut batch = Vec::new();
    loop {
        assert!(std::time::Instant::now() < deadline, "the frame did not come");
        wire.receive(&mut batch, 1).unwrap();
        for frame in batch.drain(..) {
            if satisfied(&frame) {
                return frame;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Takes in what there is.
fn drain(device: &mut PacketQueue) -> Vec<RxPacket> {
    let mut batch = Vec::new();
    while !wait(device, rustix::event::PollFlags::IN).is_empty() {
        device.receive(&mut batch, 64).unwrap();
    }
    batch
}

#[test]
fn only_sound_frames_for_us_get_through() {
    for (reception, offload) in [(Reception::Queue, true), (Reception::Ring, true), (Reception::Queue, false)] {
        in_namespace(move || {
            make_pair();
            let mut device = open_one(&PacketConfig { reception, offload, ..config() });
            let mut there = wire("va");
            drain(&mut device);
            let before = device.counters();
            let ours: Mac = wire("vb").mac();
            let segment = |destination, data: &[u8]| tcp_segment(PathId(0), HOST[0], destination, &[data], None);
            let frame = |destination, mac| WireFrame::carrying(&segment(destination, b"hello"), mac, there.mac());
            let bytes = |change: &dyn Fn(&mut Vec<u8>)| {
                let mut whole = Vec::new();
                frame(OURS[0], ours).for_each_segment(&mut Vec::new(), |frame| whole = frame.to_vec());
                change(&mut whole);
                WireFrame::new(whole.as_slice().into())
            };
            let tagged = |tci| {
                let mut frame = frame(OURS[0], ours);
                frame.vlan = Some(VlanTag { tpid: 0x8100, tci });
                frame
            };

            // What is for others, or of another VLAN, is not even handed over by the kernel or passed over here; ...
            let mut sent = vec![frame("10.9.0.77", ours), tagged(7), frame(OURS[0], [2, 9, 9, 9, 9, 9])];
            // ... what makes no sense is counted; ...
            sent.push(bytes(&|frame| frame[14] = 0x65));
            sent.push(bytes(&|frame| frame[16..18].copy_from_slice(&[0xff, 0xff])));
            // ... and what is for us comes through: as it is, with a priority only, and padded.
            sent.push(frame(OURS[0], ours));
            sent.push(tagged(0xe000));
            sent.push(bytes(&|frame| frame.resize(80, 0xee)));
            for frame in &sent {
                there.send(frame).unwrap();
            }

            let received: Vec<RxPacket> =
                drain(&mut device).into_iter().filter(|packet| packet.data[0] >> 4 == 4).collect();
            let counted = device.counters();
            let lens: Vec<usize> = received.iter().map(|packet| packet.data.len()).collect();
            assert_eq!(lens, [45, 45, 45], "{counted:?}");
            assert_eq!(counted.rx_malformed - before.rx_malformed, 2, "{counted:?}");
            assert!(counted.rx_foreign > before.rx_foreign, "{counted:?}");
            assert!(received.iter().all(|packet| packet.checksum == RxChecksum::Trusted || checksum_is_right(packet)));
        });
    }
}

#[test]
fn what_cannot_be_opened_says_why() {
    in_namespace(|| {
        make_pair();
        let with = |address: &str, prefix| PacketConfig { addresses: vec![(addr(address), prefix)], ..config() };
        let error = Packet::open(&with(HOST[0], 24)).unwrap_err();
        assert!(matches!(&error, OpenError::KernelOwns { owner, .. } if owner == "va"), "{error}");
        let error = Packet::open(&with(OURS[0], 33)).unwrap_err();
        assert!(matches!(error, OpenError::BadPrefix { .. }), "{error}");
        let error = Packet::open(&PacketConfig { gateways: vec![addr("10.8.0.1")], ..config() }).unwrap_err();
        assert!(matches!(error, OpenError::BadGateway { .. }), "{error}");
        for mtu in [1_279, 1_501] {
            let error = Packet::open(&PacketConfig { mtu: Some(mtu), ..config() }).unwrap_err();
            assert!(matches!(error, OpenError::BadMtu { mtu: 1_500, least: 1_280, .. }), "{error}");
        }
        let error = Packet::open(&PacketConfig { name: "nothere".into(), ..config() }).unwrap_err();
        assert!(matches!(error, OpenError::NoInterface { .. }), "{error}");
    });
}

#[test]
fn a_device_is_announced_when_its_interface_comes_up() {
    in_namespace(|| {
        make_pair();
        let mut there = wire("va");
        let mut device = open_one(&config());
        let is_announcement = |frame: &WireFrame| frame.data[12..14] == [8, 6] && frame.data[28..32] == [10, 9, 0, 2];
        frames(&mut there, is_announcement);

        run("ip link set vb down");
        assert_eq!(device.refresh(), State::Down);
        run("ip link set vb up");
        there.refresh();
        assert_eq!(device.refresh(), State::Up);
        frames(&mut there, is_announcement);

        run("ip link set vb mtu 1300");
        device.refresh();
        assert_eq!(device.capabilities().mtu, 1_300);
        run("ip link del va");
        assert_eq!(device.refresh(), State::Gone);
    });
}
