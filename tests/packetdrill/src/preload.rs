//! What the library puts in the C library's place when it is preloaded.
//!
//! The tool calls a few functions directly, with descriptors that it has from us. All other descriptors go on to the
//! kernel.

use std::env;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use libc::{off_t, size_t, socklen_t, ssize_t};

use crate::errno::{Errno, Result};
use crate::handle;
use crate::interface::{self, ToC};
use crate::plugin::PLUGIN;

/// The command that forgets what is known of destinations, Fast Open's cookies among it.
const FLUSH: &[u8] = b"tcp_metrics flush";

/// `getsockopt`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    out: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    if handle::is_ours(fd) {
        // SAFETY: the same contract.
        return unsafe { interface::getsockopt(core::ptr::null_mut(), fd, level, name, out, len) };
    }
    // SAFETY: the same contract.
    unsafe { libc::syscall(libc::SYS_getsockopt, fd, level, name, out, len) as c_int }
}

/// `close`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn close(fd: c_int) -> c_int {
    if handle::is_ours(fd) {
        return PLUGIN.run(|world| world.close(fd)).to_c();
    }
    handle::close_descriptor(fd).to_c()
}

/// `sendfile`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sendfile(to: c_int, from: c_int, offset: *mut off_t, len: size_t) -> ssize_t {
    if !handle::is_ours(to) {
        // SAFETY: the same contract.
        return unsafe { libc::syscall(libc::SYS_sendfile, to, from, offset, len) as ssize_t };
    }
    // SAFETY: null, or an offset.
    let at = unsafe { offset.as_ref() }.copied();
    let result = read_file(from, at, len).and_then(|bytes| interface::transmit_all(to, bytes));
    if let (Ok(sent), false) = (result, offset.is_null()) {
        // SAFETY: not null, so an offset.
        unsafe { *offset += sent as off_t };
    }
    result.to_c()
}

/// Up to `len` bytes of a file, from `at` or from where it stands.
fn read_file(fd: c_int, at: Option<off_t>, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    // SAFETY: there is room for as much as is asked for.
    let got = unsafe {
        match at {
            Some(at) => libc::pread(fd, bytes.as_mut_ptr().cast(), len, at),
            None => libc::read(fd, bytes.as_mut_ptr().cast(), len),
        }
    };
    bytes.truncate(usize::try_from(got).map_err(|_| Errno::last())?);
    Ok(bytes)
}

/// `system`: the command may change the namespace, so it is looked at again afterwards.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn system(command: *const c_char) -> c_int {
    if command.is_null() {
        return 1;
    }
    // SAFETY: a string, says the caller.
    let command = unsafe { CStr::from_ptr(command) };
    PLUGIN.before_command();
    // What the command starts has no use for this library.
    let status =
        Command::new("/bin/sh").arg("-c").arg(OsStr::from_bytes(command.to_bytes())).env_remove("LD_PRELOAD").status();
    PLUGIN.after_command();
    // Cookies are the stack's, and the kernel knows none of them: of this command nothing else would be seen.
    if command.to_bytes().windows(FLUSH.len()).any(|part| part == FLUSH) {
        PLUGIN.run(|world| world.shard.forget_fastopen());
    }
    match status {
        Ok(status) => status.into_raw(),
        Err(error) => {
            Errno(error.raw_os_error().unwrap_or(libc::EAGAIN)).set();
            -1
        }
    }
}

/// Where the counters go before a command runs, for the `nstat` in its path.
pub(crate) fn counters_file() -> Option<std::path::PathBuf> {
    env::var_os("ANABRANCH_COUNTERS").map(Into::into)
}
