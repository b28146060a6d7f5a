#!/usr/bin/env bash
# Submit a run to a running Ray cluster and follow its log.
#
#   RAY_ADDRESS=http://127.0.0.1:8265 jobs/ray_job_submit.sh farm.chips=8 study=train
#
# RAY_ADDRESS      the cluster's dashboard address (reach it through an SSH tunnel, never openly)
# RAY_AUTH_TOKEN   the cluster's token, or RAY_AUTH_TOKEN_PATH, a file with it
# REPAST_PYTHON    the interpreter on the cluster that has repast-dist installed; default python
# REPAST_RUNS      where run directories go on the cluster; default $HOME/repast-runs
set -euo pipefail
: "${RAY_ADDRESS:?the address of the dashboard, for example http://127.0.0.1:8265}"
if [ -z "${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-}" ]; then
  echo "RAY_AUTH_TOKEN: the token of the cluster, or RAY_AUTH_TOKEN_PATH, a file with it" >&2
  exit 1
fi
export RAY_AUTH_MODE=token
python=${REPAST_PYTHON:-python}
runs=${REPAST_RUNS:-\$HOME/repast-runs}

# `ray job submit` hands the words behind -- to a shell on the cluster: quote each of them.
settings=""
for setting in "$@"; do
  settings+=" $(printf '%q' "$setting")"
done
exec ray job submit --address "$RAY_ADDRESS" -- \
  sh -c "$python -m repast_dist.cli farm.address=auto run_root=$runs$settings"
