"""CPython's own tests as the referee: what passes under python3 must pass under pyhost, and nothing may be skipped that
python3 runs.

usage: referee.py --pyhost PROGRAM --python PROGRAM [--verbose] TEST_MODULE ...

Runs `-m test -v TEST_MODULE` under both programs, compares the outcome of every single test, and prints unittest's closing
lines: one case for each test that python3 passes.  Tests that assert a private mechanism of CPython's own are listed in
excluded.txt, with the reason in tests/README.md; they run apart, so that what they leave behind when they fail disturbs
no other test, and how they end is shown, but they are not counted.
"""

import argparse
import collections
import concurrent.futures
import os
import re
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))

# "test_x (test.y.Class.test_x) ... ok", or with the docstring on the next line; other output may come in between.
# Some print how long they took before the word.
START = re.compile(r'^(?:\d+\.\d+s )*(test\w+) \((\S+)\)(.*)$')
OUTCOME = re.compile(r'(?:^|\.\.\. )(?:\d+\.\d+s )*(ok|FAIL|ERROR|expected failure|unexpected success|skipped .*)$')
# What a run can end with although every test passed: regrtest's warnings, a crash, a hang on the way out.
TROUBLE = re.compile(r'^(Warning -- [^:(\n]*|.*altered the execution environment|Fatal Python error: .*|.*: killed after .*)', re.M)
BAD_HEADER = re.compile(r'^(FAIL|ERROR): (test\w+) \((\S+)\)')


def normalize(name, class_path):
    """3.11 and later print Class.test, earlier ones only Class; parametrized runs add text in brackets."""
    return class_path if class_path.endswith('.' + name) else f'{class_path}.{name}'


def parse(output):
    """{test name: 'ok' | 'skipped' | 'bad'} of a verbose run."""
    outcomes = {}
    running = None
    for line in output.splitlines():
        if started := START.match(line):
            running = normalize(started[1], started[2])
        if (ended := OUTCOME.search(line)) and running:
            word = ended[1].split()[0]
            outcomes[running] = {'ok': 'ok', 'expected': 'ok', 'skipped': 'skipped'}.get(word, 'bad')
            running = None
    for line in output.splitlines():
        if failed := BAD_HEADER.match(line):
            outcomes[normalize(failed[2], failed[3])] = 'bad'
    return outcomes


def troubles(output):
    return {found.group(1) for found in TROUBLE.finditer(output)}


def run(program, module, time_limit, selection=()):
    """(outcomes, output) of one test module; a run past its limit keeps what was done until then."""
    with tempfile.TemporaryDirectory() as folder:
        command = [program, '-m', 'test', '-v', '--tempdir', folder, *selection, module]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   cwd=folder, start_new_session=True)
        try:
            output = process.communicate(timeout=time_limit)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            output = process.communicate()[0] + f'\n{module}: killed after {time_limit} s\n'.encode()
    output = output.decode(errors='replace')
    return parse(output), output


def excluded_tests():
    """The names in excluded.txt that hold for this version."""
    with open(os.path.join(HERE, 'excluded.txt')) as file:
        lines = [line.split('#')[0].split() for line in file]
    return [name for name, *since in filter(None, lines) if sys.version_info >= version(*since)]


def version(text='3.0'):
    return tuple(map(int, text.split('.')))


def is_excluded(test, patterns):
    return any(test == pattern or test.endswith('.' + pattern) for pattern in patterns)


def indented(output):
    """So that nobody takes the closing lines of a run for ours."""
    return ''.join(f'    {line}\n' for line in output.splitlines())


def select(option, patterns):
    """regrtest's arguments to run only (-m) or to leave out (-i) the tests of these patterns."""
    return [word for pattern in patterns for word in (option, f'*.{pattern}')]


def judge(expected, actual, patterns):
    """Lists of tests by verdict: 'passed', 'worse', 'excluded'."""
    verdicts = collections.defaultdict(list)
    for test, outcome in sorted(expected.items()):
        found = actual.get(test, 'not run')
        if is_excluded(test, patterns):
            verdicts['excluded'].append(f'{test}: {found}')
        elif outcome == 'ok':
            verdicts['passed' if found == 'ok' else 'worse'].append(f'{test}: {found}')
    return verdicts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--pyhost', required=True)
    parser.add_argument('--python', required=True)
    parser.add_argument('--time-limit', type=float, default=1200, help='seconds for one module under one program')
    parser.add_argument('--verbose', action='store_true', help="print pyhost's whole output")
    parser.add_argument('modules', nargs='+')
    arguments = parser.parse_args()
    patterns = excluded_tests()
    passed, worse, start = 0, [], time.monotonic()
    for module in arguments.modules:
        # Both at once: these tests sleep most of their time.
        with concurrent.futures.ThreadPoolExecutor(1) as beside:
            oracle = beside.submit(run, arguments.python, module, arguments.time_limit)
            actual, output = run(arguments.pyhost, module, arguments.time_limit, select('-i', patterns))
            expected, oracle_output = oracle.result()
        if not expected:
            print(oracle_output)
            sys.exit(f'{module}: {arguments.python} ran no test (package libpython3.X-testsuite)')
        if any(is_excluded(test, patterns) for test in expected):
            apart, output_apart = run(arguments.pyhost, module, arguments.time_limit, select('-m', patterns))
            actual.update(apart)
            if arguments.verbose:
                print(indented(output_apart))
        verdicts = judge(expected, actual, patterns)
        verdicts['worse'] += [f'{module}: {trouble}' for trouble in sorted(troubles(output) - troubles(oracle_output))]
        passed += len(verdicts['passed'])
        worse += verdicts['worse']
        print(f'{module}: python3 ran {len(expected)} tests, pyhost {len(actual)}; {len(verdicts["passed"])} pass under both, '
              f'{len(verdicts["worse"])} only under python3, {len(verdicts["excluded"])} excluded')
        for test in verdicts['excluded']:
            print(f'  excluded  {test}')
        for test in verdicts['worse']:
            print(f'  WORSE     {test}')
        if verdicts['worse'] or arguments.verbose:
            print(indented(output))
    print(f'Ran {passed + len(worse)} tests in {time.monotonic() - start:.1f}s\n')
    print(f'FAILED (failures={len(worse)})' if worse else 'OK')
    for test in worse:
        print(f'  {test}')
    return 1 if worse else 0


if __name__ == '__main__':
    sys.exit(main())
