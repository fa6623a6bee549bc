#!/usr/bin/env bash
# Runs a command inside an environment:  use.sh stock|latest COMMAND [ARGUMENT ...]
set -euo pipefail

stack=$1
shift
root=${ADADELTA_ENVIRONMENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/adadelta}

export PATH="$root/$stack/bin:$PATH"
# The caller's R_LIBS, not that of an environment this one is used inside of.
export ADADELTA_R_LIBS="${ADADELTA_R_LIBS-${R_LIBS:-}}"
export R_LIBS="$root/$stack-R${ADADELTA_R_LIBS:+:$ADADELTA_R_LIBS}"
export RETICULATE_PYTHON="$root/$stack/bin/python"
export KERAS_BACKEND="${KERAS_BACKEND:-jax}"
# Importing Keras writes a settings file; the user's own stays out of this.
export KERAS_HOME="$root/keras"
# Without a locale R cannot read the UTF-8 of its own packages.
if [ -z "${LC_ALL:-}${LC_CTYPE:-}${LANG:-}" ]; then export LANG=C.UTF-8; fi

exec "$@"
