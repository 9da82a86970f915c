#!/usr/bin/env bash
# Make a virtual environment that sees the packages of an interpreter and changes none of them:
#   PYTHON=... dev/ci/overlay.sh FOLDER [packages for pip, which come before those of the interpreter]
set -euo pipefail
python=${PYTHON:-python}
folder=${1:?usage: dev/ci/overlay.sh FOLDER [PACKAGE ...]}
shift
packages() { "$1" -c "import sysconfig; print(sysconfig.get_path('purelib'))"; }
[ -d "$folder" ] || "$python" -m venv --without-pip "$folder"
packages "$python" >"$(packages "$folder/bin/python")/borrowed.pth"
# Python 3.12 and later have distutils from setuptools, by a file that is read in a folder of packages only.
cp "$(packages "$python")"/distutils-precedence.pth "$(packages "$folder/bin/python")" 2>/dev/null || true
[ $# = 0 ] || "$python" -m pip --quiet --disable-pip-version-check --python "$folder/bin/python" \
  install --no-build-isolation "$@" 2>"$folder/pip.log" || { cat "$folder/pip.log" >&2; exit 1; }
