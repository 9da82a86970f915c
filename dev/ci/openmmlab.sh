#!/usr/bin/env bash
# Train a leaf of `swinv2-mm new` by the libraries' own tools/train.py and by `mim train`, then predict by their inferencers,
# with the wheel, in an empty folder:
#   dev/ci/openmmlab.sh [detection segmentation classification]
# PYTHON=... is an interpreter with all requirements, which are borrowed.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
[ $# != 0 ] || set -- detection segmentation classification
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
unset PYTHONPATH SWINV2_DATA
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
dev/ci/build.sh "$place/dist" >"$place/build.log"
dev/ci/overlay.sh "$place/venv" onedl-mim
dev/ci/overlay.sh "$place/venv" --no-deps --ignore-installed "$place"/dist/*.whl
bin=$place/venv/bin
mkdir "$place/empty" && cd "$place/empty"
"$bin/python" -c "
from swinv2_mm.shipped import add_projects_to_path
add_projects_to_path()
from projects.digits.dataset import make_digits_on_photos
make_digits_on_photos('street', num_train=16, num_val=4, num_train_crops_per_class=2, num_val_crops_per_class=2, progress=False)
"
image=$(ls street/images/val/* | head -1)

step() { # what runs is named with its seconds; its output is shown if it fails
  local start=$SECONDS
  if "$@" >"$place/output" 2>&1; then
    echo "ok   $((SECONDS - start)) s  $(tail -n 1 "$place/output" | cut -c1-100)"
  else
    echo "FAILED  $*" >&2
    tail -n 30 "$place/output" >&2
    exit 1
  fi
}

train() { # TASK LIBRARY PACKAGE LENGTH WEIGHTS
  local options=(--cfg-options train_dataloader.batch_size=2 train_cfg."$4" train_cfg.val_interval="${4#*=}" default_hooks.checkpoint.interval="${4#*=}")
  for loader in train val test; do
    options+=("${loader}_dataloader.num_workers=0" "${loader}_dataloader.persistent_workers=False")
  done
  echo "$1: a leaf, $2's tools/train.py, mim train $3, the inferencer"
  step "$bin/swinv2-mm" new "$1" --data street --small --out "$1.py"
  step "$bin/python" "$("$bin/python" -c "from importlib.util import find_spec; print(find_spec('$2').submodule_search_locations[0])")/.mim/tools/train.py" \
    "$1.py" --work-dir "own/$1" "${options[@]}"
  PATH=$bin:$PATH step "$bin/mim" train "$3" "$1.py" --work-dir "mim/$1" "${options[@]}"
  ls "own/$1/$5" "mim/$1/$5" >"$place/output"
  # What MMEngine pickles with the weights is not in torch's list of safe types.
  TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 step "$bin/python" "$root/dev/ci/predict.py" "$2" "$1.py" "mim/$1/$5" "$image"
}

for task; do
  case $task in
    detection) train detection mmdet onedl-mmdetection max_iters=2 iter_2.pth ;;
    segmentation) train segmentation mmseg onedl-mmsegmentation max_iters=2 iter_2.pth ;;
    classification) train classification mmpretrain onedl-mmpretrain max_epochs=1 epoch_1.pth ;;
  esac
done
