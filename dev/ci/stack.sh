#!/usr/bin/env bash
# Make an environment with one torch and one set of OpenMMLab packages, and run quick tests in it:
#   dev/ci/stack.sh TORCH forks|upstream [arguments of pytest]       (PYTHON=... picks the interpreter)
# It is made by uv where that is installed. Other versions are those of requirements/constraints.txt, where no package of the two asks for others.
# MMCV=mmcv-lite==2.2.0 takes another upstream mmcv. KEEP=FOLDER leaves the environment there.
set -euo pipefail
cd "$(dirname "$0")/../.."
torch=${1:?usage: dev/ci/stack.sh TORCH forks|upstream [arguments of pytest]}
libraries=${2:?forks or upstream}
shift 2
if [ $# = 0 ]; then # the model, weights, ops, configs and a training of each library
  set -- tests/test_core_model.py tests/test_core_windows.py tests/test_attention_backends.py tests/test_checkpoint_layouts.py \
    tests/test_checkpoint_tool.py tests/test_config_entries.py tests/test_libraries.py tests/test_models.py tests/test_optimizer.py \
    tests/test_ops_nms.py tests/test_ops_roi_align.py tests/test_ops_stand_in.py tests/test_private_names.py tests/test_resume.py \
    tests/test_runner.py tests/test_new.py tests/test_tta.py tests/test_walk.py
fi
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
venv=${KEEP:-$place/venv}
grep -vE '^(torch|torchvision|triton|sympy|setuptools|onedl-.*)==' requirements/constraints.txt >"$place/constraints.txt"
echo "torch==$torch" >>"$place/constraints.txt"
case $libraries in
  forks) packages=(-r requirements/openmmlab.txt) ;;
  upstream)
    { grep -v '^onedl-' requirements/openmmlab.txt; sed -E "s/^mmcv-lite==.*/${MMCV:-&}/" dev/ci/upstream.txt; } >"$place/upstream.txt"
    packages=(-r "$place/upstream.txt") ;;
  *) echo "forks or upstream, not $libraries" >&2; exit 2 ;;
esac
sed -E 's/^torch>=.*/torch/' requirements/core.txt >"$place/core.txt" # the version is that of the command line
start=$SECONDS
"${PYTHON:-python}" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)
install=("${pip[@]}" install)
! command -v uv >/dev/null || install=(uv pip install --quiet --python "$venv/bin/python")
"${install[@]}" --constraint "$place/constraints.txt" "${packages[@]}" -r "$place/core.txt" -r requirements/demo.txt -r requirements/demo_page.txt \
  pytest pytest-xdist hypothesis timm modelindex nbclient ipykernel
# As in tools/make_env.sh.
"${pip[@]}" uninstall --yes opencv-python opencv-python-headless
"${install[@]}" --no-deps --constraint requirements/constraints.txt opencv-python-headless
echo "environment: $((SECONDS - start)) s, $(du -sh "$venv" | cut -f1)"
export PYTHONPATH=$PWD
"$venv/bin/python" -m swinv2_mm env
start=$SECONDS
"$venv/bin/python" -m pytest -q -p no:cacheprovider "$@" && status=0 || status=$?
echo "torch $torch, $libraries: status $status after $((SECONDS - start)) s"
exit $status
