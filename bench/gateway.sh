#!/bin/sh
# Measures Sublet as a gateway before a model server, beside other gateways, on this machine.
#
#   bench/gateway.sh                 everything, in about ten minutes behind the build
#   bench/gateway.sh --rounds 1      a quick look
#   bench/gateway.sh --keys 100000   Sublet with 10, 1,000, 10,000 and 100,000 keys
#   BINARY=path LOAD=path bench/gateway.sh    with programs that were built already
#
# Peers are measured if their commands are found: nginx (apt-get install nginx), and from PyPI, best in an
# environment of their own whose bin is put on PATH: vllm-router, sglang-router, smg, 'litellm[proxy]'.
set -eu
cd "$(dirname "$0")/.."
ulimit -n 65536 2>/dev/null || true
if [ -z "${BINARY:-}" ] || [ -z "${LOAD:-}" ]; then
    cargo build --release -p sublet --bin sublet --example load
    BINARY=target/release/sublet
    LOAD=target/release/examples/load
fi
exec python3 bench/gateway.py --binary "$BINARY" --load "$LOAD" "$@"
