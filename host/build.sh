#!/usr/bin/env bash
# Installs what the build needs (Debian packages, only those that are missing), configures and builds pyhost.
#
#   bash host/build.sh [--dir DIR] [--packages "NAME ..."] [-D OPTION=VALUE]... [TARGET ...]
#
#   --dir DIR         the build folder, below the project's top (default: build/release)
#   --packages NAMES  install these too
#   -D OPTION=VALUE   passed to meson; the folder is configured anew when the options change
#   TARGET            what to build (default: everything that is built by default)
#
# Environment: PYHOST_PYTHON chooses the interpreter to embed (default /usr/bin/python3).
# A step that fails says which and how to mend it, and ends this with its exit code.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYHOST_PYTHON:-/usr/bin/python3}
dir=build/release
extra_packages=()
options=()
targets=()

say() { printf '==> %s\n' "$*"; }
fail() {
  printf 'build.sh: %s\n' "$1" >&2
  shift
  printf '          %s\n' "$@" >&2
  exit 1
}

while (($#)); do
  case $1 in
    --dir) dir=${2:?--dir needs a folder}; shift 2 ;;
    --packages) read -ra extra_packages <<<"${2?--packages needs names}"; shift 2 ;;
    -D) options+=("-D${2:?-D needs OPTION=VALUE}"); shift 2 ;;
    -D*) options+=("$1"); shift ;;
    -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    -*) fail "unknown option $1" "bash host/build.sh --help lists the options" ;;
    *) targets+=("$1"); shift ;;
  esac
done

# ---- packages -----------------------------------------------------------------------------------------------------

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "installing packages needs root, and there is no sudo" "run as root: $*"
  fi
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
known() { [[ $(apt-cache show "$1" 2>/dev/null) == *Package:* ]]; }

lists_updated=
update_lists() {
  [ -z "$lists_updated" ] || return 0
  say "updating the package lists"
  as_root apt-get update -qq || fail "apt-get update failed" "check /etc/apt/sources.list* and the network, then run this again"
  lists_updated=yes
}

install_missing() {
  local missing=() package
  for package in "$@"; do installed "$package" || missing+=("$package"); done
  ((${#missing[@]})) || return 0
  update_lists
  say "installing ${missing[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    fail "apt-get could not install ${missing[*]}" "run: apt-get install ${missing[*]}, and mend what it says"
}

# Boost.Process v2 needs Boost 1.81; Debian 12's default is older, and newer Boosts have the library in a package of its own.
boost_packages() {
  if installed libboost1.81-dev || known libboost1.81-dev; then
    echo libboost1.81-dev
  else
    echo libboost-dev
    if known libboost-process-dev; then echo libboost-process-dev; fi
  fi
}

if command -v apt-get >/dev/null; then
  install_missing build-essential meson ninja-build pkg-config python3
  python_version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') ||
    fail "$python does not run" "install python3, or set PYHOST_PYTHON to a Python 3.11 or newer"
  packages=(libabsl-dev libgtest-dev libgmock-dev libbenchmark-dev)
  # The development files of another Python than Debian's come with that Python.
  if [ "$python" = /usr/bin/python3 ]; then packages+=("libpython$python_version-dev"); fi
  known libboost-dev || update_lists
  mapfile -t boost < <(boost_packages)
  install_missing "${packages[@]}" "${boost[@]}" "${extra_packages[@]//PYTHON_VERSION/$python_version}"
  # What stands in for the modules that this libpython was made without.
  archive=$("$python" -I "$top/host/python_facts.py" | sed -n 's/^archive = //p')
  if [ -n "$archive" ]; then
    gaps=$("$python" -I "$top/host/missing_builtins.py" "$archive")
    if [[ $gaps == *"_blake2"* ]]; then install_missing libb2-dev; fi
    if [[ $gaps =~ _md5|_sha ]]; then install_missing nettle-dev; fi
  fi
else
  for tool in meson ninja g++ pkg-config; do
    command -v "$tool" >/dev/null || fail "$tool is not installed, and this system has no apt-get to install it with" \
      "install meson, ninja, a C++20 compiler, pkg-config, Boost, Abseil, GoogleTest, Google Benchmark and a static libpython"
  done
fi

# ---- configure and build ------------------------------------------------------------------------------------------

options+=("-Dpython=$python")
folder=$top/$dir
stamp=$folder/.configured-with
if [ ! -f "$folder/build.ninja" ] || [ "$(cat "$stamp" 2>/dev/null)" != "${options[*]}" ]; then
  say "configuring $dir (${options[*]})"
  rm -rf "$folder"
  mkdir -p "$folder"
  meson setup "$folder" "$top" "${options[@]}" >"$folder/configure.log" 2>&1 || {
    tail -n 15 "$folder/configure.log" >&2
    fail "configuring failed; the lines above say why" "the whole log is $folder/configure.log"
  }
  printf '%s' "${options[*]}" >"$stamp"
fi
say "building $dir"
ninja -C "$folder" "${targets[@]}" || fail "building failed; the lines above say where" "run again after mending: ninja -C $folder"
