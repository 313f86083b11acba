use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    stack: StackArgs,
}

fn line(words: &[&str]) -> StackArgs {
    Line::try_parse_from(["test"].iter().chain(words)).map(|line| line.stack).unwrap_or_else(|error| panic!("{error}"))
}

fn file(text: &str) -> File {
    parse(text, Path::new("x.toml")).unwrap()
}

fn complaint(text: &str) -> String {
    parse(text, Path::new("x.toml")).unwrap_err().to_string()
}

const WHOLE: &str = r#"
    scheduler = "redundant"
    congestion = "reno"
    path-manager = "endpoints"
    no-mptcp = true
    close-timeout = "10s"
    blackhole-timeout = "2h"
    workers = 2
    busy-poll = "50us"
    memory = "512MiB"
    send-buffer = "4MiB"
    recv-buffer = 1000000
    pcap = "all.pcapng"
    log = "debug"
    json = true

    [socket]
    nodelay = true
    keepidle = "10s"
    sndbuf = "64KiB"
    ecn = "request"

    [[path]]
    driver = "tun"
    name = "ab0"
    addr = "10.9.0.2/24"
    host = "10.9.0.1"

    [[path]]
    driver = "tun"
    name = "ab1"
    addr = ["10.9.1.2/24", "fd00:9:1::2/64"]
    subflow = true
"#;

#[test]
fn a_file_says_the_same_as_the_command_line() {
    let by_file = StackArgs::default().or(file(WHOLE));
    let by_line = line(&[
        "--scheduler=redundant",
        "--congestion=reno",
        "--path-manager=endpoints",
        "--no-mptcp",
        "--close-timeout=10s",
        "--blackhole-timeout=2h",
        "--workers=2",
        "--busy-poll=50us",
        "--memory=512MiB",
        "--send-buffer=4MiB",
        "--recv-buffer=1000000",
        "--pcap=all.pcapng",
        "--log=debug",
        "--nodelay",
        "--keepidle=10s",
        "--sndbuf=64KiB",
        "--ecn=request",
        "--json",
        "--path=tun:ab0,addr=10.9.0.2/24,host=10.9.0.1",
        "--path=tun:ab1,addr=10.9.1.2/24,addr=fd00:9:1::2/64,subflow",
    ]);
    assert_eq!(by_file, by_line);
}

#[test]
fn the_command_line_wins() {
    let words = ["--path=tun:ab7,addr=10.7.0.2/24", "--scheduler=linux", "--no-mptcp=false", "--json=false"];
    let both = line(&words).or(file(WHOLE));
    assert_eq!(both.paths, ["tun:ab7,addr=10.7.0.2/24".parse().unwrap()]);
    assert_eq!(both.scheduler.as_deref(), Some("linux"));
    assert_eq!(both.no_mptcp, Some(false));
    assert_eq!(both.talk.json, Some(false));
    // What it does not speak of is as in the file.
    assert_eq!(both.congestion.as_deref(), Some("reno"));
    assert_eq!(both.workers, Some(2));
}

#[test]
fn a_wrong_file_names_the_file_and_the_key() {
    for (text, part) in [
        ("schedular = 'minrtt'", "schedular"),
        ("workers = 'two'", "workers"),
        ("busy-poll = '50 parsecs'", "50 parsecs"),
        ("memory = 'much'", "memory"),
        ("log = 'loud'", "loud"),
        ("[socket]\nkeepidle = 'long'", "long"),
        ("[socket]\nnodelai = true", "nodelai"),
        ("[[path]]\ndriver='tun'\nname='ab0'\naddr='10.9.0.2/24'\nhosts='10.9.0.1'", "hosts"),
        ("[[path]]\ndriver='tun'\nname='ab0'\naddr='10.9.0.2/33'", "10.9.0.2/33"),
        ("scheduler = ", "scheduler"),
    ] {
        let complaint = complaint(text);
        assert!(complaint.starts_with("--config x.toml: "), "{complaint}");
        assert!(complaint.contains(part), "{text}: {complaint}");
    }
}

#[test]
fn an_empty_file_changes_nothing() {
    assert_eq!(StackArgs::default().or(file("")), StackArgs::default());
}

#[test]
fn socket_options_are_the_librarys() {
    use anabranch::SockOpt;
    let given = line(&["--keepcnt=3", "--linger=0s", "--linger2=0s", "--max-pacing-rate=2MB", "--cork=false"]);
    let options: Vec<SockOpt> = given.socket.options().collect();
    let expected = [
        SockOpt::Cork(false),
        SockOpt::Keepcnt(3),
        SockOpt::Linger(Some(Duration::ZERO)),
        SockOpt::Linger2(None),
        SockOpt::MaxPacingRate(Some(2_000_000)),
    ];
    assert_eq!(options, expected);
}
