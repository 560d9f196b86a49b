#!/bin/sh
# Measures a month of charges on this machine: settled, closed and sealed, its bundle read, and verified.
#
#   bench/money.sh                    1,000,000 charges on SQLite and on PostgreSQL
#   bench/money.sh 5000000            as many requests, with two charges each
#   BINARY=path bench/money.sh        with a program that was built already
#
# PostgreSQL is the one that 'cargo xtask test-env' finds or installs.
set -eu
cd "$(dirname "$0")/.."
requests=${1:-500000}
if [ -z "${BINARY:-}" ]; then
    cargo build --release -p sublet --example month
    BINARY=target/release/examples/month
fi
for database in sqlite postgresql; do
    echo "$database: $("$BINARY" "$requests" "$database")"
done
