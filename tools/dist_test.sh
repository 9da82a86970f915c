#!/usr/bin/env bash
# Run tools/test.py on several GPUs of one machine, or of several:
#   tools/dist_test.sh CONFIG CHECKPOINT NUM_GPUS [more arguments of tools/test.py]
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=first-host tools/dist_test.sh ...    (on each machine)
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 1; }
run=("$1" "$2")
gpus=$3
shift 3
exec "${PYTHON:-python}" -m torch.distributed.run \
  --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$gpus" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${MASTER_PORT:-29500}" \
  "$(dirname "$0")/test.py" "${run[@]}" --launcher pytorch "$@"
