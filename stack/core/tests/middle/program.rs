use anabranch_core::EndpointFlags;

/// Which steps a program can ask for. Programs that once found something are bound to theirs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// What happens to packets, and what applications do.
    Plain,
    /// Also what happens to paths, and settings that change.
    Rich,
    /// Also paths and addresses that are removed and added.
    Moving,
}

/// A program: bytes that say what happens next. When they run out, zeros follow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program<'a>(&'a [u8]);

impl<'a> Program<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let (&byte, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        byte
    }

    pub(crate) fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// A number of `0..n`; 0 if `n` is 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    /// A size from 1 to 128 KiB, small ones as likely as large ones.
    pub(crate) fn size(&mut self) -> usize {
        let byte = self.byte();
        (1 << (byte & 0x0f)) + (usize::from(byte >> 4) << (byte & 0x0f) >> 3)
    }
}

/// What a run is made of: the first bytes of a program.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Nobody forges anything: packets are only lost, late, doubled, damaged or out of order.
    pub(crate) honest: bool,
    pub(crate) v6: bool,
    pub(crate) mptcp: [bool; 2],
    pub(crate) paths: u16,
    /// Super-segments are cut up on the way.
    pub(crate) split: bool,
    pub(crate) gso_max: u32,
    pub(crate) mtu: u16,
    pub(crate) buffer_max: u32,
    pub(crate) scheduler: &'static str,
    pub(crate) congestion: &'static str,
    pub(crate) nodelay: bool,
    /// What the path managers may do with the second path's addresses.
    pub(crate) flags: [EndpointFlags; 2],
    pub(crate) manager: [&'static str; 2],
    pub(crate) checksum: [bool; 2],
    pub(crate) dialect: Dialect,
}

impl Setup {
    pub(crate) fn read(program: &mut Program<'_>, dialect: Dialect) -> Self {
        let plain = Self::plain(program);
        if dialect == Dialect::Plain {
            return plain;
        }
        let (a, b) = (program.byte(), program.byte());
        let manager = |bits: u8| ["endpoints", "endpoints", "fullmesh", "ndiffports"][usize::from(bits & 3)];
        Self {
            paths: plain.paths + u16::from(a & 1),
            manager: [manager(b), manager(b >> 2)],
            checksum: [a & 2 != 0, a & 4 != 0],
            congestion: ["cubic", "reno", "bbr", "dctcp"][usize::from(a >> 3 & 3)],
            dialect,
            ..plain
        }
    }

    fn plain(program: &mut Program<'_>) -> Self {
        let a = program.byte();
        let b = program.byte();
        let c = program.byte();
        let bit = |byte: u8, bit: u8| byte & 1 << bit != 0;
        let subflow = EndpointFlags { subflow: true, ..EndpointFlags::default() };
        let signal = EndpointFlags { signal: true, ..EndpointFlags::default() };
        let flags = match b >> 6 {
            0 => [EndpointFlags::default(); 2],
            1 => [subflow, EndpointFlags::default()],
            2 => [EndpointFlags::default(), signal],
            _ => [EndpointFlags { backup: true, ..subflow }, signal],
        };
        Self {
            honest: bit(a, 0),
            v6: bit(a, 1),
            // One run in four speaks plain TCP on either side.
            mptcp: match a >> 2 & 7 {
                0 => [false, true],
                1 => [true, false],
                _ => [true, true],
            },
            paths: if bit(a, 5) { 2 } else { 1 },
            split: bit(a, 6),
            gso_max: if bit(a, 7) { 65_535 - 100 } else { 0 },
            mtu: [1500, 1280, 9000, 576][usize::from(c & 3)].max(if bit(a, 1) { 1280 } else { 576 }),
            buffer_max: [15 << 20, 64 << 10, 4 << 10, 1 << 20][usize::from(c >> 2 & 3)],
            scheduler: ["minrtt", "linux", "roundrobin", "redundant", "backup"][usize::from(b & 0x0f) % 5],
            congestion: ["cubic", "reno"][usize::from(b >> 4 & 1)],
            nodelay: bit(b, 5),
            flags,
            manager: ["endpoints"; 2],
            checksum: [false; 2],
            dialect: Dialect::Plain,
        }
    }
}
