use std::io;
use std::net::IpAddr;

/// Why an interface's wire could not be opened. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such interface.
    #[error("there is no interface {name} here: `ip link` lists those that there are")]
    NoInterface {
        /// What was asked for.
        name: String,
    },
    /// The interface carries something else than Ethernet frames.
    #[error("{name} carries no Ethernet frames, which is what this driver speaks: take the driver `tun` for it")]
    NotEthernet {
        /// The interface.
        name: String,
    },
    /// Not allowed to open packet sockets.
    #[error(
        "no permission for the wire of {name} ({source}): run as root, or give the program the right with \
             `sudo setcap cap_net_raw,cap_net_admin+ep PROGRAM`"
    )]
    NoPermission {
        /// The interface.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// An address that is the kernel's.
    #[error(
        "{address} is the kernel's own address on {owner}: it would reset the connections of this one. \
             Take another address of the network of {name}, or remove it with `sudo ip addr del {address}/{prefix} dev {owner}`"
    )]
    KernelOwns {
        /// The interface.
        name: String,
        /// The address.
        address: IpAddr,
        /// Its prefix length there.
        prefix: u8,
        /// The interface that has it.
        owner: String,
    },
    /// A prefix that the address's family does not have.
    #[error("{name}: the prefix of {address}/{prefix} is too long: at most 32 (IPv4) or 128 (IPv6) it can be")]
    BadPrefix {
        /// The interface.
        name: String,
        /// The address.
        address: IpAddr,
        /// The prefix length.
        prefix: u8,
    },
    /// A gateway that cannot be reached.
    #[error("{name}: the gateway {gateway} is in none of the networks of the addresses there: give one that is")]
    BadGateway {
        /// The interface.
        name: String,
        /// What was asked for.
        gateway: IpAddr,
    },
    /// The MTU does not do.
    #[error("{name} has an MTU of {mtu} bytes: give at most that, and at least {least}, not {asked}")]
    BadMtu {
        /// The interface.
        name: String,
        /// What was asked for, in bytes.
        asked: u16,
        /// What the interface has.
        mtu: u32,
        /// What it must be at least: IPv4 needs 68, IPv6 1280.
        least: u16,
    },
    /// The kernel refused something that it usually does not.
    #[error("cannot open the wire of {name}: {doing}: {source}")]
    System {
        /// The interface.
        name: String,
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}
