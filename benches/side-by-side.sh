#!/bin/bash
# Builds and runs the comparison of anabranch with the kernel; --help lists the options. Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --quiet -p anabranch-tools -p anabranch-benches
exec "${CARGO_TARGET_DIR:-target}/release/side-by-side" "$@"
