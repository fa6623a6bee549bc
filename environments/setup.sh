#!/usr/bin/env bash
# Prepares one of the two supported stacks:
#   setup.sh stock|latest demo|test|all|trainers|site
#
#   stock     what Debian 12 ships: its R packages, NumPy 1
#   latest    NumPy 2, newest JAX and Keras, reticulate 1.41 or newer
#
#   demo      enough to train with the default backend and to plot
#   test      and to run the tests and the linters
#   all       and the TensorFlow and torch backends
#   trainers  and Accelerate and Lightning, in an environment on top
#   site      and to build the web pages and to measure the coverage of the tests
#
# What is already installed is used as it is; only what is missing is added.
# Python packages go to a virtual environment outside the repository, because
# R CMD build copies the whole tree and stops at a link loop.
set -euo pipefail

usage() {
  echo "usage: environments/setup.sh stock|latest demo|test|all|trainers|site" >&2
  exit 2
}
stack=${1:-}
level=${2:-}
case $stack in stock | latest) ;; *) usage ;; esac
case $level in demo | test | all | trainers | site) ;; *) usage ;; esac

here=$(cd "$(dirname "$0")" && pwd)
root=${ADADELTA_ENVIRONMENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/adadelta}
venv=$root/$stack
library=$root/$stack-R
log=$root/$stack-setup.log
export R_LIBS="$library${R_LIBS:+:$R_LIBS}"

requirements=("$here/demo.txt")
[ "$level" = demo ] || requirements+=("$here/test.txt")
case $level in all | trainers | site) requirements+=("$here/backends.txt") ;; esac
[ "$level" != site ] || requirements+=("$here/site.txt")

