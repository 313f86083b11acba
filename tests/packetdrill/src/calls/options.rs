//! Socket options.

use std::os::fd::RawFd;

use crate::errno::{Errno, Result};
use crate::info;
use crate::socket::Stage;
use crate::world::World;

const TCP_INFO: i32 = libc::TCP_INFO;
const TCP_CC_INFO: i32 = 26;
const SO_MEMINFO: i32 = 55;

impl World {
    /// `getsockopt`: the bytes of the value, of which the caller gets as many as it has room for.
    pub(crate) fn get_option(&mut self, fd: RawFd, level: i32, name: i32) -> Result<Vec<u8>> {
        let int = |value: i32| Ok(value.to_ne_bytes().to_vec());
        let socket = self.socket(fd)?;
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_ERROR) => int(socket.take_error().map_or(0, |error| error.0)),
            (libc::SOL_SOCKET, libc::SO_TYPE) => int(libc::SOCK_STREAM),
            (libc::SOL_SOCKET, libc::SO_PROTOCOL) => int(if socket.options.mptcp { 262 } else { libc::IPPROTO_TCP }),
            (libc::SOL_SOCKET, libc::SO_ACCEPTCONN) => int(i32::from(matches!(socket.stage, Stage::Listening(_)))),
            (libc::SOL_SOCKET, SO_MEMINFO) => Ok(info::meminfo(self, fd)),
            (libc::IPPROTO_TCP, TCP_INFO) => Ok(info::tcp_info(self, fd)),
            (libc::IPPROTO_TCP, TCP_CC_INFO) => Ok(Vec::new()),
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => int(i32::from(socket.options.nodelay)),
            _ => match socket.values.get(&(level, name)) {
                Some(value) => Ok(value.clone()),
                None => int(0),
            },
        }
    }

    /// `setsockopt`.
    pub(crate) fn set_option(&mut self, fd: RawFd, level: i32, name: i32, value: &[u8]) -> Result<()> {
        let now = self.now();
        let socket = self.socket(fd)?;
        let int = value.get(..4).map(|bytes| i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        match (level, name) {
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => {
                let nodelay = int.ok_or(Errno::INVALID)? != 0;
                socket.options.nodelay = nodelay;
                if let Some(conn) = socket.conn() {
                    self.shard.set_option(now, conn, anabranch_core::SockOpt::Nodelay(nodelay))?;
                }
            }
            _ => {
                socket.values.insert((level, name), value.to_vec());
            }
        }
        Ok(())
    }
}
