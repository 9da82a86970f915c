#!/usr/bin/env bash
# Raise the upper bound of torch if the quick tests pass with its newest release:
#   PYTHON=... dev/ci/raise_torch.sh [arguments of pytest]
set -euo pipefail
cd "$(dirname "$0")/../.."
newest=$("${PYTHON:-python}" -m pip index versions torch 2>/dev/null | sed -n 's/^torch (\(.*\))$/\1/p')
IFS=. read -r major minor _ <<<"${newest:?the newest release of torch is not known}"
bound=$major.$((minor + 1))
if grep -qx "torch>=.*,<$bound" requirements/core.txt; then
  echo "torch $newest is within the range already"
  exit
fi
dev/ci/stack.sh "$newest" forks "$@"
sed -i -E "s/^(torch>=[^,]*,<).*/\1$bound/" requirements/core.txt
echo "requirements/core.txt takes torch <$bound now: commit it"