# --- Nothing to do? -------------------------------------------------------
# A stamp holds the hash of what was asked for; a higher level serves a lower.
fingerprint() {
  { cat "$here"/*.txt "$here"/*.sh; R --version 2>&1 | sed -n 1p; } | cksum
}
ready() {
  "$venv/bin/python" -c "" 2>/dev/null || return 1
  local now stamp
  now=$(fingerprint)
  for stamp in demo test all trainers site; do
    [ "$stamp" != "$level" ] || local enough=yes
    if [ "${enough:-}" ] && [ "$(cat "$venv/.ready-$stamp" 2>/dev/null)" = "$now" ]; then
      return 0
    fi
  done
  return 1
}
mkdir -p "$library"
# One setup at a time, also when two shells share the folder.
exec 9>"$root/.lock"
if command -v flock >/dev/null; then flock 9; fi
if ready; then exit 0; fi

# --- Telling what happens -------------------------------------------------
: >"$log"
say() {
  echo "[$stack $level] $*"
  echo "=== $*" >>"$log"
}
quietly() { "$@" >>"$log" 2>&1 </dev/null 9>&-; }
stop() {
  printf '%s\n' "$@" >&2
  trap - EXIT
  exit 1
}
on_exit() {
  local status=$?
  [ "$status" = 0 ] || {
    echo "Setting up '$stack $level' failed. The end of $log:"
    tail -n 20 "$log"
  } >&2
}
trap on_exit EXIT

# --- What is missing on this machine --------------------------------------
r_packages=(ggplot2)
if [ "$stack" = stock ]; then
  r_packages+=(reticulate)
else
  # What reticulate itself is built on: reticulate.sh takes care of the rest.
  r_packages+=(Matrix Rcpp RcppTOML here jsonlite png rappdirs rlang withr)
fi
if [ "$level" != demo ]; then
  r_packages+=(cli codetools jsonlite knitr lintr pkgload rmarkdown roxygen2 testthat withr)
  # The linters run on one stack only.
  [ "$stack" != stock ] || r_packages+=(spelling)
fi
[ "$level" != site ] || r_packages+=(covr pkgdown)

missing_r_packages() {
  if ! command -v Rscript >/dev/null; then
    printf '%s\n' "${r_packages[@]}"
    return
  fi
  Rscript --no-init-file --no-site-file -e 'for (p in unique(commandArgs(TRUE)))
    if (!suppressWarnings(requireNamespace(p, quietly = TRUE))) cat(p, "\n", sep = "")' \
    "${r_packages[@]}" 2>>"$log"
}
# Packages from apt are compiled for the R from apt, and bring that R along.
r_is_from_apt() {
  ! command -v R >/dev/null || dpkg -S "$(R RHOME)/bin/R" >/dev/null 2>&1
}
links_with_r() {
  local flags
  flags=$(R CMD config --ldflags 2>/dev/null) || return 1
  # shellcheck disable=SC2086  # a list of flags
  echo 'int none;' | g++ -x c++ -shared -fPIC -o /dev/null - $flags 2>/dev/null
}

# reticulate loads Python as a shared library, so that must be there too.
# NumPy 1 was never built for Python 3.13.
python_serves() {
  "$1" - "$stack" 2>/dev/null <<'PYTHON'
import ctypes, ensurepip, os, sys, sysconfig, venv
assert sys.version_info >= (3, 11)
assert sys.argv[1] == "latest" or sys.version_info < (3, 13)
get = sysconfig.get_config_var
ctypes.CDLL(os.path.join(get("LIBDIR"), get("INSTSONAME") or get("LDLIBRARY")))
PYTHON
}
find_python() {
  local python
  for python in ${ADADELTA_PYTHON:-python3 python3.12 python3.11 /usr/bin/python3}; do
    if command -v "$python" >/dev/null && python_serves "$python"; then
      command -v "$python"
      return
    fi
  done
}
has_headers() {
  "$1" -c 'import os, sysconfig
assert os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null
}

say "looking at what is there"
apt_packages=()
cran_packages=()
for package in $(missing_r_packages); do
  if r_is_from_apt; then
    apt_packages+=("r-cran-${package,,}")
  else
    cran_packages+=("$package")
  fi
done
command -v Rscript >/dev/null || apt_packages+=(r-base-core)
if [ "$level" != demo ] || [ "$stack" = latest ]; then
  links_with_r || apt_packages+=(r-base-dev)
fi
if [ "$level" != demo ]; then
  command -v make >/dev/null || apt_packages+=(make)
  command -v pandoc >/dev/null || apt_packages+=(pandoc)
  command -v qpdf >/dev/null || apt_packages+=(qpdf)
fi
python=$(find_python)
if [ -z "$python" ]; then
  apt_packages+=(python3-venv python3-dev)
elif [ "$level" != demo ] && ! has_headers "$python"; then
  apt_packages+=(python3-dev) # rpy2 is compiled here
fi

if [ ${#cran_packages[@]} -gt 0 ]; then
  names=$(printf '"%s", ' "${cran_packages[@]}")
  stop "R packages are missing. Install them in R, then try again:" \
    "  install.packages(c(${names%, }))"
fi
if [ ${#apt_packages[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    stop "System packages are missing. Install them, then try again. On Debian:" \
      "  sudo apt-get install --no-install-recommends ${apt_packages[*]}" \
      "Elsewhere: R packages come from CRAN, Python (3.11 or newer, with its shared" \
      "library and headers) and the other programs from your system."
  fi
  say "installing with apt: ${apt_packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  quietly apt-get update || say "apt-get update failed; trying with the lists at hand"
  quietly apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 \
    "${apt_packages[@]}"
  python=$(find_python)
  [ -n "$python" ] || stop "No suitable Python: $stack needs one that is 3.11 or newer" \
    "(for stock, at most 3.12), with venv and its shared library." \
    "Name it with ADADELTA_PYTHON=/path/to/python3."
fi

# --- R packages of our own ------------------------------------------------
if [ "$stack" = latest ]; then
  say "reticulate for NumPy 2"
  quietly "$here/reticulate.sh" "$library"
fi

# --- Python packages ------------------------------------------------------
# A virtual environment whose Python has gone is made anew.
if [ -e "$venv/pyvenv.cfg" ] && ! "$venv/bin/python" -c "" 2>/dev/null; then
  rm -rf "$venv"
fi
if [ ! -x "$venv/bin/pip" ]; then
  say "making a virtual environment of $python"
  quietly "$python" -m venv "$venv"
fi
constraints=("$here/$stack.txt")
# rpy2 3.5.17 is the last release that runs on R before 4.5.
if Rscript --no-init-file --no-site-file -e 'quit(status = getRversion() >= "4.5")'; then
  echo "rpy2<=3.5.17" >"$venv/rpy2.txt"
  constraints+=("$venv/rpy2.txt")
fi
say "installing Python packages (a few minutes the first time)"
quietly "$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
  "${requirements[@]/#/--requirement=}" "${constraints[@]/#/--constraint=}"

# On top, so that the packages they bring along can't hide that the stack lacks one.
install_trainers() {
  local python=$venv/trainers/bin/python
  local folder='import sysconfig; print(sysconfig.get_path("purelib"))'
  say "installing Accelerate and Lightning"
  quietly "$venv/bin/python" -m venv "$venv/trainers"
  "$venv/bin/python" -c "$folder" >"$("$python" -c "$folder")/$stack.pth"
  quietly "$python" -m pip install --disable-pip-version-check --no-input \
    --requirement="$here/trainers.txt" "${constraints[@]/#/--constraint=}"
}
case $level in trainers | site) install_trainers ;; esac

fingerprint >"$venv/.ready-$level"
say "ready in $root"
