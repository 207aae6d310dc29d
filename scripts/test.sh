#!/usr/bin/env bash
# bash scripts/test.sh: sets up what is missing, then lint, types and tests; setup.cfg configures all.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh requirements.txt requirements-dev.txt

python=.venv/bin/python
echo "== lint"
"$python" -m flake8
echo "== types"
"$python" -m mypy
echo "== tests"
# Two at a time: most of the time is spent tracing graphs, which a process does on one core. With arguments
# --cov --cov-report=term-missing:skip-covered it also says which lines no test runs, and takes a minute longer.
"$python" -m pytest -m "not slow" -q -rfEs --durations=10 -n 2 --dist loadfile "$@"
