#!/usr/bin/env bash
# Makes sure that R finds a reticulate that knows NumPy 2:  reticulate.sh LIBRARY
#
# One that is installed is used. Otherwise, on Debian, the source package of the
# next Debian release is built into LIBRARY. apt gets its own lists and
# sources for that, so the machine's configuration stays as it is.
set -euo pipefail

library=$1
wanted=1.41
next=trixie

recent() {
  R_LIBS="$library${R_LIBS:+:$R_LIBS}" Rscript --no-init-file --no-site-file -e \
    "quit(status = !(requireNamespace('reticulate', quietly = TRUE) &&
                     packageVersion('reticulate') >= '$wanted'))" >/dev/null 2>&1
}
by_hand() {
  echo "reticulate $wanted or newer is missing, and $1." >&2
  echo "Install it in R, then try again:" >&2
  echo "  install.packages(\"reticulate\", lib = \"$library\")" >&2
  exit 1
}

if recent; then exit 0; fi
command -v apt-get >/dev/null || by_hand "there is no apt here to get its source from"

# shellcheck disable=SC1091
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
# shellcheck disable=SC2016  # the names are apt's, not the shell's
mirror=$(apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
  awk -v codename="$codename" '$1 == "Debian" && $2 == codename { print $3; exit }')
[ -n "$mirror" ] || by_hand "apt knows no Debian mirror"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
signed=
[ ! -e "$keyring" ] || signed="[signed-by=$keyring] "
echo "deb-src $signed$mirror $next main" >"$work/sources.list"
private_apt() {
  apt-get -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" \
    -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o APT::Sandbox::User="$(id -un)" "$@"
}

cd "$work"
private_apt update
# Only upstream's archive: Debian's patches concern Debian's own builds.
private_apt source --download-only --tar-only r-cran-reticulate
mkdir source
tar -xf r-cran-reticulate_*.orig.tar.* -C source --strip-components=1
mkdir -p "$library"
R CMD INSTALL --library="$library" --no-docs --no-test-load source
recent || by_hand "the one from Debian $next is not enough"
