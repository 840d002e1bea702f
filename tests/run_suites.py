"""Runs the suites that `meson test` knows, with a line for each as it ends, and adds up their cases.

usage: run_suites.py [--list] [--verbose] [WORD ...] BUILD_FOLDER ...

Each suite is a program that prints GoogleTest's, unittest's or regrtest's closing lines; a suite whose output has none of
them counts as one case by its exit code, and a suite that fails without saying which case counts as one failure, so no
crash and no time-out goes uncounted.  The last line is `N passed, N failed`.
"""

import argparse
import concurrent.futures
import json
import os
import re
import signal
import subprocess
import sys
import time


RUNNING = set()  # the suites' processes


class Suite:
    def __init__(self, build, description):
        label = os.path.basename(build)
        prefix = label + ': ' if label in SUITES_OF_BUILD else ''
        self.name = prefix + description['name']
        self.command = description['cmd']
        self.environment = description['env']
        self.folder = description['workdir'] or build
        self.time_limit = description['timeout'] or None
        self.is_parallel = description['is_parallel']


# Which of meson's suites run in which build: what is tested with crash points in the builds that have them, the rest where
# the program is as users run it.
SUITES_OF_BUILD = {'crash': {'crash points'}, 'asan': {'runtime'}, 'tsan': {'runtime'}}
SUITES_WITH_CRASH_POINTS = {'runtime', 'crash points'}


def load_suites(build):
    text = subprocess.run(['meson', 'introspect', '--tests', build], check=True, capture_output=True, text=True).stdout
    wanted = SUITES_OF_BUILD.get(os.path.basename(build))
    for description in json.loads(text):
        suites = {suite.split(':')[-1] for suite in description['suite']}
        if suites & wanted if wanted else not suites & SUITES_WITH_CRASH_POINTS:
            yield Suite(build, description)


def count_cases(output, exit_code):
    """(passed, failed) as the output's closing lines say, corrected by the exit code."""
    passed = failed = 0
    found = False
    for number in re.findall(r'^\[  PASSED  \] (\d+) test', output, re.M):
        passed += int(number)
        found = True
    for number in re.findall(r'^\[  FAILED  \] (\d+) test', output, re.M):
        failed += int(number)
    runs = re.findall(r'^Ran (\d+) tests? in .*?^(OK|FAILED|NO TESTS RAN)(.*?)$', output, re.M | re.S)
    for ran, _, details in runs:
        counts = {name: int(number) for name, number in re.findall(r'(\w[\w ]*)=(\d+)', details)}
        bad = counts.get('failures', 0) + counts.get('errors', 0) + counts.get('unexpected successes', 0)
        passed += max(int(ran) - bad - counts.get('skipped', 0), 0)
        failed += bad
        found = True
    if not found:
        passed = 1 if exit_code == 0 else 0
    if exit_code != 0 and failed == 0:
        failed = 1
    return passed, failed


def run(suite):
    """(output, exit code); a suite past its time limit is killed with its whole process group."""
    # PYTHON* of the caller would change what is tested: CPython's own tests fail under some of them.
    environment = {name: value for name, value in os.environ.items() if not name.startswith('PYTHON')}
    process = subprocess.Popen(suite.command, cwd=suite.folder, env={**environment, **suite.environment},
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True)
    RUNNING.add(process)
    try:
        output, _ = process.communicate(timeout=suite.time_limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        output += f'\nkilled: still running after {suite.time_limit} s\n'.encode()
        return output.decode(errors='replace'), -signal.SIGKILL
    except KeyboardInterrupt:  # the suites do not belong to the terminal
        os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        RUNNING.discard(process)
    return output.decode(errors='replace'), process.returncode


def run_timed(suite):
    start = time.monotonic()
    output, exit_code = run(suite)
    return suite, output, *count_cases(output, exit_code), time.monotonic() - start


def run_all(suites):
    """Yields (suite, output, passed, failed, seconds) as each ends: those that stand company two at a time (CPython's own
    mostly sleep), then one by one those that must be alone."""
    with concurrent.futures.ThreadPoolExecutor(2) as runners:
        runs = [runners.submit(run_timed, suite) for suite in suites if suite.is_parallel]
        try:
            for finished in concurrent.futures.as_completed(runs):
                yield finished.result()
        except KeyboardInterrupt:
            runners.shutdown(wait=False, cancel_futures=True)
            for process in RUNNING:
                os.killpg(process.pid, signal.SIGKILL)
            raise
    for suite in suites:
        if not suite.is_parallel:
            yield run_timed(suite)


def main():
    # Ignored where a shell put us in the background, and all programs below would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--list', action='store_true', help='name the suites and end')
    parser.add_argument('--verbose', action='store_true', help='show the output of every suite')
    parser.add_argument('words', nargs='+', help='words of suite names, and the build folders')
    arguments = parser.parse_args()
    builds = [word for word in arguments.words if os.path.isfile(os.path.join(word, 'build.ninja'))]
    words = [word for word in arguments.words if word not in builds]
    suites = [suite for build in builds for suite in load_suites(build)
              if not words or any(word in suite.name for word in words)]
    if arguments.list:
        print('\n'.join(suite.name for suite in suites))
        return 0
    if not suites:
        print(f'no suite is named like {" or ".join(words)}; --list names them', file=sys.stderr)
        return 2

    all_passed = all_failed = 0
    for suite, output, passed, failed, seconds in run_all(suites):
        all_passed += passed
        all_failed += failed
        print(f'{suite.name} ... {passed} passed, {failed} failed ({seconds:.1f} s)', flush=True)
        if failed or arguments.verbose:
            print(output[-20000:], flush=True)
    print(f'{all_passed} passed, {all_failed} failed')
    return 1 if all_failed else 0


if __name__ == '__main__':
    sys.exit(main())
