#!/usr/bin/env bash
# From a fresh checkout to every test: installs what is missing, builds pyhost and its tests, runs all suites with a line
# for each, and ends with `N passed, N failed`.  The exit code is 0 when none failed.
#
#   bash tests/run.sh [--list] [--sanitizers] [--strict] [--verbose] [SUITE ...]
#
#   --list        name the suites and end
#   --sanitizers  also the C++ suites under ThreadSanitizer (under AddressSanitizer + UndefinedBehaviorSanitizer they run
#                 always)
#   --strict      a warning of the compiler is an error in build/release, too (it always is in the builds that only tests use;
#                 build/release is examples/run.sh's as well)
#   --verbose     show the output of every suite, not only of failing ones
#   SUITE         run only suites whose name contains one of these words
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
sanitizers=
for_release=()
arguments=()
for argument; do
  case $argument in
    -h | --help)
      sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --sanitizers) sanitizers=yes ;;
    --strict) for_release=(-D werror=true) ;;
    *) arguments+=("$argument") ;;
  esac
done

packages="libpythonPYTHON_VERSION-testsuite python3-numpy python3-joblib python3-cloudpickle python3-coverage python3-pytest python3-venv procps cmake"
build() { bash "$top/host/build.sh" "$@"; }
# The program as it is shipped, for everything that users see; the same with crash points, for what tests kill; and the
# core's own suites, with crash points and sanitizers.
build --packages "$packages" "${for_release[@]}" host/pyhost host_tests
for_tests=(-D werror=true -D optimization=1 -D debug=false -D cpp_args=-g1 -D crash_points=true)
build --dir build/crash "${for_tests[@]}" host/pyhost
build --dir build/asan "${for_tests[@]}" -D b_sanitize=address,undefined -D b_lundef=false runtime_tests
builds=("$top/build/release" "$top/build/crash" "$top/build/asan")
if [ -n "$sanitizers" ]; then
  build --dir build/tsan "${for_tests[@]}" -D b_sanitize=thread -D b_lundef=false runtime_tests
  builds+=("$top/build/tsan")
fi
exec /usr/bin/python3 "$top/tests/run_suites.py" "${arguments[@]}" "${builds[@]}"
