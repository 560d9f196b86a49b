#!/bin/sh
# Counts the instructions of a running cloud for each completion of one token, by function.
#
#   bench/profile.sh [REQUESTS]
#
# Needs valgrind and python3. Two runs, of R and of 3 R requests; the difference over 2 R leaves
# out what a start costs. Everything is on loopback and ends by itself.
set -eu
cd "$(dirname "$0")/.."
BINARY=${BINARY:-target/release/sublet}
REQUESTS=${1:-50}
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
python3 bench/profile.py --binary "$BINARY" --requests "$REQUESTS" --scratch "$SCRATCH"
