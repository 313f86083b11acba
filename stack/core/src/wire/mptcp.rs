use core::net::IpAddr;

use arrayvec::ArrayVec;

use crate::ResetReason;

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
