//! The command as a user meets it: help, wrong usage, wrong files, the demonstration.

use std::fs;

use assert_cmd::Command;

fn anabranch(words: &[&str]) -> Command {
    let mut command = Command::cargo_bin("anabranch").expect("the command is built with its tests");
    command.args(words).env_remove("ANABRANCH_SEED");
    command
}

/// Runs the command and returns its exit code, standard output and standard error.
fn run(words: &[&str]) -> (i32, String, String) {
    let output = anabranch(words).output().expect("the command starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

const PATH: &str = "--path=tun:ab0,addr=10.9.0.2/24,host=10.9.0.1";

#[test]
fn every_command_has_help_with_examples() {
    for words in [&["serve"][..], &["cat"], &["perf"], &["perf", "client"], &["demo"], &["link"]] {
        let (code, out, _) = run(&[words, &["--help"]].concat());
        assert_eq!(code, 0, "{words:?}");
        assert!(out.contains("Examples:") && out.contains("anabranch "), "{words:?}: {out}");
    }
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for word in ["serve", "cat", "perf", "demo", "link", "Exit codes"] {
        assert!(out.contains(word), "{word}: {out}");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_names_the_part() {
    for (words, part) in [
        (&[][..], "Usage"),
        (&["serve"], "<SERVICE:PORT>"),
        (&["serve", "daytime:13", PATH], "unknown service 'daytime'; known are discard, chargen, echo"),
        (&["serve", "echo:7"], "no path: give the stack one, such as --path tun:ab0"),
        (&["serve", "echo:7", "--path=tun:ab0"], "no address of ours: add addr=10.9.0.2/24"),
        (&["serve", "echo:7", "--path=tun:ab0,adr=1"], "unknown key 'adr'"),
        (&["serve", "echo:7", "--path=tun:ab0,adr=1"], "a right one is tun:ab0,addr=10.9.0.2/24"),
        (&["serve", "echo:7", PATH, "--scheduler=best"], "--scheduler best: there is no such one; known are minrtt,"),
        (&["serve", "echo:7", PATH, "--congestion=x"], "--congestion x: there is no such one; known are reno, cubic"),
        (&["serve", "echo:7", PATH, "--path-manager=x"], "known are endpoints"),
        (&["serve", "echo:7", PATH, "--workers=0"], "workers"),
        (&["serve", "echo:7", PATH, "--log=loud"], "loud"),
        (&["cat", "10.9.0.1", PATH], "<PORT>"),
        (&["cat", "10.9.0.1", "99999", PATH], "99999"),
        (&["cat", "-l", "7", "10.9.0.1", "7", PATH], "cannot be used with"),
        (&["perf", "client", "10.9.0.1", PATH], "--port"),
        (&["perf", "client", "10.9.0.1", "--port=1", "--time=0", PATH], "at least 0.001 seconds"),
        (&["perf", "client", "10.9.0.1", "--port=1", "--bytes=many", PATH], "a right one is 500MB"),
        (&["perf", "client", "10.9.0.1", "--port=1", "--parallel=129", PATH], "129"),
        (&["link", "left"], "<B>"),
        (&["link", "left", "right", "--rate=5"], "'5' for '--rate <RATE>': give a rate such as 50mbit"),
        (&["link", "left", "right", "--loss=200%"], "give a percentage from 0% to 100%"),
        (&["link", "left", "right", "--b-to-a=speed=5"], "--b-to-a speed=5: speed: unknown field `speed`"),
        (&["link", "left", "right", "--at", "2s", "sideways"], "--at 2s sideways: 'sideways' is no KEY=VALUE"),
        (&["link", "left", "right", "--ecn"], "add --aqm red or codel"),
        (&["link", "left", "left"], "left is no link to itself"),
        (&["demo", "--scheduler=best"], "known are minrtt"),
        (&["demo", "--speed=0"], "--speed 0: give a number from 0.1 to 1000"),
    ] {
        let (code, out, err) = run(words);
        assert_eq!(code, 2, "{words:?}: {out}{err}");
        assert!(err.contains(part), "{words:?} should say {part:?}: {err}");
        assert!(out.is_empty(), "{words:?}: {out}");
    }
}

#[test]
fn a_wrong_configuration_names_the_file_and_the_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("ab.toml");
    let config = format!("--config={}", file.display());

    let (code, _, err) = run(&["serve", "echo:7", &config]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("ab.toml") && err.contains("No such file"), "{err}");

    fs::write(&file, "schedular = \"minrtt\"\n").expect("the file is written");
    let (code, _, err) = run(&["serve", "echo:7", &config]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("ab.toml") && err.contains("schedular") && err.contains("line 1"), "{err}");
}

#[test]
fn a_name_that_does_not_resolve_is_a_failure() {
    let (code, _, err) = run(&["cat", "no.such.name.invalid", "7", PATH]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("cannot resolve 'no.such.name.invalid'"), "{err}");
}

#[test]
fn programs_get_errors_as_json() {
    let (code, out, err) = run(&["demo", "--json", "--scheduler=best"]);
    assert_eq!(code, 2);
    let event: serde_json::Value = serde_json::from_str(out.trim()).expect("one line of JSON");
    assert_eq!(event["event"], "error");
    assert!(event["message"].as_str().is_some_and(|text| text.contains("minrtt")), "{event}");
    assert!(err.contains("minrtt"), "people see it, too: {err}");
}

#[test]
fn the_demonstration_ends_well_and_draws_its_chart() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = anabranch(&["demo", "--json", "--speed=1000"]).current_dir(dir.path()).output().expect("it runs");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));

    let events: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect();
    let of_kind = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
    assert_eq!(of_kind("start").len(), 1);
    assert_eq!(of_kind("link").len(), 2, "Wi-Fi goes and comes back");
    assert!(of_kind("sample").len() > 80);
    let summary = of_kind("summary")[0];
    assert_eq!(summary["intact"], true, "{summary}");
    assert_eq!(summary["bytes_received"], 64_000_000);
    assert_eq!(summary["sha256_sent"], summary["sha256_received"]);
    let rate = |key: &str| summary[key].as_f64().expect("a number");
    assert!(rate("both_bits_per_second") > rate("wifi_alone_bits_per_second"), "{summary}");
    assert!(rate("during_cut_bits_per_second") > 10e6, "{summary}");

    let svg = fs::read_to_string(dir.path().join("anabranch-demo.svg")).expect("the chart is there");
    assert!(svg.starts_with("<svg") && svg.contains("Wi-Fi"), "{svg:.200}");
}

#[test]
fn the_demonstration_speaks_in_lines_when_nobody_watches() {
    let dir = tempfile::tempdir().expect("a directory");
    let svg = dir.path().join("chart.svg");
    let (code, out, err) = run(&["demo", "--speed=1000", "--seed=7", "--svg", &svg.display().to_string()]);
    assert_eq!(code, 0, "{out}{err}");
    for word in ["Wi-Fi is cut", "Wi-Fi is back", "both together", "longest time without a byte", "bytes intact"] {
        assert!(out.contains(word), "{word}: {out}");
    }
    assert!(!out.contains('\u{1b}'), "no escape codes: {out}");
    assert!(svg.exists());
}

#[test]
fn a_chart_that_cannot_be_written_is_a_failure_that_names_the_file() {
    let (code, _, err) = run(&["demo", "--speed=1000", "--svg=/nowhere/at/all.svg"]);
    assert_eq!(code, 1);
    assert!(err.contains("/nowhere/at/all.svg") && err.contains("--svg FILE"), "{err}");
}
