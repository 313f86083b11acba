//! What only netlink tells of the namespace: MPTCP's endpoints and limits.
//!
//! Two requests with half a dozen attributes: the crates for it bring an async runtime along.

use std::io::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anabranch_core::{EndpointFlags, Limits};

/// `NLMSG_HDRLEN`, `GENL_HDRLEN` and the length of an attribute's header, in bytes.
const MESSAGE_HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;

const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const PM_CMD_GET_ADDR: u8 = 3;
const PM_CMD_GET_LIMITS: u8 = 6;
const PM_ATTR_ADDR: u16 = 1;
const PM_ATTR_RCV_ADD_ADDRS: u16 = 2;
const PM_ATTR_SUBFLOWS: u16 = 3;
const ADDR_ATTR_ID: u16 = 2;
const ADDR_ATTR_ADDR4: u16 = 3;
const ADDR_ATTR_ADDR6: u16 = 4;
const ADDR_ATTR_FLAGS: u16 = 6;

/// An entry of `ip mptcp endpoint`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MptcpEndpoint {
    pub(crate) id: u8,
    pub(crate) addr: IpAddr,
    pub(crate) flags: EndpointFlags,
}

/// The namespace's endpoints and limits.
pub(crate) fn mptcp() -> Result<(Vec<MptcpEndpoint>, Limits)> {
    let mut socket = Socket::open()?;
    let family = socket.family(b"mptcp_pm\0")?;
    let mut endpoints = Vec::new();
    for answer in socket.ask(family, libc::NLM_F_DUMP as u16, PM_CMD_GET_ADDR, &[])? {
        endpoints
            .extend(attributes(&answer).find(|(kind, _)| *kind == PM_ATTR_ADDR).and_then(|(_, addr)| endpoint(addr)));
    }
    let mut limits = Limits { subflows: 2, add_addr_accepted: 0 };
    for answer in socket.ask(family, 0, PM_CMD_GET_LIMITS, &[])? {
        for (kind, value) in attributes(&answer) {
            match kind {
                PM_ATTR_SUBFLOWS => limits.subflows = number(value) as u8,
                PM_ATTR_RCV_ADD_ADDRS => limits.add_addr_accepted = number(value) as u8,
                _ => {}
            }
        }
    }
    Ok((endpoints, limits))
}

fn endpoint(nested: &[u8]) -> Option<MptcpEndpoint> {
    let (mut id, mut addr, mut bits) = (0, None, 0);
    for (kind, value) in attributes(nested) {
        match kind {
            ADDR_ATTR_ID => id = *value.first()?,
            ADDR_ATTR_ADDR4 => addr = Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?))),
            ADDR_ATTR_ADDR6 => addr = Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?))),
            ADDR_ATTR_FLAGS => bits = number(value),
            _ => {}
        }
    }
    let flags = EndpointFlags {
        signal: bits & 1 != 0,
        subflow: bits & 2 != 0,
        backup: bits & 4 != 0,
        fullmesh: bits & 8 != 0,
        ..EndpointFlags::default()
    };
    Some(MptcpEndpoint { id, addr: addr?, flags })
}

/// An attribute's value, a number of 32 bits or fewer.
fn number(value: &[u8]) -> u32 {
    let mut bytes = [0; 4];
    let len = value.len().min(4);
    bytes[..len].copy_from_slice(&value[..len]);
    u32::from_ne_bytes(bytes)
}

/// Kinds and values of the attributes in a row.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    core::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = bytes.get(ATTRIBUTE_HEADER..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A socket of generic netlink.
struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    fn open() -> Result<Self> {
        // SAFETY: takes numbers only.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_GENERIC) };
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else's.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, sequence: 0 })
    }

    /// The number of the family with this name.
    fn family(&mut self, name: &[u8]) -> Result<u16> {
        let mut attribute = Vec::new();
        attribute.extend(((ATTRIBUTE_HEADER + name.len()) as u16).to_ne_bytes());
        attribute.extend(CTRL_ATTR_FAMILY_NAME.to_ne_bytes());
        attribute.extend(name);
        attribute.resize(attribute.len().next_multiple_of(4), 0);
        let answers = self.ask(libc::GENL_ID_CTRL as u16, 0, CTRL_CMD_GETFAMILY, &attribute)?;
        let mut all = answers.iter().flat_map(|answer| attributes(answer));
        let id = all.find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID).map(|(_, value)| number(value) as u16);
        id.ok_or_else(|| Error::from_raw_os_error(libc::ENOENT))
    }

    /// Sends a request and gives the attributes of each answer.
    fn ask(&mut self, family: u16, flags: u16, command: u8, attributes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.sequence += 1;
        let len = MESSAGE_HEADER + GENERIC_HEADER + attributes.len();
        let mut message = Vec::with_capacity(len);
        message.extend((len as u32).to_ne_bytes());
        message.extend(family.to_ne_bytes());
        // Always with an acknowledgement, so that it is plain where the answers end.
        message.extend((libc::NLM_F_REQUEST as u16 | libc::NLM_F_ACK as u16 | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend([command, 1, 0, 0]);
        message.extend(attributes);
        // SAFETY: the message is as long as said.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
        if sent < 0 {
            return Err(Error::last_os_error());
        }
        self.answers()
    }

    fn answers(&self) -> Result<Vec<Vec<u8>>> {
        let (mut buffer, mut answers) = (vec![0; 64 * 1024], Vec::new());
        loop {
            // SAFETY: the buffer is as long as said.
            let got = unsafe { libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            if got < 0 {
                return Err(Error::last_os_error());
            }
            let mut rest = &buffer[..got as usize];
            while rest.len() >= MESSAGE_HEADER {
                let len = (number(&rest[..4]) as usize).clamp(MESSAGE_HEADER, rest.len());
                let (message, kind) = (&rest[..len], u16::from_ne_bytes([rest[4], rest[5]]));
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(answers),
                    libc::NLMSG_ERROR => {
                        let code = message.get(16..20).map_or(0, |code| number(code) as i32);
                        return if code == 0 { Ok(answers) } else { Err(Error::from_raw_os_error(-code)) };
                    }
                    _ => answers.push(message.get(MESSAGE_HEADER + GENERIC_HEADER..).unwrap_or_default().to_vec()),
                }
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}
