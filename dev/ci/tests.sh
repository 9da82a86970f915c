#!/usr/bin/env bash
# Make an environment and run the quick tests in it:
#   PYTHON=python3.13 dev/ci/tests.sh [arguments of pytest]
# UNPINNED=1 takes the newest versions that the requirements allow.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ -n "${UNPINNED:-}" ]; then
  : >requirements/constraints.txt
fi
venv=${VENV:-.venv}
make VENV="$venv" env
"$venv/bin/python" -m swinv2_mm env
exec "$venv/bin/python" -m pytest "$@"
