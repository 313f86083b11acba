//! The interface that the tool loads: a table of functions in the shape of system calls.
//!
//! Every function here only turns pointers into values and back. Their contract is that of the system call of the
//! same name: pointers are valid for what the call reads and writes.

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::os::fd::RawFd;
use std::time::Duration;

use libc::{epoll_event, iovec, loff_t, msghdr, pollfd, size_t, sockaddr, socklen_t, ssize_t, timeval};

use crate::address::{self, Address};
use crate::buffers::Buffers;
use crate::calls::receive::Direction;
use crate::calls::send::Call;
use crate::control::Control;
use crate::errno::{Errno, Result};
use crate::plugin::{PLUGIN, Wait};
use crate::socket::Stage;
use crate::world::World;

type User = *mut c_void;

/// The table, in the tool's order.
#[repr(C)]
#[derive(Debug)]
#[allow(missing_docs)] // the names of the calls
pub struct Interface {
    pub userdata: User,
    pub free: extern "C" fn(User),
    pub socket: extern "C" fn(User, c_int, c_int, c_int) -> c_int,
    pub bind: unsafe extern "C" fn(User, c_int, *const sockaddr, socklen_t) -> c_int,
    pub listen: extern "C" fn(User, c_int, c_int) -> c_int,
    pub accept: unsafe extern "C" fn(User, c_int, *mut sockaddr, *mut socklen_t) -> c_int,
    pub connect: unsafe extern "C" fn(User, c_int, *const sockaddr, socklen_t) -> c_int,
    pub read: unsafe extern "C" fn(User, c_int, *mut c_void, size_t) -> ssize_t,
    pub readv: unsafe extern "C" fn(User, c_int, *const iovec, c_int) -> ssize_t,
    pub recv: unsafe extern "C" fn(User, c_int, *mut c_void, size_t, c_int) -> ssize_t,
    pub recvfrom:
        unsafe extern "C" fn(User, c_int, *mut c_void, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t,
    pub recvmsg: unsafe extern "C" fn(User, c_int, *mut msghdr, c_int) -> ssize_t,
    pub write: unsafe extern "C" fn(User, c_int, *const c_void, size_t) -> ssize_t,
    pub writev: unsafe extern "C" fn(User, c_int, *const iovec, c_int) -> ssize_t,
    pub send: unsafe extern "C" fn(User, c_int, *const c_void, size_t, c_int) -> ssize_t,
    pub sendto: unsafe extern "C" fn(User, c_int, *const c_void, size_t, c_int, *const sockaddr, socklen_t) -> ssize_t,
    pub sendmsg: unsafe extern "C" fn(User, c_int, *const msghdr, c_int) -> ssize_t,
    pub fcntl: extern "C" fn(User, c_int, c_int, c_long) -> c_int,
    pub ioctl: unsafe extern "C" fn(User, c_int, c_ulong, *mut c_int) -> c_int,
    pub close: extern "C" fn(User, c_int) -> c_int,
    pub shutdown: extern "C" fn(User, c_int, c_int) -> c_int,
    pub getsockopt: unsafe extern "C" fn(User, c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int,
    pub setsockopt: unsafe extern "C" fn(User, c_int, c_int, c_int, *const c_void, socklen_t) -> c_int,
    pub poll: unsafe extern "C" fn(User, *mut pollfd, c_ulong, c_int) -> c_int,
    pub netdev_send: unsafe extern "C" fn(User, *const c_void, size_t) -> c_int,
    pub netdev_receive: unsafe extern "C" fn(User, *mut c_void, *mut size_t, *mut i64) -> c_int,
    pub usleep: extern "C" fn(User, c_uint) -> c_int,
    pub gettimeofday: unsafe extern "C" fn(User, *mut timeval, *mut c_void) -> c_int,
    pub epoll_create: extern "C" fn(User, c_int) -> c_int,
    pub epoll_ctl: unsafe extern "C" fn(User, c_int, c_int, c_int, *mut epoll_event) -> c_int,
    pub epoll_wait: unsafe extern "C" fn(User, c_int, *mut epoll_event, c_int, c_int) -> c_int,
    pub pipe: unsafe extern "C" fn(User, *mut c_int) -> c_int,
    pub splice: unsafe extern "C" fn(User, c_int, *mut loff_t, c_int, *mut loff_t, size_t, c_uint) -> ssize_t,
}

/// Fills in the table. `flags` is the text of `--so_flags`, or null.
///
/// # Safety
/// `flags` is null or a string; `out` points to room for an [`Interface`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn packetdrill_interface_init(flags: *const c_char, out: *mut Interface) {
    let flags = if flags.is_null() {
        String::new()
    } else {
        // SAFETY: a string, says the caller.
        unsafe { CStr::from_ptr(flags) }.to_string_lossy().into_owned()
    };
    PLUGIN.begin(&flags);
    let table = Interface {
        userdata: core::ptr::null_mut(),
        free,
        socket,
        bind,
        listen,
        accept,
        connect,
        read,
        readv,
        recv,
        recvfrom,
        recvmsg,
        write,
        writev,
        send,
        sendto,
        sendmsg,
        fcntl,
        ioctl,
        close,
        shutdown,
        getsockopt,
        setsockopt,
        poll,
        netdev_send,
        netdev_receive,
        usleep,
        gettimeofday,
        epoll_create,
        epoll_ctl,
        epoll_wait,
        pipe,
        splice,
    };
    // SAFETY: there is room, says the caller.
    unsafe { out.write(table) };
}

/// A result as C has it.
pub(crate) trait ToC<C> {
    fn to_c(self) -> C;
}

impl ToC<c_int> for Result<()> {
    fn to_c(self) -> c_int {
        self.map(|()| 0).to_c()
    }
}

impl ToC<c_int> for Result<c_int> {
    fn to_c(self) -> c_int {
        self.unwrap_or_else(|errno| {
            errno.set();
            -1
        })
    }
}

impl ToC<ssize_t> for Result<usize> {
    fn to_c(self) -> ssize_t {
        match self {
            Ok(len) => len as ssize_t,
            Err(errno) => {
                errno.set();
                -1
            }
        }
    }
}

extern "C" fn free(_: User) {}

extern "C" fn socket(_: User, domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    PLUGIN.run(|world| world.make_socket(domain, kind, protocol)).to_c()
}

unsafe extern "C" fn bind(_: User, fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: as the call's contract says.
    let addr = unsafe { address::read(addr, len) };
    PLUGIN.run(|world| world.bind(fd, addr?)).to_c()
}

extern "C" fn listen(_: User, fd: c_int, backlog: c_int) -> c_int {
    PLUGIN.run(|world| world.listen(fd, backlog)).to_c()
}

unsafe extern "C" fn accept(_: User, fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    let wait = PLUGIN.run(|world| world.patience(fd, 0, Direction::Receive));
    let accepted = PLUGIN.wait(wait, |world| world.accept(fd));
    accepted
        .map(|(new, family, peer)| {
            // SAFETY: as the call's contract says.
            unsafe { address::write(family, peer, addr, len) };
            new
        })
        .to_c()
}

unsafe extern "C" fn connect(_: User, fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: as the call's contract says.
    let addr = unsafe { address::read(addr, len) };
    let begun = PLUGIN.run(|world| world.connect(fd, addr?));
    let wait = PLUGIN.run(|world| world.patience(fd, 0, Direction::Send));
    if begun != Err(Errno(libc::EINPROGRESS)) || wait == Wait::Never {
        return begun.to_c();
    }
    match PLUGIN.wait(wait, |world| world.connected(fd)) {
        // `SO_SNDTIMEO` has passed.
        Err(Errno::AGAIN) => begun.to_c(),
        result => result.to_c(),
    }
}

/// The pieces of an `iovec`.
///
/// # Safety
/// `iov` points to `count` of them.
unsafe fn pieces(iov: *const iovec, count: usize) -> Vec<(*mut u8, usize)> {
    if iov.is_null() || count == 0 {
        return Vec::new();
    }
    // SAFETY: says the caller.
    let iov = unsafe { core::slice::from_raw_parts(iov, count) };
    iov.iter().map(|piece| (piece.iov_base.cast(), piece.iov_len)).collect()
}

fn receive(fd: RawFd, mut buffers: Buffers, flags: c_int) -> Result<usize> {
    if flags & libc::MSG_ERRQUEUE != 0 {
        return PLUGIN.run(|world| world.take_note(fd)).map(|_| 0);
    }
    let wait = PLUGIN.run(|world| world.patience(fd, flags, Direction::Receive));
    match PLUGIN.wait(wait, |world| world.receive(fd, &mut buffers, flags, wait)) {
        Err(Errno::AGAIN) if buffers.done() > 0 => Ok(buffers.done()),
        result => result,
    }
}

fn transmit(fd: RawFd, mut buffers: Buffers, flags: c_int) -> Result<usize> {
    let wait = PLUGIN.run(|world| world.patience(fd, flags, Direction::Send));
    transmit_rest(fd, &mut buffers, flags, wait)
}

/// Sends, and with `MSG_FASTOPEN` connects first.
fn transmit_to(fd: RawFd, mut buffers: Buffers, flags: c_int, to: Result<Address>) -> Result<usize> {
    if flags & libc::MSG_FASTOPEN == 0 {
        return transmit(fd, buffers, flags);
    }
    let wait = PLUGIN.run(|world| world.patience(fd, flags, Direction::Send));
    PLUGIN.run(|world| world.connect_with(fd, to.unwrap_or(Address::None), &mut buffers, flags))?;
    let opening = PLUGIN.run(|world| world.socket(fd).map(|socket| matches!(socket.stage, Stage::Connecting(_))))?;
    match (opening, wait, buffers.done()) {
        (true, Wait::Never, 0) => return Err(Errno(libc::EINPROGRESS)),
        (true, Wait::Never, taken) => return Ok(taken),
        (true, ..) => match PLUGIN.wait(wait, |world| {
            world.wait_to_write(fd, &buffers);
            world.connected(fd)
        }) {
            Err(Errno::AGAIN) => return Err(Errno(libc::EINPROGRESS)),
            result => result?,
        },
        (false, ..) => {}
    }
    transmit_rest(fd, &mut buffers, flags, wait)
}

fn transmit_rest(fd: RawFd, buffers: &mut Buffers, flags: c_int, wait: Wait) -> Result<usize> {
    let mut call = Call::new(flags, wait);
    match PLUGIN.wait(wait, |world| world.send(fd, buffers, &mut call)) {
        Err(_) if buffers.done() > 0 && call.opened => Ok(buffers.done()),
        result => result,
    }
}

/// Sends bytes of our own.
pub(crate) fn transmit_all(fd: RawFd, mut bytes: Vec<u8>) -> Result<usize> {
    // SAFETY: the bytes are there until the call is done.
    transmit(fd, unsafe { Buffers::new([(bytes.as_mut_ptr(), bytes.len())]) }, 0)
}

unsafe extern "C" fn read(_: User, fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t {
    // SAFETY: as the call's contract says.
    receive(fd, unsafe { Buffers::new([(buf.cast(), len)]) }, 0).to_c()
}

unsafe extern "C" fn readv(_: User, fd: c_int, iov: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: as the call's contract says.
    receive(fd, unsafe { Buffers::new(pieces(iov, count.max(0) as usize)) }, 0).to_c()
}

unsafe extern "C" fn recv(_: User, fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: as the call's contract says.
    receive(fd, unsafe { Buffers::new([(buf.cast(), len)]) }, flags).to_c()
}

unsafe extern "C" fn recvfrom(
    _: User,
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    _from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    // SAFETY: as the call's contract says.
    let result = receive(fd, unsafe { Buffers::new([(buf.cast(), len)]) }, flags);
    if !from_len.is_null() && result.is_ok() {
        // SAFETY: as the call's contract says. A stream has no sender's address.
        unsafe { *from_len = 0 };
    }
    result.to_c()
}

unsafe extern "C" fn recvmsg(_: User, fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: as the call's contract says.
    let msg = unsafe { &mut *msg };
    // SAFETY: as above.
    let buffers = unsafe { Buffers::new(pieces(msg.msg_iov, msg.msg_iovlen)) };
    if flags & libc::MSG_ERRQUEUE != 0 {
        let note = PLUGIN.run(|world| world.take_note(fd));
        return note
            .map(|note| {
                msg.msg_flags = libc::MSG_ERRQUEUE | if note.truncated { libc::MSG_TRUNC } else { 0 };
                // SAFETY: as the call's contract says.
                unsafe { put_control(msg, &note.control) };
                0
            })
            .to_c();
    }
    let result = receive(fd, buffers, flags);
    if result.is_ok() {
        msg.msg_flags = 0;
        let control = PLUGIN.run(|world| world.notes_on_reading(fd)).unwrap_or_default();
        // SAFETY: as the call's contract says.
        unsafe { put_control(msg, &control) };
    }
    result.to_c()
}

/// Hands control messages to the caller. A stream has no sender's address.
///
/// # Safety
/// As many bytes may be written to `msg_control` as `msg_controllen` says.
unsafe fn put_control(msg: &mut msghdr, control: &Control) {
    let bytes = control.bytes();
    msg.msg_namelen = 0;
    if msg.msg_control.is_null() || msg.msg_controllen < bytes.len() {
        msg.msg_flags |= if bytes.is_empty() { 0 } else { libc::MSG_CTRUNC };
        msg.msg_controllen = 0;
        return;
    }
    // SAFETY: there is room, says the caller.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), msg.msg_control.cast::<u8>(), bytes.len()) };
    msg.msg_controllen = bytes.len();
}

unsafe extern "C" fn write(_: User, fd: c_int, buf: *const c_void, len: size_t) -> ssize_t {
    // SAFETY: as the call's contract says; nothing is put into buffers to be sent.
    transmit(fd, unsafe { Buffers::new([(buf.cast_mut().cast(), len)]) }, 0).to_c()
}

unsafe extern "C" fn writev(_: User, fd: c_int, iov: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: as the call's contract says.
    transmit(fd, unsafe { Buffers::new(pieces(iov, count.max(0) as usize)) }, 0).to_c()
}

unsafe extern "C" fn send(_: User, fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: as the call's contract says.
    transmit(fd, unsafe { Buffers::new([(buf.cast_mut().cast(), len)]) }, flags).to_c()
}

unsafe extern "C" fn sendto(
    _: User,
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_len: socklen_t,
) -> ssize_t {
    // SAFETY: as the call's contract says.
    let (buffers, to) = unsafe { (Buffers::new([(buf.cast_mut().cast(), len)]), address::read(to, to_len)) };
    transmit_to(fd, buffers, flags, to).to_c()
}

unsafe extern "C" fn sendmsg(_: User, fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: as the call's contract says.
    let (buffers, to) = unsafe {
        let to = address::read((*msg).msg_name.cast(), (*msg).msg_namelen);
        (Buffers::new(pieces((*msg).msg_iov, (*msg).msg_iovlen)), to)
    };
    transmit_to(fd, buffers, flags, to).to_c()
}

extern "C" fn fcntl(_: User, fd: c_int, command: c_int, argument: c_long) -> c_int {
    PLUGIN
        .run(|world| {
            let socket = world.socket(fd)?;
            match command {
                libc::F_GETFL => Ok(libc::O_RDWR | if socket.nonblocking { libc::O_NONBLOCK } else { 0 }),
                libc::F_SETFL => {
                    socket.nonblocking = argument as c_int & libc::O_NONBLOCK != 0;
                    Ok(0)
                }
                _ => Err(Errno::INVALID),
            }
        })
        .to_c()
}

unsafe extern "C" fn ioctl(_: User, fd: c_int, request: c_ulong, out: *mut c_int) -> c_int {
    let value = PLUGIN.run(|world| match request {
        libc::FIONREAD => world.unread(fd),
        libc::TIOCOUTQ => world.unacknowledged(fd),
        _ => Err(Errno::INVALID),
    });
    value
        .map(|value| {
            // SAFETY: as the call's contract says.
            unsafe { *out = value as c_int };
            0
        })
        .to_c()
}

extern "C" fn close(_: User, fd: c_int) -> c_int {
    PLUGIN.run(|world| world.close(fd)).to_c()
}

extern "C" fn shutdown(_: User, fd: c_int, how: c_int) -> c_int {
    PLUGIN.run(|world| world.shutdown(fd, how)).to_c()
}

/// `getsockopt`, also for the preloaded one.
///
/// # Safety
/// As the call's contract says.
pub(crate) unsafe extern "C" fn getsockopt(
    _: User,
    fd: c_int,
    level: c_int,
    name: c_int,
    out: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    if len.is_null() || out.is_null() {
        return Err::<c_int, _>(Errno::FAULT).to_c();
    }
    PLUGIN
        .run(|world| world.get_option(fd, level, name))
        .map(|value| {
            // SAFETY: `len` says how much room there is at `out`.
            unsafe {
                let copied = value.len().min(*len as usize);
                core::ptr::copy_nonoverlapping(value.as_ptr(), out.cast::<u8>(), copied);
                *len = copied as socklen_t;
            }
            0
        })
        .to_c()
}

unsafe extern "C" fn setsockopt(
    _: User,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    if value.is_null() && len > 0 {
        return Err::<c_int, _>(Errno::FAULT).to_c();
    }
    // SAFETY: as the call's contract says.
    let value = unsafe { core::slice::from_raw_parts(value.cast::<u8>(), len as usize) };
    PLUGIN.run(|world| world.set_option(fd, level, name, value)).to_c()
}

/// A time in milliseconds as `poll` takes it.
fn timeout(ms: c_int) -> Wait {
    match u64::try_from(ms) {
        Ok(0) => Wait::Never,
        Ok(ms) => Wait::For(Duration::from_millis(ms)),
        Err(_) => Wait::Forever,
    }
}

unsafe extern "C" fn poll(_: User, fds: *mut pollfd, count: c_ulong, ms: c_int) -> c_int {
    // SAFETY: as the call's contract says.
    let fds = unsafe { core::slice::from_raw_parts_mut(fds, count as usize) };
    let ready = PLUGIN.wait(timeout(ms), |world| match world.poll(fds) {
        0 => Err(Errno::AGAIN),
        ready => Ok(ready as c_int),
    });
    ready.unwrap_or(0)
}

unsafe extern "C" fn netdev_send(_: User, buf: *const c_void, len: size_t) -> c_int {
    // SAFETY: as the call's contract says.
    let bytes = unsafe { core::slice::from_raw_parts(buf.cast::<u8>(), len) };
    PLUGIN.run(|world| world.inject(bytes));
    0
}

unsafe extern "C" fn netdev_receive(_: User, buf: *mut c_void, len: *mut size_t, micros: *mut i64) -> c_int {
    // SAFETY: `len` says how much room there is at `buf`; `micros` may be written.
    unsafe {
        match PLUGIN.next_packet() {
            Some(packet) => {
                let copied = packet.bytes.len().min(*len);
                core::ptr::copy_nonoverlapping(packet.bytes.as_ptr(), buf.cast::<u8>(), copied);
                *len = copied;
                *micros = packet.at.as_micros() as i64;
            }
            None => *len = 0,
        }
    }
    0
}

extern "C" fn usleep(_: User, micros: c_uint) -> c_int {
    PLUGIN.pass(Duration::from_micros(micros.into()));
    0
}

unsafe extern "C" fn gettimeofday(_: User, out: *mut timeval, _zone: *mut c_void) -> c_int {
    let now = PLUGIN.time_of_day();
    if !out.is_null() {
        let value = timeval { tv_sec: now.as_secs() as i64, tv_usec: i64::from(now.subsec_micros()) };
        // SAFETY: as the call's contract says.
        unsafe { out.write(value) };
    }
    0
}

extern "C" fn epoll_create(_: User, size: c_int) -> c_int {
    PLUGIN.run(|world| if size > 0 { world.make_epoll() } else { Err(Errno::INVALID) }).to_c()
}

unsafe extern "C" fn epoll_ctl(_: User, set: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
    // SAFETY: as the call's contract says.
    let event = unsafe { event.as_ref() }.map(|event| (event.events, event.u64));
    PLUGIN.run(|world| world.epoll_ctl(set, op, fd, event)).to_c()
}

unsafe extern "C" fn epoll_wait(_: User, set: c_int, out: *mut epoll_event, max: c_int, ms: c_int) -> c_int {
    let Some(max) = usize::try_from(max).ok().filter(|&max| max > 0) else {
        return Err::<c_int, _>(Errno::INVALID).to_c();
    };
    let ready = PLUGIN.wait(timeout(ms), |world| match world.epoll_ready(set, max) {
        Ok(ready) if ready.is_empty() => Err(Errno::AGAIN),
        result => result,
    });
    let ready = match ready {
        Err(Errno::AGAIN) => Ok(Vec::new()),
        result => result,
    };
    ready
        .map(|ready| {
            for (at, &(events, data)) in ready.iter().enumerate() {
                // SAFETY: there is room for `max` of them, and no more are ready.
                unsafe { out.add(at).write(epoll_event { events, u64: data }) };
            }
            ready.len() as c_int
        })
        .to_c()
}

unsafe extern "C" fn pipe(_: User, out: *mut c_int) -> c_int {
    PLUGIN
        .run(World::make_pipe)
        // SAFETY: as the call's contract says.
        .map(|[reader, writer]| unsafe {
            out.write(reader);
            out.add(1).write(writer);
        })
        .to_c()
}

unsafe extern "C" fn splice(
    _: User,
    from: c_int,
    _from_offset: *mut loff_t,
    to: c_int,
    _to_offset: *mut loff_t,
    len: size_t,
    _flags: c_uint,
) -> ssize_t {
    let wait = PLUGIN.run(|world| world.patience(from, 0, Direction::Receive));
    PLUGIN.wait(wait, |world| world.splice(from, to, len)).to_c()
}
