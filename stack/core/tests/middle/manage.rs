//! What happens to paths, and settings that change.

use std::time::Duration;

use anabranch_core::{Limits, SockOpt, cc, sched};

use super::program::{Dialect, Program};
use super::{Middle, forge};

impl Middle {
    /// Something that only programs of the rich dialect ask for.
    pub(super) fn manage(&mut self, who: usize, program: &mut Program<'_>) {
        let path = program.below(self.paths.into());
        let kinds = if self.dialect == Dialect::Moving { 16 } else { 12 };
        match program.below(kinds) {
            what @ 0..=3 => {
                // A path breaks or is mended, one way or both.
                let ways = program.byte();
                for (to, dark) in self.dark.iter_mut().enumerate() {
                    if ways & 1 << to != 0 {
                        dark[path] = what < 2;
                    }
                }
            }
            4 | 5 => {
                // An address vanishes or appears, is withdrawn or announced.
                self.harsh = true;
                self.sides[who].set_path_up(self.now, path as u16, program.byte() & 1 == 0);
            }
            6 => {
                self.wires[who].make_contiguous().reverse();
            }
            7 => {
                for packet in self.wires[who].clone() {
                    self.put(who, packet);
                }
            }
            8 => {
                // An option goes missing anywhere: bytes stay right, whoever has to fall back or to give up. A checksum that
                // damage made wrong must stay so.
                self.harsh = true;
                if let Some(packet) = self.wires[who].front_mut().filter(|packet| !packet.damaged) {
                    forge::strip(&mut packet.bytes);
                }
            }
            what @ 12.. => self.move_about(who, what, path as u16, program),
            9 => self.wait(Duration::from_secs(1 << program.below(8))),
            _ => self.set_option(who, program),
        }
    }

    /// A path or an address comes or goes for good.
    fn move_about(&mut self, who: usize, what: usize, path: u16, program: &mut Program<'_>) {
        self.harsh = true;
        let side = &mut self.sides[who];
        let choice = program.byte();
        match what {
            // More often there than not.
            12 if choice & 3 == 0 => side.remove_path(self.now, path),
            12 | 13 => side.add_path(self.now, path, choice & 4 == 0),
            14 if choice & 3 == 0 => side.remove_address(self.now, path),
            // Not always to the path that it was on.
            _ => side.add_address(self.now, path, program.below(self.paths.into()) as u16),
        }
    }

    fn set_option(&mut self, who: usize, program: &mut Program<'_>) {
        let index = program.below(self.sides[who].apps.len());
        let Some(app) = self.sides[who].apps.get(index) else { return };
        let id = app.id;
        let name = |names: &str, n: usize| names.split(", ").nth(n).unwrap_or("minrtt").to_owned();
        let bytes = 2_048 + program.size() as u32;
        let option = match program.below(12) {
            0 => SockOpt::Scheduler(name(sched::NAMES, program.below(5))),
            1 => SockOpt::Congestion(name(cc::NAMES, program.below(4))),
            2 => SockOpt::Limits(Limits { subflows: program.byte() & 7, add_addr_accepted: program.byte() & 7 }),
            3 => SockOpt::Cork(program.byte() & 1 == 0),
            4 => SockOpt::Quickack(program.byte() & 1 == 0),
            5 => SockOpt::Sndbuf(Some(bytes)),
            6 => SockOpt::NotsentLowat(bytes),
            7 => SockOpt::WindowClamp(Some(bytes)),
            8 => SockOpt::MaxPacingRate(Some(u64::from(bytes) * 100)),
            9 => SockOpt::Keepalive(program.byte() & 1 == 0),
            10 => SockOpt::Rcvlowat(bytes),
            _ => SockOpt::Nodelay(program.byte() & 1 == 0),
        };
        // The connection may be over already, or the limits too large: then it is an error, which is fine.
        let _ = self.sides[who].shard.set_option(self.now, id, option);
    }
}
