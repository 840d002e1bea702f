#!/usr/bin/env bash
# From a fresh checkout to the main job: installs what is missing, builds pyhost, and runs examples/tokenize_stdlib.py with
# it, or another example:  bash examples/run.sh [EXAMPLE.py [ARGUMENT ...]]
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case ${1:-} in
  -h | --help)
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
bash "$top/host/build.sh" host/pyhost

example=${1:-tokenize_stdlib.py}
if (($#)); then shift; fi
[ -f "$example" ] || example=$top/examples/$example
[ -f "$example" ] || {
  printf 'run.sh: no example %s; there are: %s\n' "$example" "$(cd "$top/examples" && echo *.py)" >&2
  exit 2
}
printf '==> pyhost %s\n' "${example#"$top"/} $*"
exec "$top/build/release/host/pyhost" "$example" "$@"
