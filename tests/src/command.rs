//! Running `ip`, `nft` and the like.

use std::io::ErrorKind;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `program` with `args` and gives its standard output.
///
/// # Errors
/// When it is not installed (names the package) or fails (with what it said).
pub fn run<S: AsRef<str>>(program: &str, args: &[S]) -> Result<String> {
    let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
    let line = format!("{program} {}", args.join(" "));
    let output = Command::new(program)
        .args(&args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| missing(program, error))
        .with_context(|| format!("running `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Says which package has a program that is missing.
pub(crate) fn missing(program: &str, error: std::io::Error) -> anyhow::Error {
    if error.kind() != ErrorKind::NotFound {
        return error.into();
    }
    let package = match program {
        "ip" | "tc" | "ss" => "iproute2",
        "nft" => "nftables",
        other => other,
    };
    anyhow::anyhow!("`{program}` is not installed: apt-get install {package}")
}
