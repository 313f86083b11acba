//! The library through its C interface, as the tool uses it: loaded at run time, packets by hand.

use std::ffi::{CString, c_char, c_int, c_void};
use std::mem::transmute;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::sync::LazyLock;
use std::thread;

use anabranch_frame::checksum;

const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const PORT: u16 = 8080;
const PEER_PORT: u16 = 40_000;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// Places of the calls in the tool's table; the first word of it is the user's data.
const SOCKET: usize = 2;
const BIND: usize = 3;
const LISTEN: usize = 4;
const ACCEPT: usize = 5;
const READ: usize = 7;
const WRITE: usize = 12;
const FCNTL: usize = 17;
const CLOSE: usize = 19;
const GETSOCKOPT: usize = 21;
const NETDEV_SEND: usize = 24;
const NETDEV_RECEIVE: usize = 25;
const USLEEP: usize = 26;
const GETTIMEOFDAY: usize = 27;
const CALLS: usize = 33;

type User = *mut c_void;
const USER: User = core::ptr::null_mut();

/// The tool's table, as words.
struct Table([usize; CALLS]);

/// Loads the library and has the table filled in. Once: there is one stack in a process.
static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let library = [&*folder, folder.parent().unwrap()].map(|folder| folder.join("libanabranch_packetdrill.so"));
    let library = library.iter().find(|path| path.is_file()).expect("the library is built with its tests");
    let path = CString::new(library.as_os_str().as_bytes()).unwrap();
    let mut table = Table([0; CALLS]);
    // SAFETY: the library's entry point has this signature, and the table is as long as the tool's.
    unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        assert!(!handle.is_null(), "{}", library.display());
        let init = libc::dlsym(handle, c"packetdrill_interface_init".as_ptr());
        assert!(!init.is_null());
        let init: unsafe extern "C" fn(*const c_char, *mut usize) = transmute(init);
        init(c"local_ip=192.0.2.1, mtu=1500".as_ptr(), table.0.as_mut_ptr());
    }
    assert!(table.0[1..].iter().all(|&call| call != 0), "every call has a function");
    table
});

/// A call of the table with up to five words as arguments.
fn call(index: usize, args: [usize; 5]) -> isize {
    // SAFETY: integers and pointers travel in the same registers; surplus arguments are not looked at; what the
    // pointers point to outlives the call.
    let call: unsafe extern "C" fn(User, usize, usize, usize, usize, usize) -> isize =
        unsafe { transmute(TABLE.0[index]) };
    let [a, b, c, d, e] = args;
    // SAFETY: as above.
    unsafe { call(USER, a, b, c, d, e) }
}

/// A call that gives an `int`.
fn int_call(index: usize, args: [usize; 5]) -> c_int {
    call(index, args) as c_int
}

fn now_micros() -> u64 {
    let mut time = [0u64; 2];
    assert_eq!(int_call(GETTIMEOFDAY, [time.as_mut_ptr() as usize, 0, 0, 0, 0]), 0);
    time[0] * 1_000_000 + time[1]
}

/// A TCP segment of the peer.
fn inject(flags: u8, seq: u32, ack: u32, payload: &[u8]) {
    let total = 40 + payload.len();
    let mut packet = vec![0u8; 40];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    (packet[8], packet[9]) = (64, 6);
    packet[12..16].copy_from_slice(&PEER.octets());
    packet[16..20].copy_from_slice(&OURS.octets());
    let sum = !checksum::sum_be(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..22].copy_from_slice(&PEER_PORT.to_be_bytes());
    packet[22..24].copy_from_slice(&PORT.to_be_bytes());
    packet[24..28].copy_from_slice(&seq.to_be_bytes());
    packet[28..32].copy_from_slice(&ack.to_be_bytes());
    (packet[32], packet[33]) = (0x50, flags);
    packet[34..36].copy_from_slice(&10_000u16.to_be_bytes());
    packet.extend(payload);
    let mut pseudo = packet[12..20].to_vec();
    pseudo.extend([0, 6]);
    pseudo.extend(((total - 20) as u16).to_be_bytes());
    pseudo.extend(&packet[20..]);
    let sum = !checksum::sum_be(&pseudo);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(int_call(NETDEV_SEND, [packet.as_ptr() as usize, packet.len(), 0, 0, 0]), 0);
}

/// What the stack sent.
#[derive(Debug)]
struct Segment {
    flags: u8,
    seq: u32,
    ack: u32,
    payload: Vec<u8>,
    micros: u64,
}

