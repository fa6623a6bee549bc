#!/usr/bin/env bash
# Says what a long command needs, and ends before it begins where that is missing:
#
#     needs.sh bench|choosing|paper|site
set -euo pipefail

stop() {
  printf '%s\n' "$@" >&2
  exit 1
}

case ${1:-} in
bench)
  echo "make bench takes long and needs both environments, of 6 GB, and a machine that does nothing else."
  ;;
choosing | paper)
  case $1 in choosing) time="ten minutes" ;; paper) time="half an hour" ;; esac
  echo "make $1 takes $time and needs MNIST: the file mnist.npz that ADADELTA_MNIST names," \
    "or else the copy in the folder of Keras, which is downloaded (11 MB) when it is missing."
  ;;
site)
  echo "make site takes some minutes and needs the stock environment, of 5 GB, with pkgdown, pdoc and pandoc."
  ;;
*)
  echo "usage: tests/tools/needs.sh bench|choosing|paper|site" >&2
  exit 2
  ;;
esac

# All but site train on MNIST; bench on random images where no file is named.
if [ "$1" != site ] && [ -n "${ADADELTA_MNIST+set}" ] && [ ! -r "$ADADELTA_MNIST" ]; then
  stop "ADADELTA_MNIST names no file that can be read: $ADADELTA_MNIST" \
    "Set it to the path of a file mnist.npz, or unset it."
fi
