#!/usr/bin/env python3
"""How accurate `anabranch link` is on this machine: rate and delay, measured outside of it by the kernel.

    link-accuracy.py [--seconds N] [--only rate|delay] [-- OPTION...]

Needs root, tcpdump, and the command in target/release or named by $ANABRANCH. Options behind `--` are given to each
`anabranch link`, such as --busy-wait off. Two hosts are made with the emulator between them, each in a namespace:

* rate: the sender offers a quarter too much in UDP datagrams of 1500 bytes; what arrives is counted at the
  receiver's interface over N seconds.
* delay: 1000 datagrams a second; the time from one interface to the other is that of tcpdump's stamps at both. The
  error is what it takes longer than it should.
"""

import argparse
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "..", "target"))
COMMAND = os.environ.get("ANABRANCH", os.path.join(TARGET, "release", "anabranch"))
ID = f"abla{os.getpid()}"
FROM, MIDDLE, TO = (f"{ID}-{name}" for name in ("from", "middle", "to"))
PORT = 5000
NOBODY = "10.77.0.3"
UDP_SEGMENT = 103
PAYLOAD = 1472


def run(line, **more):
    return subprocess.run(line.split(), check=True, capture_output=True, text=True, **more).stdout


def inside(netns, line):
    return ["ip", "netns", "exec", netns, *line.split()]


def set_up():
    for netns in (FROM, MIDDLE, TO):
        run(f"ip netns add {netns}")
        for name in ("all", "default"):
            run(f"ip netns exec {netns} sysctl -qw net.ipv6.conf.{name}.disable_ipv6=1")
    for device, host, address in (("left", FROM, "10.77.0.1"), ("right", TO, "10.77.0.2")):
        run(f"ip -n {MIDDLE} link add {device} type veth peer name e0 netns {host}")
        run(f"ip -n {MIDDLE} link set {device} up")
        run(f"ip -n {host} addr add {address}/24 dev e0")
        run(f"ip -n {host} link set e0 up")
    mac = json.loads(run(f"ip -j -n {TO} link show e0"))[0]["address"]
    # Nobody has this address: datagrams are counted at the interface and forgotten without an answer.
    run(f"ip -n {FROM} neigh add {NOBODY} lladdr {mac} dev e0")


def tear_down():
    for netns in (FROM, MIDDLE, TO):
        subprocess.run(["ip", "netns", "del", netns], check=False, capture_output=True)


class Emulator:
    """The command between both interfaces; `summary` afterwards."""

    def __init__(self, words):
        line = inside(MIDDLE, f"{COMMAND} link left right --json") + words
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        ready = json.loads(self.process.stdout.readline())
        if ready["event"] != "ready":
            sys.exit(f"the emulator says {ready}")
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        events = [json.loads(line) for line in self.process.stdout]
        self.process.wait()
        self.summary = events[-1]


def connected():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((NOBODY, PORT))
    return sock


def offer(rate, seconds):
    """Sends datagrams of PAYLOAD bytes, `rate` bits per second of IP packets."""
    sock = connected()
    # Super-datagrams of some packets each: a hundred thousand calls a second are too many for this program.
    many = max(1, min(40, int(rate / 20e6)))
    if many > 1:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, PAYLOAD)
    data = bytes(PAYLOAD * many)
    gap = (PAYLOAD + 28) * 8 * many / rate
    due = time.monotonic()
    until = due + seconds
    while (now := time.monotonic()) < until:
        if now < due:
            time.sleep(due - now)
        sock.send(data)
        due = max(due + gap, now - 0.05)


def send_numbered(count, gap):
    """Sends small datagrams, one each `gap` seconds on average."""
    sock = connected()
    draw = random.Random(1)
    for number in range(int(count)):
        sock.send(struct.pack("!I", number) + bytes(60))
        # Not in step with any timer.
        time.sleep(gap * draw.uniform(0.5, 1.5))


def sender(what, *numbers):
    """Starts one of these in the sender's namespace."""
    line = inside(FROM, f"{sys.executable} {os.path.abspath(__file__)} --sender {what}")
    return subprocess.Popen(line + [str(number) for number in numbers])