/// The next packet, whenever it comes.
fn receive() -> Segment {
    let (mut packet, mut len, mut micros) = (vec![0u8; 2048], 2048usize, 0u64);
    let args = [packet.as_mut_ptr() as usize, &raw mut len as usize, &raw mut micros as usize, 0, 0];
    assert_eq!(int_call(NETDEV_RECEIVE, args), 0);
    assert!(len >= 40, "a packet was to come");
    packet.truncate(len);
    let word = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
    assert_eq!(!checksum::sum_be(&packet[..20]), 0, "the IP header's checksum is right");
    let options = usize::from(packet[32] >> 4) * 4;
    let payload = packet[20 + options..].to_vec();
    Segment { flags: packet[33], seq: word(24), ack: word(28), payload, micros }
}

fn listener() -> usize {
    let fd = int_call(SOCKET, [libc::AF_INET as usize, libc::SOCK_STREAM as usize, 6, 0, 0]);
    assert!(fd >= 0);
    let mut addr = [0u8; 16];
    addr[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    addr[2..4].copy_from_slice(&PORT.to_be_bytes());
    assert_eq!(int_call(BIND, [fd as usize, addr.as_ptr() as usize, addr.len(), 0, 0]), 0);
    assert_eq!(int_call(LISTEN, [fd as usize, 1, 0, 0, 0]), 0);
    fd as usize
}

#[test]
fn a_conversation_takes_place_in_virtual_time() {
    // Given a listener, and a second thread that waits for a connection,
    let listener = listener();
    let accepting = thread::spawn(move || {
        let fd = int_call(ACCEPT, [listener, 0, 0, 0, 0]);
        (fd, now_micros())
    });
    thread::sleep(std::time::Duration::from_millis(100));
    let begin = now_micros();
    assert_eq!(int_call(USLEEP, [50_000, 0, 0, 0, 0]), 0);

    // when a peer connects,
    inject(SYN, 1000, 0, &[]);
    let synack = receive();
    assert_eq!((synack.flags, synack.ack), (SYN | ACK, 1001));
    let iss = synack.seq;
    inject(ACK, 1001, iss.wrapping_add(1), &[]);

    // then the thread has its socket, at the time of the handshake.
    let (fd, at) = accepting.join().unwrap();
    assert!(fd >= 0 && (50_000..51_000).contains(&(at - begin)), "{fd} {}", at - begin);
    let fd = fd as usize;

    // Data comes in and is read; there is no more of it.
    inject(PSH | ACK, 1001, iss.wrapping_add(1), b"question");
    let mut buffer = [0u8; 64];
    assert_eq!(call(READ, [fd, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0]), 8);
    assert_eq!(&buffer[..8], b"question");
    assert_eq!(int_call(FCNTL, [fd, libc::F_SETFL as usize, libc::O_NONBLOCK as usize, 0, 0]), 0);
    assert_eq!(call(READ, [fd, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0]), -1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EAGAIN));

    // An answer goes out at once, with or behind the acknowledgement,
    assert_eq!(call(WRITE, [fd, b"answer".as_ptr() as usize, 6, 0, 0]), 6);
    let answer = loop {
        let segment = receive();
        if !segment.payload.is_empty() {
            break segment;
        }
    };
    assert_eq!((answer.payload.as_slice(), answer.seq, answer.ack), (&b"answer"[..], iss.wrapping_add(1), 1009));

    // and again when nobody acknowledges it, which takes virtual time only.
    let again = receive();
    assert_eq!((again.seq, again.payload.as_slice()), (answer.seq, &b"answer"[..]));
    assert!(again.micros - answer.micros >= 200_000, "{} {}", answer.micros, again.micros);

    // TCP_INFO is filled in to the size asked for.
    let (mut info, mut len) = ([0u8; 224], 224u32);
    let args =
        [fd, libc::IPPROTO_TCP as usize, libc::TCP_INFO as usize, info.as_mut_ptr() as usize, &raw mut len as usize];
    assert_eq!((int_call(GETSOCKOPT, args), len), (0, 224));
    assert_eq!(info[0], 1, "ESTABLISHED");

    // Both sides close, and the descriptor is gone.
    inject(ACK, 1009, iss.wrapping_add(7), &[]);
    assert_eq!(int_call(CLOSE, [fd, 0, 0, 0, 0]), 0);
    let fin = receive();
    assert_eq!((fin.flags & FIN, fin.seq), (FIN, iss.wrapping_add(7)));
    inject(FIN | ACK, 1009, iss.wrapping_add(8), &[]);
    assert_eq!(receive().ack, 1010);
    assert_eq!(call(READ, [fd, buffer.as_mut_ptr() as usize, 1, 0, 0]), -1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EBADF));
    assert_eq!(int_call(CLOSE, [listener, 0, 0, 0, 0]), 0);
}
