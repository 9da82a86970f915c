#!/usr/bin/env bash
# Build the wheel and the sdist, install each in a fresh virtual environment, and run every command
# in an empty folder, on generated digits:
#   dev/ci/wheel.sh          (PYTHON=... is an interpreter with all requirements, which are borrowed)
#   FULL=1 dev/ci/wheel.sh   (the new environment downloads all requirements instead)
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
unset PYTHONPATH SWINV2_DATA
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

dev/ci/build.sh "$place/dist"

install() { # FILE FOLDER
  if [ -n "${FULL:-}" ]; then
    "$python" -m venv "$2"
    "$2/bin/python" -m pip install --quiet "$1[all,export,demo_page]"
    python=$2/bin/python # the next one borrows these 8 GB
    unset FULL
  else
    # The environment may have the package already, from a clone: it is neither used nor changed.
    PYTHON=$python dev/ci/overlay.sh "$2" --no-deps --ignore-installed "$1"
  fi
}

step() { # what runs is named with its seconds; its output is shown if it fails
  local start=$SECONDS
  if "$@" >"$place/output" 2>&1; then
    echo "ok   $((SECONDS - start)) s  ${*/#$place\//}"
  else
    echo "FAILED  $*" >&2
    tail -n 30 "$place/output" >&2
    exit 1
  fi
}

serve() { # the demo page answers
  "$1" demo --port 0 --model "$2" "$3" >"$place/page" 2>&1 &
  local page=$!
  for _ in $(seq 120); do
    url=$(grep -o 'http://[0-9.:]*' "$place/page" | head -1) && break
    sleep 1
  done
  "$python" -c "import sys, urllib.request; assert urllib.request.urlopen(sys.argv[1]).status == 200" "$url"
  local status=$?
  kill $page && wait $page || true # an interrupt is ignored behind a script
  return $status
}

short() { # options of a training of two steps
  echo --cfg-options train_dataloader.batch_size=2 train_dataloader.num_workers=0 val_dataloader.num_workers=0 \
    test_dataloader.num_workers=0 train_cfg."$1" train_cfg.val_interval="${1#*=}" default_hooks.checkpoint.interval="${1#*=}"
}

install "$place"/dist/*.whl "$place/wheel"
install "$place"/dist/*.tar.gz "$place/sdist"
mkdir "$place/empty" && cd "$place/empty"
mm=$place/wheel/bin/swinv2-mm
where=$("$place/wheel/bin/python" -c "import swinv2_mm; print(swinv2_mm.__file__)")
case $where in "$place"/wheel/*) ;; *) echo "the package is that of $where" >&2; exit 1 ;; esac

step "$mm" env
step "$mm" quickstart --images 8 --iterations 2
cp -r work_dirs/quickstart/data/digits digits
for folder in digits/folders/*/*/; do # an epoch of a few steps
  find "$folder" -type f | sort | tail -n +3 | xargs rm -f
done
for task in detection segmentation classification; do
  [ $task = classification ] && length=max_epochs=1 || length=max_iters=2
  step "$mm" new $task --data digits --small --out $task.py
  step "$mm" check $task.py --num-images 2
  step "$mm" train $task.py $(short $length)
  weights=$(cat work_dirs/$task/last_checkpoint)
  config=work_dirs/$task/$task.py
  step "$mm" test "$config" "$weights" --tta
  step "$mm" infer digits/images/val --config "$config" --weights "$weights" --out found_$task
  step "$mm" report work_dirs/$task --num-images 2
  step "$mm" export "$config" "$weights" $task.onnx
done
step "$mm" complexity "$config" --shape 64
step "$mm" memory "$config" --budget 24GB
step "$mm" plot bias "$weights" --out bias.png
step "$mm" checkpoint inspect "$weights"
step serve "$mm" "$config" "$weights"

mkdir "$place/from_sdist" && cd "$place/from_sdist"
mm=$place/sdist/bin/swinv2-mm
cp -r ../empty/digits .
step "$mm" new segmentation --data digits --small
step "$mm" train digits.py $(short max_iters=2)
echo "The wheel and the sdist work where there is no clone."
