#!/usr/bin/env bash
# Train as a Slurm job that goes on by itself after a pre-emption or its time limit:
#   [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SBATCH_ARGS=--time=24:00:00] tools/slurm_requeue.sh PARTITION JOB_NAME CONFIG [more arguments of tools/train.py]
set -euo pipefail
# Exit status of tools/train.py after preemption, with a checkpoint saved.
preempted=75

if [ "${1:-}" != --in-job ]; then
  [ $# -ge 3 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 1; }
  partition=$1
  job=$2
  shift 2
  gpus=${GPUS:-8}
  per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
  read -ra more <<< "${SBATCH_ARGS:-}"
  # The steps get SIGUSR1 two minutes before the time limit, and SIGTERM when the job is preempted.
  exec sbatch --partition="$partition" --job-name="$job" --gres="gpu:$per_node" --ntasks="$gpus" \
    --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" --requeue --signal=USR1@120 \
    --open-mode=append --output="$job-%j.out" "${more[@]}" \
    "$0" --in-job "$(cd "$(dirname "$0")" && pwd)" "$@"
fi

# Slurm runs a copy of this script: where the tools are comes with it.
tools=$2
shift 2
trap : TERM USR1  # meant for the steps
status=0
srun --kill-on-bad-exit=1 "${PYTHON:-python}" -u "$tools/train.py" "$@" --resume --launcher slurm || status=$?
if [ "$status" = "$preempted" ]; then
  echo "stopped and saved: back into the queue"
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
