#!/bin/sh
# Run the example: build what it needs, then print what each protection is worth.
set -eu
cd "$(dirname "$0")/../.."
cargo build --release -q -p gateward -p gateward-e2e --bins
target="${CARGO_TARGET_DIR:-target}"
GATEWARD_BIN="$target/release/gateward" exec "$target/release/resilience"
