#!/bin/bash
# A small lab: anabranch against the kernel's MPTCP over two paths, in a network namespace of its own.
#
#   lab.sh run    all of it: set up, move data, look at the subflows, break a path, clean up
#   lab.sh up     set up and leave it there to play with (`ip netns exec anabranch-lab …`)
#   lab.sh down   clean up
#
# Needs root, iproute2 and python3. The command is looked for in target/release, or named by $ANABRANCH.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
ns=anabranch-lab
log=/run/$ns.log
anabranch=${ANABRANCH:-${CARGO_TARGET_DIR:-$here/../target}/release/anabranch}
in_ns="ip netns exec $ns"

say() { printf '\n# %s\n' "$*"; }
# Shows a command, then runs it in the namespace.
show() {
  printf '$ %s\n' "$*"
  $in_ns "$@"
}
fail() { echo "$*" >&2; exit 1; }

up() {
  [ -x "$anabranch" ] || fail "no $anabranch: cargo build --release first"
  [ ! -e /run/netns/$ns ] || fail "the lab is up already: $0 down"
  ip netns add $ns
  ip -n $ns link set lo up
  # The kernel takes no announced address and at most two extra subflows unless told.
  $in_ns ip mptcp limits set subflows 8 add_addr_accepted 8
  # Two TUN devices: 10.9.0.2 and 10.9.1.2 are anabranch, 10.9.0.1 and 10.9.1.1 the kernel.
  $in_ns "$anabranch" serve echo:5003 discard:5001 chargen:5002 \
    --path tun:ab0,addr=10.9.0.2/24,host=10.9.0.1 \
    --path tun:ab1,addr=10.9.1.2/24,host=10.9.1.1,signal >$log 2>&1 </dev/null &
  local pid=$!
  for _ in $(seq 100); do
    [ ! -s $log ] || break
    sleep 0.1
  done
  cat $log
  kill -0 $pid 2>/dev/null || { down; fail "anabranch did not start"; }
}

down() {
  rm -f $log
  [ -e /run/netns/$ns ] || return 0
  local signal
  for signal in TERM KILL; do
    ip netns pids $ns | xargs -r kill -$signal 2>/dev/null || true
    for _ in $(seq 30); do
      [ -n "$(ip netns pids $ns)" ] || break 2
      sleep 0.1
    done
  done
  ip netns del $ns
}

run() {
  trap down EXIT
  trap 'exit 130' INT TERM
  say "anabranch serves on two paths; the address of the second one is announced to the peer"
  up
  show ip -br address
  say "a kernel MPTCP socket sends and gets everything back"
  $in_ns "$here/mptcp-echo.py" 10.9.0.2 5003 6 &
  local client=$! status=0
  sleep 2
  say "its subflows, as the kernel sees them"
  show ss -tnH state established
  show ss -MiH
  sleep 1
  say "the first path breaks"
  show ip link set ab0 down
  wait $client || status=$?
  say "what the kernel counted"
  show nstat -az | awk '/MPTcpExt/ && $2 != 0 { print $1, $2 }'
  return $status
}

case ${1:-} in
  run | up | down) ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
[ "$(id -u)" = 0 ] || fail "namespaces need root: sudo $0 $1"
"$1"
[ "$1" != up ] || echo "up; try: $in_ns $here/mptcp-echo.py 10.9.0.2 5003"
