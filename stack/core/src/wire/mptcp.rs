use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;

use super::OPTIONS_MAX;
use super::bytes::{be16, be32, be64};
use crate::ResetReason;

/// TCP option kind of MPTCP (RFC 8684 §3).
pub(super) const KIND: u8 = 30;

/// The version that we speak.
const VERSION: u8 = 1;

const MP_CAPABLE: u8 = 0;
const MP_JOIN: u8 = 1;
const DSS: u8 = 2;
const ADD_ADDR: u8 = 3;
const REMOVE_ADDR: u8 = 4;
const MP_PRIO: u8 = 5;
const MP_FAIL: u8 = 6;
const MP_FASTCLOSE: u8 = 7;
const MP_TCPRST: u8 = 8;

const CAPABLE_CHECKSUM: u8 = 0x80;
const CAPABLE_EXTENSIBILITY: u8 = 0x40;
const CAPABLE_DENY_JOIN: u8 = 0x20;
const CAPABLE_HMAC_SHA256: u8 = 0x01;

const JOIN_BACKUP: u8 = 0x01;
const PRIO_BACKUP: u8 = 0x01;
const ADDR_ECHO: u8 = 0x01;
const RST_TRANSIENT: u8 = 0x01;

const DSS_DATA_FIN: u8 = 0x10;
const DSS_DSN_LONG: u8 = 0x08;
const DSS_MAPPING: u8 = 0x04;
const DSS_ACK_LONG: u8 = 0x02;
const DSS_ACK: u8 = 0x01;

/// MP_CAPABLE (RFC 8684 §3.1), version 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MpCapable {
    /// Version nibble; we speak 1.
    pub version: u8,
    /// Flag A: data checksums are required.
    pub checksum_required: bool,
    /// Flag B: an extension we do not know; the option must then be ignored.
    pub extensibility: bool,
    /// Flag C: no joins to this address and port.
    pub deny_join_initial: bool,
    /// Flag H: HMAC-SHA256.
    pub hmac_sha256: bool,
    /// Key of the sender of this option; absent on a SYN.
    pub sender_key: Option<u64>,
    /// Key of the receiver of this option; on the third ACK and the first data.
    pub receiver_key: Option<u64>,
    /// Data-level length of the first mapping; on the first data.
    pub data_len: Option<u16>,
    /// Its checksum, if negotiated.
    pub checksum: Option<u16>,
}

/// MP_JOIN (RFC 8684 §3.2), one form a step of its handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MpJoin {
    /// On the SYN.
    Syn {
        /// Use this subflow only as a backup.
        backup: bool,
        /// Sender's address identifier.
        addr_id: u8,
        /// Receiver's token.
        token: u32,
        /// Sender's random number.
        nonce: u32,
    },
    /// On the SYN/ACK.
    SynAck {
        /// Use this subflow only as a backup.
        backup: bool,
        /// Sender's address identifier.
        addr_id: u8,
        /// Leftmost 64 bits of the sender's HMAC.
        hmac: u64,
        /// Sender's random number.
        nonce: u32,
    },
    /// On the third ACK.
    Ack {
        /// Leftmost 160 bits of the sender's HMAC.
        hmac: [u8; 20],
    },
}

/// DATA_ACK, as long as it stood on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataAck {
    /// The low 32 bits.
    Short(u32),
    /// All 64 bits.
    Long(u64),
}

/// A data sequence mapping as it stands on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Data sequence number; only the low 32 bits count if `dsn_long` is false.
    pub dsn: u64,
    /// Whether the DSN stood there with 8 bytes.
    pub dsn_long: bool,
    /// Subflow sequence number relative to the initial one: 1 is the first byte after the SYN.
    pub ssn: u32,
    /// Data-level length, DATA_FIN included; 0 is the infinite mapping.
    pub len: u16,
    /// Checksum, if there was one.
    pub checksum: Option<u16>,
}

/// DSS (RFC 8684 §3.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dss {
    /// DATA_ACK, if flag A is set.
    pub ack: Option<DataAck>,
    /// Mapping, if flag M is set.
    pub mapping: Option<Mapping>,
    /// Flag F: the mapping's last DSN is DATA_FIN.
    pub data_fin: bool,
}