def received():
    """Packets and their IP bytes that the receiver's interface has taken in, and the time."""
    stats = json.loads(run(f"ip -j -s -n {TO} link show e0"))[0]["stats64"]["rx"]
    return time.monotonic(), stats["packets"], stats["bytes"] - 14 * stats["packets"]


def measure_rate(mbit, seconds, more):
    with Emulator(["--rate", f"{mbit}mbit", "--delay", "1ms", "--queue", "20ms", *more]) as emulator:
        offering = sender("offer", mbit * 1.25e6, seconds + 1)
        time.sleep(0.6)
        start, _, before = received()
        time.sleep(seconds)
        end, _, after = received()
        offering.wait()
    got = (after - before) * 8 / (end - start)
    late = emulator.summary["a_to_b"]["late_us"]
    dropped, missed = (emulator.summary["a_to_b"][key] for key in ("dropped_queue", "missed"))
    print(f"| {mbit} Mbit/s | {got / 1e6:.2f} Mbit/s | {(got / mbit / 1e4) - 100:+.2f} % "
          f"| {late['p50']:.0f} / {late['p99']:.0f} / {late['max']:.0f} µs | {dropped} | {missed} |", flush=True)


def stamps(path):
    """Number of each datagram and when it was seen, in ns, of a capture."""
    seen = {}
    with open(path, "rb") as file:
        head = file.read(24)
        assert struct.unpack("<I", head[:4])[0] == 0xA1B23C4D, "nanoseconds"
        while record := file.read(16):
            sec, nsec, length, _ = struct.unpack("<IIII", record)
            data = file.read(length)
            seen[struct.unpack("!I", data[42:46])[0]] = sec * 10**9 + nsec
    return seen


def measure_delay(ms, seconds, more, background=0):
    words = ["--delay", f"{ms}ms", *more]
    with tempfile.TemporaryDirectory() as directory, Emulator(words) as emulator:
        captures, files = [], []
        for netns, direction in ((FROM, "out"), (TO, "in")):
            file = f"{directory}/{direction}.pcap"
            # Small datagrams only: those of the background are long.
            line = (f"tcpdump -i e0 -Q {direction} -n -s 64 -B 16384 --immediate-mode --time-stamp-precision=nano -w {file} "
                    f"udp port {PORT} and less 200")
            captures.append(subprocess.Popen(inside(netns, line), stderr=subprocess.PIPE, text=True))
            files.append(file)
        for capture in captures:
            capture.stderr.readline()
        if background:
            others = sender("offer", background * 1e6, seconds + 1)
        sender("send_numbered", seconds * 1000, 0.001).wait()
        if background:
            others.wait()
        time.sleep(ms / 1e3 + 0.6)
        for capture in captures:
            capture.send_signal(signal.SIGINT)
            capture.communicate()
        sent, came = (stamps(file) for file in files)
    errors = sorted((came[number] - sent[number]) / 1e3 - ms * 1e3 for number in sent if number in came)
    at = lambda share: errors[min(len(errors) - 1, int(len(errors) * share))]
    what = f"{ms} ms" + (f", {background} Mbit/s beside it" if background else "")
    print(f"| {what} | {len(errors)} of {len(sent)} | {at(0):.0f} | {at(.5):.0f} | {at(.9):.0f} | {at(.99):.0f} | {at(1):.0f} |",
          flush=True)


def main():
    if sys.argv[1:2] == ["--sender"]:
        return globals()[sys.argv[2]](*map(float, sys.argv[3:]))
    own, _, more = " ".join(sys.argv[1:]).partition("-- ") if "--" in sys.argv[1:] else (" ".join(sys.argv[1:]), "", "")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--only", choices=("rate", "delay"))
    args, more = parser.parse_args(own.split()), more.split()
    set_up()
    try:
        if args.only != "delay":
            print("| rate | measured | error | sent late: p50 / p99 / max | dropped, queue full | missed |\n|---|---|---|---|---|---|")
            for mbit in (10, 100, 1000):
                measure_rate(mbit, args.seconds, more)
        if args.only != "rate":
            print("\n| delay | datagrams | error in µs: min | p50 | p90 | p99 | max |\n|---|---|---|---|---|---|---|")
            for ms in (0, 1, 10, 100):
                measure_delay(ms, args.seconds, more)
            measure_delay(10, args.seconds, more, background=500)
    finally:
        tear_down()


if __name__ == "__main__":
    main()
