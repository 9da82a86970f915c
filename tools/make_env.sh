#!/usr/bin/env bash
# Create or update a virtual environment with swinv2_mm and all it needs. No compiler is used.
#
#   tools/make_env.sh FOLDER        (PYTHON=python3.12 picks the interpreter)
#
# CONSTRAINTS=/dev/null takes the newest versions that the requirements allow, not the tested ones.
# A finished environment is left alone until a requirement file changes.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:?usage: tools/make_env.sh FOLDER}
python=${PYTHON:-python3}
constraints=${CONSTRAINTS:-requirements/constraints.txt}

fail() { echo "error: $*" >&2; exit 1; }
command -v "$python" >/dev/null || fail "no $python found; install Python 3.10 to 3.14 (Debian: apt-get install python3 python3-venv)"
version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])') || fail "$python does not run; name another by PYTHON=python3.12 make ..."
case $version in
  3.1[0-4].*) ;;
  *) fail "Python $version is not supported, Python 3.10 to 3.14 are; name one by PYTHON=python3.12 make ..." ;;
esac

key=$({ cat "$constraints" requirements/*.txt tools/make_env.sh; sed '/^\[tool.ruff\]/,$d' pyproject.toml; } | sha256sum | cut -d' ' -f1)
here=$(pwd)
if [ "$(cat "$venv/.installed" 2>/dev/null)" != "$key" ]; then
  echo "Making the environment in $venv (once; 3 to 5 minutes, 7 GB) ..."
  rm -f "$venv/.installed"
  if ! "$python" -m venv "$venv" 2>/dev/null; then
    # Debian's python3 comes without ensurepip.
    rm -rf "$venv"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      echo "python3 -m venv does not work here: installing Debian's python3-venv ..."
      apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null
    fi
    "$python" -m venv "$venv" || fail "$python -m venv does not work; on Debian or Ubuntu: apt-get install python3-venv"
  fi
  pip=("$venv/bin/python" -m pip --disable-pip-version-check)
  install=("${pip[@]}" install --quiet)
  # Where uv is, the same in a third of the time.
  ! command -v uv >/dev/null || install=(uv pip install --quiet --python "$venv/bin/python")
  "${install[@]}" --constraint "$constraints" -e '.[all,test]'
  # opencv-python, which the OpenMMLab packages ask for, needs libGL; the headless build of the
  # same module does not. The one installed last is the one that is imported.
  "${pip[@]}" uninstall --quiet --yes opencv-python opencv-python-headless
  "${install[@]}" --no-deps --constraint "$constraints" opencv-python-headless
  echo "$key" > "$venv/.installed"
  echo "$here" > "$venv/.source"
  echo "Environment ready: $(du -sh "$venv" | cut -f1)."
fi
if [ "$(cat "$venv/.source" 2>/dev/null)" != "$here" ]; then
  # An environment shared by several clones serves the one that asks.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -e .
  echo "$here" > "$venv/.source"
fi
