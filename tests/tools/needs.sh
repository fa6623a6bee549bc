#!/usr/bin/env bash
# Prints what a long command needs, and stops before it starts if that is missing:
#
#     needs.sh bench|choosing|gpu|paper|site
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
gpu)
  echo "make gpu takes up to 5 minutes and needs Linux with an NVIDIA GPU and its driver. It uses this" \
    "Python where that has torch and JAX for CUDA, or else downloads them, some gigabytes."
  if ! command -v nvidia-smi >/dev/null; then
    stop "There is no NVIDIA GPU: nvidia-smi is not found." \
      "python bench/gpu.py --dry runs the same on the processor."
  fi
  ;;
site)
  echo "make site takes some minutes and needs the stock environment, of 5 GB, with pkgdown, pdoc and pandoc."
  ;;
*)
  echo "usage: tests/tools/needs.sh bench|choosing|gpu|paper|site" >&2
  exit 2
  ;;
esac

# These train on MNIST; without a named file, bench uses random images.
if [[ $1 =~ ^(bench|choosing|paper)$ ]] && [ -n "${ADADELTA_MNIST+set}" ] && [ ! -r "$ADADELTA_MNIST" ]; then
  stop "ADADELTA_MNIST names no file that can be read: $ADADELTA_MNIST" \
    "Set it to the path of a file mnist.npz, or unset it."
fi
