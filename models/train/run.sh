#!/bin/sh
# Makes the model folder again from nothing: a virtual environment, the corpus, the training, the reference figures, the checks.
# One thread, so that the same versions give the same file. VENV and OUT may be set from outside.
set -eu
cd "$(dirname "$0")"
VENV=${VENV:-../../target/model-venv}
OUT=${OUT:-../sublet-mini}
export XLA_FLAGS=--xla_cpu_multi_thread_eigen=false OPENBLAS_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE=1
[ -x "$VENV/bin/python" ] || python3 -m venv "$VENV"
"$VENV/bin/pip" install --quiet --requirement requirements.txt
nice -n 10 "$VENV/bin/python" train.py "$OUT" --progress "$VENV"
nice -n 10 "$VENV/bin/python" reference.py "$OUT"
nice -n 10 "$VENV/bin/python" check.py "$OUT"