/// ADD_ADDR (RFC 8684 §3.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddAddr {
    /// Echo of an announcement.
    pub echo: bool,
    /// Address identifier.
    pub id: u8,
    /// The address.
    pub addr: IpAddr,
    /// A port other than the connection's.
    pub port: Option<u16>,
    /// Rightmost 64 bits of the HMAC; absent on an echo.
    pub hmac: Option<u64>,
}

/// REMOVE_ADDR (RFC 8684 §3.4.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoveAddr {
    /// Address identifiers, at least one.
    pub ids: ArrayVec<u8, 8>,
}

/// An MPTCP option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MptcpOption {
    /// Subtype 0.
    Capable(MpCapable),
    /// Subtype 1.
    Join(MpJoin),
    /// Subtype 2.
    Dss(Dss),
    /// Subtype 3.
    AddAddr(AddAddr),
    /// Subtype 4.
    RemoveAddr(RemoveAddr),
    /// Subtype 5: use this subflow as a backup, or no longer.
    Prio {
        /// The B flag.
        backup: bool,
    },
    /// Subtype 6.
    Fail {
        /// Start of the failed mapping, always 64 bits.
        dsn: u64,
    },
    /// Subtype 7.
    Fastclose {
        /// The receiver's key.
        receiver_key: u64,
    },
    /// Subtype 8, MP_TCPRST.
    Reset {
        /// The condition may pass.
        transient: bool,
        /// Why.
        reason: ResetReason,
    },
}

/// An option whose length is none that its subtype can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed;

impl MptcpOption {
    /// Parses one whole option, kind and length included. `None` if its subtype is unknown.
    ///
    /// Sizes are checked per subtype, as the kernel does: a form that no RFC defines is no option.
    pub(super) fn parse(option: &[u8]) -> Result<Option<Self>, Malformed> {
        let &[_, _, subtype, ..] = option else { return Err(Malformed) };
        Ok(Some(match subtype >> 4 {
            MP_CAPABLE => Self::Capable(MpCapable::parse(option)?),
            MP_JOIN => Self::Join(MpJoin::parse(option)?),
            DSS => Self::Dss(Dss::parse(option)?),
            ADD_ADDR => Self::AddAddr(AddAddr::parse(option)?),
            REMOVE_ADDR => Self::RemoveAddr(RemoveAddr::parse(option)?),
            MP_PRIO => match option.len() {
                3 => Self::Prio { backup: subtype & PRIO_BACKUP != 0 },
                _ => return Err(Malformed),
            },
            MP_FAIL => match option.len() {
                12 => Self::Fail { dsn: be64(option, 4) },
                _ => return Err(Malformed),
            },
            MP_FASTCLOSE => match option.len() {
                12 => Self::Fastclose { receiver_key: be64(option, 4) },
                _ => return Err(Malformed),
            },
            MP_TCPRST => match option.len() {
                4 => Self::Reset { transient: subtype & RST_TRANSIENT != 0, reason: ResetReason::from_code(option[3]) },
                _ => return Err(Malformed),
            },
            _ => return Ok(None),
        }))
    }

    /// Bytes on the wire without padding, or `None` if the fields make no form that the RFC has: an
    /// MP_CAPABLE with a gap, a REMOVE_ADDR of nothing, an ADD_ADDR without HMAC or an echo with one.
    pub(super) fn wire_len(&self) -> Option<usize> {
        match self {
            Self::Capable(capable) => capable.wire_len(),
            Self::Join(MpJoin::Syn { .. }) | Self::Fail { .. } | Self::Fastclose { .. } => Some(12),
            Self::Join(MpJoin::SynAck { .. }) => Some(16),
            Self::Join(MpJoin::Ack { .. }) => Some(24),
            Self::Dss(dss) => Some(dss.wire_len()),
            Self::AddAddr(add) => add.wire_len(),
            Self::RemoveAddr(remove) => (!remove.ids.is_empty()).then_some(3 + remove.ids.len()),
            Self::Prio { .. } => Some(3),
            Self::Reset { .. } => Some(4),
        }
    }

