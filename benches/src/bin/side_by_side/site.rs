//! The networks: who can reach whom, and by what.

use std::net::Ipv4Addr;

use anabranch_tests::Netns;
use anyhow::Result;

use crate::plan::{Kind, Link, Row};

/// The client's address on every network.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// The server's.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// The server's behind a router.
pub(crate) const FAR_SERVER: Ipv4Addr = Ipv4Addr::new(10, 90, 3, 2);

/// The namespaces of one row. They are gone with this process, however that ends.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// Where the client runs.
    pub(crate) client: Netns,
    /// Where the server runs; the same one for a TUN device.
    pub(crate) server: Netns,
}

impl Site {
    /// Makes namespaces and links.
    pub(crate) fn new(row: Row) -> Result<Self> {
        let client = namespace("client")?;
        let site = match row.link {
            Link::Memory => Self { server: client.clone(), client },
            Link::Tun | Link::PlainTun | Link::TunTap => Self::tun(row, client)?,
            Link::Veth => Self::veth(client, true)?.announcing(row.kind)?,
            Link::Packet => Self::veth(client, false)?,
            Link::Pnet => Self::veth(client, false)?.without_offload()?,
            Link::Routed => Self::routed(client)?,
        };
        site.limit(row.kind)?;
        Ok(site)
    }

    /// Client and server in one namespace. Our stack makes its devices itself, the others find `tun0`.
    fn tun(row: Row, netns: Netns) -> Result<Self> {
        if row.peer.needs_tun() {
            let header = if row.link == Link::Tun { "vnet_hdr" } else { "" };
            netns.ip(&format!("tuntap add tun0 mode tun {header}"))?;
            netns.ip(&format!("addr add {CLIENT}/24 dev tun0"))?;
            netns.ip("link set tun0 txqueuelen 1000 up")?;
        }
        Ok(Self { server: netns.clone(), client: netns })
    }

    /// Two pairs of virtual Ethernet. The kernel on the server's side has addresses, or leaves them to us.
    fn veth(client: Netns, addressed: bool) -> Result<Self> {
        let server = namespace("server")?;
        for path in 0..2 {
            client.ip(&format!("link add k{path} type veth peer name k{path} netns {}", server.path()))?;
            for (netns, host) in [(&client, 1), (&server, 2)] {
                if host == 1 || addressed {
                    netns.ip(&format!("addr add 10.9.{path}.{host}/24 dev k{path}"))?;
                }
                netns.ip(&format!("link set k{path} up"))?;
            }
        }
        Ok(Self { client, server })
    }

    /// The kernel's server tells of its second address, if there is to be a second subflow.
    fn announcing(self, kind: Kind) -> Result<Self> {
        if kind == Kind::Two {
            self.server.ip("mptcp limits set subflows 4 add_addr_accepted 4")?;
            self.server.ip("mptcp endpoint add 10.9.1.2 dev k1 signal")?;
        }
        Ok(self)
    }

    /// pnet does not tell which checksums the kernel left unfinished, nor how a super-segment is to be cut.
    fn without_offload(self) -> Result<Self> {
        for path in 0..2 {
            self.client.command("ethtool", &format!("-K k{path} tx off tso off gso off"))?;
            self.server.command("ethtool", &format!("-K k{path} gro off"))?;
        }
        Ok(self)
    }

    /// Our stack on either side of two routers: its TUN devices are `.1.` and `.3.`, the wires `.2.`.
    fn routed(client: Netns) -> Result<Self> {
        let server = namespace("server")?;
        for path in 0..2 {
            let net = 90 + path;
            client.ip(&format!("link add k{path} type veth peer name k{path} netns {}", server.path()))?;
            for (netns, host) in [(&client, 1), (&server, 2)] {
                netns.ip(&format!("addr add 10.{net}.2.{host}/24 dev k{path}"))?;
                netns.ip(&format!("link set k{path} up"))?;
            }
            client.ip(&format!("route add 10.{net}.3.0/24 via 10.{net}.2.2"))?;
            server.ip(&format!("route add 10.{net}.1.0/24 via 10.{net}.2.1"))?;
        }
        for netns in [&client, &server] {
            netns.sysctl("net.ipv4.ip_forward", "1")?;
        }
        Ok(Self { client, server })
    }

    /// The limits of a kernel client alone make the difference between one subflow and two.
    fn limit(&self, kind: Kind) -> Result<()> {
        let subflows = if kind == Kind::Two { 4 } else { 0 };
        self.client.ip(&format!("mptcp limits set subflows {subflows} add_addr_accepted {subflows}"))?;
        Ok(())
    }
}

fn namespace(label: &str) -> Result<Netns> {
    let netns = Netns::new(label)?;
    // Many short connections must not run out of ports.
    netns.sysctl("net.ipv4.ip_local_port_range", "10000 65000")?;
    netns.sysctl("net.ipv4.tcp_max_tw_buckets", "500")?;
    netns.sysctl("net.core.somaxconn", "4096")?;
    netns.sysctl("net.ipv4.tcp_max_syn_backlog", "4096")?;
    Ok(netns)
}

/// Specifications of our paths on the server's side.
pub(crate) fn server_paths(link: Link, kind: Kind) -> Vec<String> {
    let path = |path: u8| {
        let signal = if path > 0 { ",signal" } else { "" };
        match link {
            Link::Tun => format!("tun:ab{path},addr=10.9.{path}.2/24,host=10.9.{path}.1{signal}"),
            Link::PlainTun => format!("tun:ab{path},addr=10.9.{path}.2/24,host=10.9.{path}.1,offload=off{signal}"),
            Link::TunTap => format!("tun-tap:ab{path},addr=10.9.{path}.2/24,host=10.9.{path}.1{signal}"),
            Link::Packet => format!("packet:k{path},addr=10.9.{path}.2/24{signal}"),
            Link::Pnet => format!("pnet:k{path},addr=10.9.{path}.2/24{signal}"),
            Link::Routed => routed_path(path, 3, signal),
            Link::Veth | Link::Memory => unreachable!("no paths of ours on {link:?}"),
        }
    };
    (0..kind.paths()).map(path).collect()
}

/// And on the client's, where the client is ours, too.
pub(crate) fn client_paths(kind: Kind) -> Vec<String> {
    (0..kind.paths()).map(|path| routed_path(path, 1, "")).collect()
}

/// The prefix covers both ends, so that each address is reached by its own path.
fn routed_path(path: u8, side: u8, signal: &str) -> String {
    let net = 90 + path;
    format!("tun:ab{path},addr=10.{net}.{side}.2/16,host=10.{net}.{side}.1{signal}")
}
