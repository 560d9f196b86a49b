#!/bin/sh
# Measures Sublet on this machine: builds the release, runs bench/measure.py, prints a table.
#
#   bench/run.sh            everything, in about five minutes behind the build
#   bench/run.sh --quick    the same with fewer rounds
#   BINARY=path MEASURE=path bench/run.sh    with programs that were built already
#
# Needs python3; the comparison with a bare proxy also needs nginx. Loopback only; every round
# is counted and every program started here is ended here.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${BINARY:-}" ]; then
    cargo build --release -p sublet
    BINARY=target/release/sublet
fi
if [ -z "${MEASURE:-}" ]; then
    cargo build --release -p sublet --example measure
    MEASURE=target/release/examples/measure
fi
exec python3 bench/measure.py --binary "$BINARY" --measure "$MEASURE" "$@"
