#!/usr/bin/env bash
# Build the wheel and the sdist:
#   dev/ci/build.sh FOLDER        (PYTHON=... picks the interpreter; it needs setuptools)
# The tree is copied first, since setuptools writes into the one that it builds.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p "${1:?usage: dev/ci/build.sh FOLDER}"
out=$(cd "$1" && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
tar c --exclude=./.git --exclude=./.venv --exclude=./work_dirs --exclude=./data --exclude='*.egg-info' --exclude=./build --exclude=./dist \
  --exclude=__pycache__ . | tar x -C "$copy"
cd "$copy"
if [ -n "${GITHUB_REPOSITORY:-}" ]; then # the addresses are those of the place that publishes
  address=${GITHUB_SERVER_URL:-https://github.com}/$GITHUB_REPOSITORY
  sed -i "/^\[project.urls\]/a Repository = \"$address\"\nIssues = \"$address/issues\"\nChangelog = \"$address/blob/main/CHANGELOG.md\"\nDocumentation = \"$address/blob/main/docs/README.md\"" pyproject.toml
  # PyPI shows the README where no file of the repository is.
  sed -i -E "s#(!\[[^]]*\])\((docs/)#\1($address/raw/main/\2#g; s#\]\((docs/|projects/|configs/|[A-Za-z_-]+\.md)#]($address/blob/main/\1#g" README.md
fi
for kind in sdist wheel; do
  "${PYTHON:-python}" -c "from setuptools import build_meta; build_meta.build_$kind('$out')" >"$out/$kind.log" 2>&1 \
    || { tail -n 20 "$out/$kind.log" >&2; exit 1; }
done
ls -l "$out"/*.whl "$out"/*.tar.gz