    /// The option as bytes without padding; its [length](Self::wire_len) is `len`.
    pub(super) fn emit(&self, len: usize) -> ArrayVec<u8, OPTIONS_MAX> {
        let mut out = Out(ArrayVec::new());
        out.put(&[&[KIND, len as u8]]);
        match self {
            Self::Capable(capable) => capable.emit(&mut out),
            Self::Join(join) => join.emit(&mut out),
            Self::Dss(dss) => dss.emit(&mut out),
            Self::AddAddr(add) => add.emit(&mut out),
            Self::RemoveAddr(remove) => out.put(&[&[REMOVE_ADDR << 4], &remove.ids]),
            Self::Prio { backup } => out.put(&[&[MP_PRIO << 4 | bit(*backup, PRIO_BACKUP)]]),
            Self::Fail { dsn } => out.put(&[&[MP_FAIL << 4, 0], &dsn.to_be_bytes()]),
            Self::Fastclose { receiver_key } => out.put(&[&[MP_FASTCLOSE << 4, 0], &receiver_key.to_be_bytes()]),
            Self::Reset { transient, reason } => {
                out.put(&[&[MP_TCPRST << 4 | bit(*transient, RST_TRANSIENT), *reason as u8]]);
            }
        }
        debug_assert_eq!(out.0.len(), len, "{self:?}");
        out.0
    }
}

/// Bytes in the making. No option is longer than 30 bytes, so nothing is ever cut off.
struct Out(ArrayVec<u8, OPTIONS_MAX>);

impl Out {
    fn put(&mut self, fields: &[&[u8]]) {
        for field in fields {
            let fits = field.len().min(self.0.remaining_capacity());
            debug_assert_eq!(fits, field.len());
            self.0.extend(field[..fits].iter().copied());
        }
    }
}

