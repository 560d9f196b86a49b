#!/bin/sh
# Measures the embedded engine beside llama.cpp on this machine, and checks the logits of both.
#
#   bench/engine.sh                    everything, in about fifteen minutes behind the build
#   bench/engine.sh --rounds 1         a quick look
#   bench/engine.sh --processor        one thread each in processor time, for a machine that has other work as well
#   bench/engine.sh --check            only the logits
#   bench/engine.sh --models FOLDER    keeps the models (0.7 GB) for the next time
#   BINARY=path bench/engine.sh        with a program that was built already
#
# It needs numpy and gguf, which make the model; llama.cpp is measured where llama-cpp-python is found, which is
# compiled for this processor when it is installed (a C++ compiler, some twenty minutes on two cores):
#
#   uv venv .venv && CMAKE_ARGS=-DGGML_NATIVE=ON uv pip install --python .venv/bin/python numpy gguf llama-cpp-python
#   PYTHON=.venv/bin/python bench/engine.sh
set -eu
cd "$(dirname "$0")/.."
if [ -z "${BINARY:-}" ]; then
    cargo build --release -p sublet --bin sublet
    BINARY=target/release/sublet
fi
exec "${PYTHON:-python3}" bench/engine.py --binary "$BINARY" "$@"
