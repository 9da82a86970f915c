#!/usr/bin/env bash
# Check that the wheel without extras brings no OpenMMLab package, and leaves those of an environment alone:
#   dev/ci/alone.sh         (PYTHON=... is an interpreter with all requirements)
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
unset PYTHONPATH
dev/ci/build.sh "$place/dist" >"$place/build.log"
wheel=$(ls "$place"/dist/*.whl)
report() { "$python" -c "
import json, re, sys
names = sorted(item['metadata']['name'] for item in json.load(open(sys.argv[1]))['install'])
print(sys.argv[2], *names)
assert 'swinv2_mm' in names and not any(re.match('(onedl-)?mm', name) for name in names)
" "$place/report.json" "$1"; }

"$python" -m venv "$place/empty"
"$place/empty/bin/python" -m pip install --quiet --disable-pip-version-check --dry-run --report "$place/report.json" "$wheel"
report 'in an empty environment pip would install:'

dev/ci/overlay.sh "$place/full"
list() { "$python" -m pip --disable-pip-version-check --python "$place/full/bin/python" list --format freeze | grep -v '^swinv2' | sort; }
list >"$place/before"
"$python" -m pip --quiet --disable-pip-version-check --python "$place/full/bin/python" install --ignore-installed --no-deps "$wheel"
"$python" -m pip --quiet --disable-pip-version-check --python "$place/full/bin/python" install "$wheel"
list >"$place/after"
diff "$place/before" "$place/after"
echo "in an environment of $(wc -l <"$place/before") packages, OpenMMLab among them, none was added or changed"
