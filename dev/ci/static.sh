#!/usr/bin/env bash
# Import without a warning and without what only POSIX has; ranges of Python and torch the same everywhere:
#   dev/ci/static.sh        (PYTHON=... is an interpreter with all requirements)
set -euo pipefail
cd "$(dirname "$0")/../.."
"${PYTHON:-python}" -W error -c 'import swinv2_mm.models'
exec "${PYTHON:-python}" -m pytest -n 0 -q tests/test_platforms.py