fn bit(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

impl MpCapable {
    /// What we say: version 1, HMAC-SHA256. A SYN has no key, a SYN/ACK the sender's, the third ACK both, the first data
    /// its length, too, and its checksum if they are in use.
    #[must_use]
    pub fn offer(sender_key: Option<u64>, receiver_key: Option<u64>, data_len: Option<u16>) -> Self {
        Self {
            version: VERSION,
            checksum_required: false,
            extensibility: false,
            deny_join_initial: false,
            hmac_sha256: true,
            sender_key,
            receiver_key,
            data_len,
            checksum: None,
        }
    }

    /// Whether it is of our version and asks for nothing that we do not know (RFC 8684 §3.1): any other is no option.
    #[must_use]
    pub fn is_spoken(&self) -> bool {
        self.version == VERSION && self.hmac_sha256 && !self.extensibility
    }

    /// Lengths 4 (SYN), 12 (SYN/ACK), 20 (ACK), 22 and 24 (first data) for our version. Another
    /// version is reported whatever its length, because the answer to its SYN depends on it.
    fn parse(option: &[u8]) -> Result<Self, Malformed> {
        let len = option.len();
        if len < 4 {
            return Err(Malformed);
        }
        let version = option[2] & 0x0f;
        if version == VERSION && !matches!(len, 4 | 12 | 20 | 22 | 24) {
            return Err(Malformed);
        }
        let flags = option[3];
        Ok(Self {
            version,
            checksum_required: flags & CAPABLE_CHECKSUM != 0,
            extensibility: flags & CAPABLE_EXTENSIBILITY != 0,
            deny_join_initial: flags & CAPABLE_DENY_JOIN != 0,
            hmac_sha256: flags & CAPABLE_HMAC_SHA256 != 0,
            sender_key: (len >= 12).then(|| be64(option, 4)),
            receiver_key: (len >= 20).then(|| be64(option, 12)),
            data_len: (version == VERSION && len >= 22).then(|| be16(option, 20)),
            checksum: (version == VERSION && len == 24).then(|| be16(option, 22)),
        })
    }

    fn wire_len(&self) -> Option<usize> {
        match (self.sender_key, self.receiver_key, self.data_len, self.checksum) {
            (None, None, None, None) => Some(4),
            (Some(_), None, None, None) => Some(12),
            (Some(_), Some(_), None, None) => Some(20),
            (Some(_), Some(_), Some(_), None) => Some(22),
            (Some(_), Some(_), Some(_), Some(_)) => Some(24),
            _ => None,
        }
    }

    fn emit(&self, out: &mut Out) {
        let flags = bit(self.checksum_required, CAPABLE_CHECKSUM)
            | bit(self.extensibility, CAPABLE_EXTENSIBILITY)
            | bit(self.deny_join_initial, CAPABLE_DENY_JOIN)
            | bit(self.hmac_sha256, CAPABLE_HMAC_SHA256);
        out.put(&[&[MP_CAPABLE << 4 | self.version & 0x0f, flags]]);
        for key in [self.sender_key, self.receiver_key].into_iter().flatten() {
            out.put(&[&key.to_be_bytes()]);
        }
        for word in [self.data_len, self.checksum].into_iter().flatten() {
            out.put(&[&word.to_be_bytes()]);
        }
    }
}

impl MpJoin {
    /// The length tells the step: 12 SYN, 16 SYN/ACK, 24 ACK.
    fn parse(option: &[u8]) -> Result<Self, Malformed> {
        let backup = option[2] & JOIN_BACKUP != 0;
        match option.len() {
            12 => Ok(Self::Syn { backup, addr_id: option[3], token: be32(option, 4), nonce: be32(option, 8) }),
            16 => Ok(Self::SynAck { backup, addr_id: option[3], hmac: be64(option, 4), nonce: be32(option, 12) }),
            24 => {
                let mut hmac = [0; 20];
                hmac.copy_from_slice(&option[4..]);
                Ok(Self::Ack { hmac })
            }
            _ => Err(Malformed),
        }
    }

    fn emit(&self, out: &mut Out) {
        match self {
            Self::Syn { backup, addr_id, token, nonce } => {
                out.put(&[&[MP_JOIN << 4 | bit(*backup, JOIN_BACKUP), *addr_id]]);
                out.put(&[&token.to_be_bytes(), &nonce.to_be_bytes()]);
            }
            Self::SynAck { backup, addr_id, hmac, nonce } => {
                out.put(&[&[MP_JOIN << 4 | bit(*backup, JOIN_BACKUP), *addr_id]]);
                out.put(&[&hmac.to_be_bytes(), &nonce.to_be_bytes()]);
            }
            Self::Ack { hmac } => out.put(&[&[MP_JOIN << 4, 0], hmac]),
        }
    }
}

impl Dss {
    /// Flags say which fields there are; two bytes more than they need are the checksum. Without a
    /// mapping these two bytes mean nothing and are passed over, as the kernel does.
    fn parse(option: &[u8]) -> Result<Self, Malformed> {
        if option.len() < 4 {
            return Err(Malformed);
        }
        let flags = option[3];
        let ack_len = field_len(flags, DSS_ACK, DSS_ACK_LONG);
        let dsn_len = field_len(flags, DSS_MAPPING, DSS_DSN_LONG);
        let without_checksum = 4 + ack_len + if dsn_len == 0 { 0 } else { dsn_len + 6 };
        if option.len() != without_checksum && option.len() != without_checksum + 2 {
            return Err(Malformed);
        }
        let ack = match ack_len {
            8 => Some(DataAck::Long(be64(option, 4))),
            4 => Some(DataAck::Short(be32(option, 4))),
            _ => None,
        };
        let at = 4 + ack_len;
        let mapping = (dsn_len != 0).then(|| Mapping {
            dsn: if dsn_len == 8 { be64(option, at) } else { u64::from(be32(option, at)) },
            dsn_long: dsn_len == 8,
            ssn: be32(option, at + dsn_len),
            len: be16(option, at + dsn_len + 4),
            checksum: (option.len() > without_checksum).then(|| be16(option, without_checksum)),
        });
        Ok(Self { ack, mapping, data_fin: flags & DSS_DATA_FIN != 0 })
    }

    fn wire_len(&self) -> usize {
        let ack = match self.ack {
            None => 0,
            Some(DataAck::Short(_)) => 4,
            Some(DataAck::Long(_)) => 8,
        };
        let mapping = self.mapping.map_or(0, |mapping| {
            let dsn = if mapping.dsn_long { 8 } else { 4 };
            dsn + 6 + if mapping.checksum.is_some() { 2 } else { 0 }
        });
        4 + ack + mapping
    }

    fn emit(&self, out: &mut Out) {
        let ack_flags = match self.ack {
            None => 0,
            Some(DataAck::Short(_)) => DSS_ACK,
            Some(DataAck::Long(_)) => DSS_ACK | DSS_ACK_LONG,
        };
        let mapping_flags = self.mapping.map_or(0, |mapping| DSS_MAPPING | bit(mapping.dsn_long, DSS_DSN_LONG));
        out.put(&[&[DSS << 4, ack_flags | mapping_flags | bit(self.data_fin, DSS_DATA_FIN)]]);
        match self.ack {
            None => {}
            Some(DataAck::Short(ack)) => out.put(&[&ack.to_be_bytes()]),
            Some(DataAck::Long(ack)) => out.put(&[&ack.to_be_bytes()]),
        }
        let Some(mapping) = self.mapping else { return };
        if mapping.dsn_long {
            out.put(&[&mapping.dsn.to_be_bytes()]);
        } else {
            out.put(&[&(mapping.dsn as u32).to_be_bytes()]);
        }
        out.put(&[&mapping.ssn.to_be_bytes(), &mapping.len.to_be_bytes()]);
        if let Some(checksum) = mapping.checksum {
            out.put(&[&checksum.to_be_bytes()]);
        }
    }
}

/// Length of a DSS field that is there if `present` is set, and long if `long` is set too.
fn field_len(flags: u8, present: u8, long: u8) -> usize {
    match (flags & present != 0, flags & long != 0) {
        (false, _) => 0,
        (true, false) => 4,
        (true, true) => 8,
    }
}

impl AddAddr {
    /// The echo flag and the length tell family, port and HMAC.
    fn parse(option: &[u8]) -> Result<Self, Malformed> {
        let echo = option[2] & ADDR_ECHO != 0;
        let (v6, has_port) = match (echo, option.len()) {
            (false, 16) | (true, 8) => (false, false),
            (false, 18) | (true, 10) => (false, true),
            (false, 28) | (true, 20) => (true, false),
            (false, 30) | (true, 22) => (true, true),
            _ => return Err(Malformed),
        };
        let (addr, at) = if v6 {
            let mut octets = [0; 16];
            octets.copy_from_slice(&option[4..20]);
            (IpAddr::V6(Ipv6Addr::from(octets)), 20)
        } else {
            (IpAddr::V4(Ipv4Addr::from(be32(option, 4))), 8)
        };
        let hmac_at = if has_port { at + 2 } else { at };
        Ok(Self {
            echo,
            id: option[3],
            addr,
            port: has_port.then(|| be16(option, at)),
            hmac: (!echo).then(|| be64(option, hmac_at)),
        })
    }

    fn wire_len(&self) -> Option<usize> {
        let addr = if self.addr.is_ipv6() { 16 } else { 4 };
        let port = if self.port.is_some() { 2 } else { 0 };
        match (self.echo, self.hmac) {
            (false, Some(_)) => Some(4 + addr + port + 8),
            (true, None) => Some(4 + addr + port),
            _ => None,
        }
    }

    fn emit(&self, out: &mut Out) {
        out.put(&[&[ADD_ADDR << 4 | bit(self.echo, ADDR_ECHO), self.id]]);
        match self.addr {
            IpAddr::V4(addr) => out.put(&[&addr.octets()]),
            IpAddr::V6(addr) => out.put(&[&addr.octets()]),
        }
        if let Some(port) = self.port {
            out.put(&[&port.to_be_bytes()]);
        }
        if let Some(hmac) = self.hmac {
            out.put(&[&hmac.to_be_bytes()]);
        }
    }
}

impl RemoveAddr {
    fn parse(option: &[u8]) -> Result<Self, Malformed> {
        let ids = &option[3..];
        if ids.is_empty() {
            return Err(Malformed);
        }
        Ok(Self { ids: ArrayVec::try_from(ids).map_err(|_| Malformed)? })
    }
}

#[cfg(test)]
pub(super) mod tests;
