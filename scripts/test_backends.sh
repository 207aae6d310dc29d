#!/usr/bin/env bash
# bash scripts/test_backends.sh [TEST...]: what the network and its commands are made of, under TensorFlow, JAX and PyTorch in
# turn, or the given tests alone. Installs all three beside each other in .venv-backends, 4 GB, once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export VENV=.venv-backends
bash scripts/setup.sh requirements.txt requirements-dev.txt requirements-backends.txt

tests=("$@")
if [ $# -eq 0 ]; then
    for name in layers losses normalisation resnet model members parity checkpoint imagenet compiled precision backends train inference shipped_models; do
        tests+=("tests/test_$name.py")
    done
fi

failed=0
lines=()
for backend in tensorflow jax torch; do
    echo "== $backend"
    log=$VENV/$backend.log
    KERAS_BACKEND=$backend "$VENV/bin/python" -m pytest -m "not slow" -q -rfEs "${tests[@]}" 2>&1 | tee "$log" || failed=1
    lines+=("$backend: $(tail -n 1 "$log")")
done
printf '%s\n' "== all backends" "${lines[@]}"
exit $failed
