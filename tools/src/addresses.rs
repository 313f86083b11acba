//! Addresses and names as people write them.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use anyhow::{Context as _, bail};

/// Where a peer may be: every address of `host`, which is an IPv4 or IPv6 address, in brackets or not,
/// or a name that the system's resolver knows.
pub(crate) fn resolve(host: &str, port: u16) -> anyhow::Result<Vec<SocketAddr>> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(addr) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(addr, port)]);
    }
    if bare.contains(':') || bare.is_empty() {
        bail!("'{host}' is no address and no name: give one such as 10.9.0.1, fd00:9::1 or server.example");
    }
    let found = (bare, port).to_socket_addrs().with_context(|| {
        format!("cannot resolve '{host}' (the system's resolver was asked, not through the stack's paths)")
    })?;
    let mut addrs = Vec::new();
    for addr in found {
        if !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    if addrs.is_empty() {
        bail!("'{host}' has no address");
    }
    Ok(addrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(host: &str) -> String {
        resolve(host, 7).unwrap().into_iter().map(|addr| addr.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn literals_of_both_families_with_and_without_brackets() {
        assert_eq!(one("10.9.0.1"), "10.9.0.1:7");
        assert_eq!(one("fd00:9::1"), "[fd00:9::1]:7");
        assert_eq!(one("[fd00:9::1]"), "[fd00:9::1]:7");
    }

    #[test]
    fn a_name_of_the_host() {
        let addrs = resolve("localhost", 80).unwrap();
        assert!(addrs.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 80), "{addrs:?}");
    }

    #[test]
    fn what_is_neither_is_named() {
        for wrong in ["", "fd00:9::1::2", "10.9.0.1:80", "[fd00::1"] {
            let complaint = resolve(wrong, 7).unwrap_err().to_string();
            assert!(complaint.contains(&format!("'{wrong}'")), "{complaint}");
        }
        let complaint = resolve("no.such.name.invalid", 7).unwrap_err().to_string();
        assert!(complaint.contains("'no.such.name.invalid'"), "{complaint}");
    }
}
