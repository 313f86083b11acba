#!/usr/bin/env python3
"""A kernel MPTCP client for an echo service: sends for some seconds and checks what comes back.

    mptcp-echo.py ADDRESS PORT [SECONDS]
"""

import hashlib
import os
import socket
import sys
import threading
import time

TCP_CONGESTION = 13
IPPROTO_MPTCP = 262
SOL_MPTCP = 284
MPTCP_INFO = 1
RATE = 25_000_000  # bytes a second: quick enough to be watched, slow enough for any machine


def subflows(sock):
    """Subflows of the connection, for a person."""
    try:
        info = sock.getsockopt(SOL_MPTCP, MPTCP_INFO, 128)
    except OSError:
        return "none, it is plain TCP"
    # mptcpi_subflows_total, or before Linux 6.8 mptcpi_subflows, which leaves the first one out.
    return info[80] if len(info) > 80 else 1 + info[0]


def send(sock, seconds, sent):
    block = os.urandom(1 << 16)
    next_at = time.monotonic()
    end = next_at + seconds
    while time.monotonic() < end:
        sock.sendall(block)
        sent.update(block)
        next_at += len(block) / RATE
        time.sleep(max(0.0, next_at - time.monotonic()))
    sock.shutdown(socket.SHUT_WR)


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    host, port, seconds = sys.argv[1], int(sys.argv[2]), float((sys.argv + ["6"])[3])
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, socket.SOCK_STREAM, IPPROTO_MPTCP)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, b"cubic")
    except OSError:
        pass  # not a choice that everybody has; the default does as well
    sock.connect(address)
    sock.settimeout(20)
    sent, received = hashlib.sha256(), hashlib.sha256()
    sender = threading.Thread(target=send, args=(sock, seconds, sent), daemon=True)
    sender.start()
    total, count, longest = 0, 0, 0.0
    last = second = time.monotonic()
    while data := sock.recv(1 << 18):
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        received.update(data)
        total += len(data)
        count += len(data)
        if now >= second + 1:
            rate = count * 8e-6 / (now - second)
            print(f"{rate:6.0f} Mbit/s each way, subflows: {subflows(sock)}", flush=True)
            second, count = now, 0
    sender.join()
    same = sent.digest() == received.digest()
    verdict = "the same as was sent" if same else "NOT what was sent"
    print(f"{total} bytes came back, {verdict}; longest gap {longest * 1000:.0f} ms")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
