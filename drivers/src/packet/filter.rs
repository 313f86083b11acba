//! What the kernel is to hand over: a classic BPF program (linux/filter.h), so that other traffic of a busy host costs
//! nothing here.

use std::net::IpAddr;

use crate::ether::{ETHERNET_HEADER, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6};

const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// All of a frame, however long.
const WHOLE: u32 = u32::MAX;
const NOTHING: u32 = 0;
const ICMPV6: u32 = 58;

/// A program that takes ARP, ICMPv6 (neighbours ask a group for our addresses), and IP packets for one of
/// `addresses`; nothing of other VLANs.
pub(super) fn program(addresses: &[IpAddr]) -> Vec<libc::sock_filter> {
    let kind_at = ETHERNET_HEADER as u32 - 2;
    let ip = ETHERNET_HEADER as u32;
    let mut program = vec![
        // The VLAN's number; frames without a tag have none, those with a priority only have zero.
        op(LOAD_HALF, (libc::SKF_AD_OFF + libc::SKF_AD_VLAN_TAG) as u32),
        op(AND, 0x0fff),
    ];
    program.extend(unless(0, &[op(RETURN, NOTHING)]));
    program.push(op(LOAD_HALF, kind_at));
    program.extend(when(ETHERTYPE_ARP.into(), &[op(RETURN, WHOLE)]));

    let mut v4 = vec![op(LOAD_WORD, ip + 16)];
    let mut v6 = vec![op(LOAD_BYTE, ip + 6)];
    v6.extend(when(ICMPV6, &[op(RETURN, WHOLE)]));
    for addr in addresses {
        match addr {
            IpAddr::V4(addr) => v4.extend(when(addr.to_bits(), &[op(RETURN, WHOLE)])),
            IpAddr::V6(addr) => {
                let words = (0..4u32).map(|at| (ip + 24 + 4 * at, (addr.to_bits() >> (96 - 32 * at)) as u32));
                // From the last word back: each one is looked at only if those before it are right.
                let check = words.rev().fold(vec![op(RETURN, WHOLE)], |rest, (at, word)| {
                    [vec![op(LOAD_WORD, at)], when(word, &rest)].concat()
                });
                v6.extend(check);
            }
        }
    }
    v4.push(op(RETURN, NOTHING));
    v6.push(op(RETURN, NOTHING));
    program.extend(when(ETHERTYPE_IPV4.into(), &v4));
    program.extend(when(ETHERTYPE_IPV6.into(), &v6));
    program.push(op(RETURN, NOTHING));
    program
}

fn op(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Runs `block` if what was loaded is `value`, and skips it otherwise.
fn when(value: u32, block: &[libc::sock_filter]) -> Vec<libc::sock_filter> {
    branch(value, block, false)
}

/// Skips `block` if what was loaded is `value`, and runs it otherwise.
fn unless(value: u32, block: &[libc::sock_filter]) -> Vec<libc::sock_filter> {
    branch(value, block, true)
}

fn branch(value: u32, block: &[libc::sock_filter], skip_if_equal: bool) -> Vec<libc::sock_filter> {
    let always = libc::BPF_JMP | libc::BPF_JA;
    let len = block.len() as u32;
    // A conditional jump reaches 255 instructions, an unconditional one any number.
    let (jt, jf) = if skip_if_equal { (0, 1) } else { (1, 0) };
    let test = libc::sock_filter { code: EQUAL as u16, jt, jf, k: value };
    [vec![test, op(always, len)], block.to_vec()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do, for the few instructions there are.
    fn run(program: &[libc::sock_filter], frame: &[u8], vlan: u32) -> u32 {
        let mut loaded = 0u32;
        let mut at = 0;
        loop {
            let libc::sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let bytes = |len: usize| frame.get(k as usize..).and_then(|bytes| bytes.get(..len));
            let number = |bytes: &[u8]| bytes.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
            match u32::from(code) {
                LOAD_HALF if k == (libc::SKF_AD_OFF + libc::SKF_AD_VLAN_TAG) as u32 => loaded = vlan,
                LOAD_WORD | LOAD_HALF | LOAD_BYTE => {
                    let len =
                        [4, 2, 1][[LOAD_WORD, LOAD_HALF, LOAD_BYTE].iter().position(|op| *op == code.into()).unwrap()];
                    match bytes(len) {
                        Some(bytes) => loaded = number(bytes),
                        None => return 0,
                    }
                }
                AND => loaded &= k,
                EQUAL => at += usize::from(if loaded == k { jt } else { jf }),
                RETURN => return k,
                jump if jump == libc::BPF_JMP | libc::BPF_JA => at += k as usize,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn v4(to: &str) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[30..34].copy_from_slice(&to.parse::<std::net::Ipv4Addr>().unwrap().octets());
        frame
    }

    fn v6(to: &str, protocol: u8) -> Vec<u8> {
        let mut frame = vec![0; 80];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[20] = protocol;
        frame[38..54].copy_from_slice(&to.parse::<std::net::Ipv6Addr>().unwrap().octets());
        frame
    }

    #[test]
    fn only_what_is_ours_passes() {
        let addresses = ["10.9.0.2", "fd09::2", "10.8.0.2", "fd08::1:0:0:2"].map(|addr| addr.parse().unwrap());
        let program = program(&addresses);
        let mut arp = vec![0; 60];
        arp[12..14].copy_from_slice(&[8, 6]);
        let mut other = arp.clone();
        other[12..14].copy_from_slice(&[0x88, 0xcc]);
        let cases = [
            (v4("10.9.0.2"), 0, true),
            (v4("10.8.0.2"), 0, true),
            (v4("10.9.0.1"), 0, false),
            // A tag that only has a priority is none.
            (v4("10.9.0.2"), 0xe000, true),
            (v4("10.9.0.2"), 0x2007, false),
            (v6("fd09::2", 6), 0, true),
            (v6("fd08::1:0:0:2", 6), 0, true),
            (v6("fd08::2:0:0:2", 6), 0, false),
            (v6("fd09::1", 6), 0, false),
            (v6("ff02::1:ff00:2", 58), 0, true),
            (v6("ff02::1:ff00:2", 17), 0, false),
            (arp.clone(), 0, true),
            (arp, 7, false),
            (other, 0, false),
            (vec![0; 13], 0, false),
        ];
        for (frame, vlan, passes) in cases {
            assert_eq!(run(&program, &frame, vlan) > 0, passes, "{frame:02x?} in VLAN {vlan:#x}");
        }
    }
}
