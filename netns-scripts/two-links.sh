#!/bin/bash
# Two hosts with Wi-Fi and LTE between them, emulated by `anabranch link`, each in a network namespace.
#
#   two-links.sh run    all of it: set up, move data, Wi-Fi fails in the middle, clean up
#   two-links.sh up     set up and leave it there to play with
#   two-links.sh down   clean up
#
# The near host is the kernel with 10.9.0.1 on `wifi` and 10.9.1.1 on `lte`; at the far one anabranch serves on 10.9.0.2
# and 10.9.1.2. Needs root, iproute2 and python3. The command is looked for in target/release, or named by $ANABRANCH.
# $WIFI and $LTE are the options of both links.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
near=anabranch-near middle=anabranch-middle far=anabranch-far
log=/run/anabranch-links
anabranch=${ANABRANCH:-${CARGO_TARGET_DIR:-$here/../target}/release/anabranch}
WIFI=${WIFI:---rate 50mbit --delay 10ms --queue 100ms}
LTE=${LTE:---rate 20mbit --delay 40ms --jitter 2ms --queue 100ms}

say() { printf '\n# %s\n' "$*"; }
fail() { echo "$*" >&2; exit 1; }
in_ns() { local ns=$1; shift; ip netns exec "$ns" "$@"; }

# Starts a command in a namespace, and waits until it says that it is ready.
start() {
  local ns=$1 name=$2 pid
  shift 2
  in_ns "$ns" "$anabranch" "$@" >"$log.$name" 2>&1 </dev/null &
  pid=$!
  for _ in $(seq 100); do
    [ ! -s "$log.$name" ] || break
    sleep 0.1
  done
  cat "$log.$name"
  kill -0 $pid 2>/dev/null || { down; fail "anabranch $1 did not start"; }
}

up() {
  [ -x "$anabranch" ] || fail "no $anabranch: cargo build --release first"
  [ ! -e /run/netns/$near ] || fail "the links are up already: $0 down"
  local ns link net=0
  for ns in $near $middle $far; do
    ip netns add $ns
    ip -n $ns link set lo up
  done
  # On these interfaces nobody speaks but the emulator and the stack.
  for ns in $middle $far; do
    in_ns $ns sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
  done
  for link in wifi lte; do
    ip -n $middle link add name $link-near type veth peer name $link netns $near
    ip -n $middle link add name $link-far type veth peer name $link netns $far
    for ns in near far; do
      ip -n $middle link set dev $link-$ns up
    done
    ip -n $near addr add 10.9.$net.1/24 dev $link
    ip -n $near link set dev $link up
    ip -n $far link set dev $link up
    net=$((net + 1))
  done
  in_ns $near ip mptcp limits set subflows 8 add_addr_accepted 8
  # shellcheck disable=SC2086 # they are words
  start $middle wifi link wifi-near wifi-far $WIFI "$@"
  # shellcheck disable=SC2086
  start $middle lte link lte-near lte-far $LTE
  start $far serve serve discard:5001 chargen:5002 echo:5003 \
    --path packet:wifi,addr=10.9.0.2/24 --path packet:lte,addr=10.9.1.2/24,signal
}

down() {
  local ns signal
  for ns in $far $middle $near; do
    [ -e /run/netns/$ns ] || continue
    for signal in TERM KILL; do
      ip netns pids $ns | xargs -r kill -$signal 2>/dev/null || true
      for _ in $(seq 60); do
        [ -n "$(ip netns pids $ns)" ] || break 2
        sleep 0.1
      done
    done
  done
  for ns in $far $middle $near; do
    [ ! -e /run/netns/$ns ] || ip netns del $ns
  done
  if [ "${1:-}" = summaries ]; then
    say "what Wi-Fi did"
    sed 1d $log.wifi
    say "what LTE did"
    sed 1d $log.lte
  fi
  rm -f $log.*
}

run() {
  trap 'down' EXIT
  trap 'exit 130' INT TERM
  say "Wi-Fi and LTE; from the fourth to the seventh second all that is sent over Wi-Fi is lost"
  up --at 4s down --at 7s up
  say "a kernel MPTCP socket sends and gets everything back"
  in_ns $near "$here/mptcp-echo.py" 10.9.0.2 5003 8
  trap - EXIT
  down summaries
}

case ${1:-} in
  run | up | down) ;;
  *) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
[ "$(id -u)" = 0 ] || fail "namespaces need root: sudo $0 $1"
"$1"
[ "$1" != up ] || echo "up; try: ip netns exec $near $here/mptcp-echo.py 10.9.0.2 5003"
