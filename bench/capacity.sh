#!/bin/sh
# Replays recorded demand under every policy and prints the tables of docs/benchmarks.md, section Capacity.
#
#   bench/capacity.sh ../shared/traces/internal_demand_*.csv.gz
#   BINARY=path bench/capacity.sh FILE...          with a program that was built already
#
# With a schedule of the default policy for each file, which tests/outside/estimate.py scores again.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${BINARY:-}" ]; then
    # The client alone, which is built in minutes; `sublet` does the same.
    cargo build --release -p sublet-cli --example client
    BINARY=target/release/examples/client
fi
exec python3 bench/capacity.py "$BINARY" "$@"
