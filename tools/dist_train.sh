#!/usr/bin/env bash
# Run tools/train.py on several GPUs of one machine, or of several:
#   tools/dist_train.sh CONFIG NUM_GPUS [more arguments of tools/train.py]
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=first-host tools/dist_train.sh ...    (on each machine)
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 1; }
run=("$1")
gpus=$2
shift 2
exec "${PYTHON:-python}" "$(dirname "$0")/torchrun.py" \
  --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$gpus" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${MASTER_PORT:-29500}" \
  "$(dirname "$0")/train.py" "${run[@]}" --launcher pytorch "$@"
