//! Whether this process may make namespaces and TUN devices.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::OnceLock;

use crate::Netns;

/// Set to anything but `0`, this turns a skip into a failure.
pub const REQUIRE: &str = "ANABRANCH_NO_SKIP";

/// True if the tests can run. Otherwise says on standard error that `test` is skipped and why.
///
/// # Panics
/// If they cannot run and `ANABRANCH_NO_SKIP` asks for them.
#[must_use]
pub fn permitted(test: &str) -> bool {
    static OBSTACLE: OnceLock<Option<String>> = OnceLock::new();
    let Some(obstacle) = OBSTACLE.get_or_init(obstacle) else { return true };
    let required = std::env::var(REQUIRE).is_ok_and(|value| !value.is_empty() && value != "0");
    assert!(!required, "{test}: {REQUIRE} is set, but {obstacle}");
    // Not eprintln!: the test runner would swallow it.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {obstacle}");
    false
}

fn obstacle() -> Option<String> {
    if let Err(error) = Netns::new("permission") {
        return Some(format!("no network namespace can be made ({error:#}): run as root"));
    }
    let tun = "/dev/net/tun";
    if let Err(error) = OpenOptions::new().read(true).write(true).open(tun) {
        return Some(format!("{tun} cannot be opened ({error}): run as root, and `modprobe tun`"));
    }
    None
}
