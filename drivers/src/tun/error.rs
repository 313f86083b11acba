use std::io;
use std::net::IpAddr;

use rustix::io::Errno;

/// Why a TUN device could not be opened. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not a name for an interface.
    #[error(
        "`{name}` is no name for an interface: it takes 1 to 15 bytes without spaces and slashes, for example `ab0`"
    )]
    BadName {
        /// What was asked for.
        name: String,
    },
    /// The MTU does not do.
    #[error("an MTU of {mtu} bytes is too small for {name}: at least {least} it must be")]
    BadMtu {
        /// The interface.
        name: String,
        /// What was asked for, in bytes.
        mtu: u16,
        /// What it must be at least: IPv4 needs 68, IPv6 1280.
        least: u16,
    },
    /// An address, prefix and host address that do not go together.
    #[error(
        "{name}: address {address}/{prefix} and host {host:?} do not go together: \
             they must be two addresses of one family, the prefix at most 32 (IPv4) or 128 (IPv6)"
    )]
    BadNetwork {
        /// The interface.
        name: String,
        /// The stack's address.
        address: IpAddr,
        /// The prefix length.
        prefix: u8,
        /// The kernel's address.
        host: Option<IpAddr>,
    },
    /// No `/dev/net/tun`.
    #[error(
        "there is no usable /dev/net/tun ({source}): load the driver with `sudo modprobe tun`, \
             or give the container the device (`--device /dev/net/tun`)"
    )]
    NoDriver {
        /// What the kernel said.
        source: io::Error,
    },
    /// Not allowed to make or attach to the interface.
    #[error(
        "no permission for the TUN interface {name} ({source}): run as root, or give the program the right with \
             `sudo setcap cap_net_admin+ep PROGRAM`, or make the interface beforehand with \
             `sudo ip tuntap add dev {name} mode tun user $USER{flags} vnet_hdr`{more}"
    )]
    NoPermission {
        /// The interface.
        name: String,
        /// Further words for `ip tuntap add`.
        flags: &'static str,
        /// The commands that give it addresses.
        more: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another process has it.
    #[error("{name} is in use by another process: end that, or take another name")]
    Busy {
        /// The interface.
        name: String,
    },
    /// An interface of that name is there, and is something else.
    #[error(
        "{name} is there already and is no TUN interface: take another name, or delete it with `sudo ip link del {name}`"
    )]
    NotTun {
        /// The interface.
        name: String,
    },
    /// An interface of that name has one queue only.
    #[error(
        "{name} is there already and does not take {queues} queues: use one worker, or make it anew with \
             `sudo ip tuntap del dev {name} mode tun` and `sudo ip tuntap add dev {name} mode tun user $USER multi_queue vnet_hdr`"
    )]
    NotMultiQueue {
        /// The interface.
        name: String,
        /// How many queues were asked for.
        queues: usize,
    },
    /// The interface is there, but is not as it should be, and could not be changed.
    #[error("cannot set {what} of {name}: {source}; {cure}")]
    Setting {
        /// What was to be set, and to which value.
        what: String,
        /// The interface.
        name: String,
        /// What to do.
        cure: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused something that it usually does not.
    #[error("cannot open the TUN interface {name}: {doing}: {source}")]
    System {
        /// The interface.
        name: String,
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Whether the kernel said `EPERM`. (`EACCES`, of the same [`io::ErrorKind`], is what it says when IPv6 is disabled.)
pub(super) fn is_not_permitted(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::PERM.raw_os_error())
}
