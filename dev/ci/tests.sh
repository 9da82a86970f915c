#!/usr/bin/env bash
# Make an environment, train the demo and run the quick tests in it, each with its seconds:
#   PYTHON=python3.13 dev/ci/tests.sh [arguments of pytest]
# CONSTRAINTS=/dev/null takes the newest versions that the requirements allow. The environment is VENV, .venv without it.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${VENV:-.venv}
timed() { # LABEL COMMAND ...
  local label=$1 start=$SECONDS
  shift
  "$@" && status=0 || status=$?
  echo "$label: $((SECONDS - start)) s, status $status"
  return $status
}
timed environment make VENV="$venv" env
"$venv/bin/python" -m swinv2_mm env
timed demo make VENV="$venv" demo
timed tests "$venv/bin/python" -m pytest "$@"
