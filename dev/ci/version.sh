#!/usr/bin/env bash
# Check that a version is that of the package and has a section in the changelog:
#   dev/ci/version.sh 0.1.0
set -euo pipefail
cd "$(dirname "$0")/../.."
version=${1:?usage: dev/ci/version.sh VERSION}
grep -qxF "__version__ = '$version'" swinv2_mm/__init__.py || { echo "swinv2_mm/__init__.py is not of version $version" >&2; exit 1; }
grep -qF "## [$version]" CHANGELOG.md || { echo "CHANGELOG.md has no section [$version]" >&2; exit 1; }
