#!/usr/bin/env bash
# Many chips on this machine, each in a process of its own:  jobs/local.sh 8 inversion.method=refine
set -euo pipefail
if [ "$#" -lt 1 ]; then
  echo "usage: jobs/local.sh CHIPS [SETTING=VALUE ...]" >&2
  exit 2
fi
chips=$1
shift
exec repast-dist "farm.chips=$chips" farm.backend=ray farm.address=local "$@"
