#!/usr/bin/env bash
# Installs this package into an environment's own R library:  install.sh stock|latest
set -euo pipefail

stack=$1
here=$(cd "$(dirname "$0")" && pwd)
root=${ADADELTA_ENVIRONMENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/adadelta}
log=$root/$stack-install.log

if ! "$here/use.sh" "$stack" R CMD INSTALL --library="$root/$stack-R" "$here/.." \
  >"$log" 2>&1 </dev/null; then
  echo "Installing the package failed. The end of $log:" >&2
  tail -n 20 "$log" >&2
  exit 1
fi
