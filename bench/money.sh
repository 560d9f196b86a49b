#!/bin/sh
# Measures the money system on this machine and prints its table of docs/benchmarks.md: the ledger's transfers, holds,
# rating, and a month of charges that is settled, closed and sealed, its bundle read, and verified.
#
#   bench/money.sh                            1,000,000 charges on SQLite and on PostgreSQL
#   bench/money.sh 5000000                    as many requests, with two charges each
#   MONTH=path LEDGER=path bench/money.sh     with programs that were built already
#
# PostgreSQL is the one that 'cargo xtask test-env' finds or installs.
set -eu
cd "$(dirname "$0")/.."
requests=${1:-500000}
if [ -z "${MONTH:-}" ] || [ -z "${LEDGER:-}" ]; then
    cargo build --release -p sublet --example month --example ledger
    MONTH=target/release/examples/month
    LEDGER=target/release/examples/ledger
fi
exec python3 bench/money.py "$MONTH" "$LEDGER" "$requests"
