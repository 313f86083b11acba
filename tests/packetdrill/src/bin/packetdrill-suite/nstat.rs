//! A stand-in for `nstat` that shows the stack's counters: this program under that name, first in the path.
//!
//! The plugin writes them to the file that `ANABRANCH_COUNTERS` names before each command of a script. As with the real
//! one, what was shown is remembered, and only what was counted since is shown.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

/// Shows counters.
#[derive(Debug, Parser)]
#[command(name = "nstat")]
struct Args {
    /// Since the beginning.
    #[arg(short, long)]
    absolute: bool,
    /// Also what is zero.
    #[arg(short, long)]
    zeros: bool,
    /// Do not remember what was shown.
    #[arg(short = 's', long)]
    noupdate: bool,
    /// Only remember.
    #[arg(short, long)]
    nooutput: bool,
    /// Forget what was shown.
    #[arg(short, long)]
    reset: bool,
    /// As JSON.
    #[arg(short, long)]
    json: bool,
    /// Indented.
    #[arg(short, long)]
    pretty: bool,
    /// Only counters that match, `*` standing for anything.
    patterns: Vec<String>,
}

/// Whether this program was called as `nstat`.
pub(crate) fn is_meant() -> bool {
    env::args_os().next().is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == "nstat"))
}

pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    let Some(file) = env::var_os("ANABRANCH_COUNTERS").map(PathBuf::from) else {
        eprintln!("nstat: ANABRANCH_COUNTERS names no file");
        return ExitCode::FAILURE;
    };
    let history = file.with_extension("shown");
    let now = read(&file);
    let before = if args.absolute || args.reset { BTreeMap::new() } else { read(&history) };
    if !args.nooutput {
        show(&args, &now, &before);
    }
    if !args.noupdate && fs::copy(&file, &history).is_err() {
        eprintln!("nstat: cannot write {}", history.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn read(file: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

fn show(args: &Args, now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>) {
    let counted = |name: &String, value: u64| value.saturating_sub(before.get(name).copied().unwrap_or(0));
    let shown: BTreeMap<&String, u64> = now
        .iter()
        .map(|(name, &value)| (name, counted(name, value)))
        .filter(|(_, value)| args.zeros || *value > 0)
        .filter(|(name, _)| args.patterns.is_empty() || args.patterns.iter().any(|pattern| matches(pattern, name)))
        .collect();
    if args.json {
        let value = serde_json::json!({ "kernel": shown });
        println!("{}", if args.pretty { format!("{value:#}") } else { value.to_string() });
        return;
    }
    println!("#kernel");
    for (name, value) in shown {
        println!("{name:<32}{value:<16}0.0");
    }
}

/// Whether `name` is what `pattern` means.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name, expected) in [
            ("TcpOutRsts", "TcpOutRsts", true),
            ("TcpOut", "TcpOutRsts", false),
            ("Tcp*", "TcpOutRsts", true),
            ("*Rsts", "TcpOutRsts", true),
            ("T*Out*s", "TcpOutRsts", true),
            ("T*In*s", "TcpOutRsts", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
