"""What it costs to start processes under pyhost and under python3, in alternation, as ratios.

usage: compare_starts.py [--rounds N] [--only WORD] [PYHOST PYTHON3]   (default: PYHOST, PYHOST_ORACLE of the environment)

Each round runs every workload (start_workloads.py, first_results.py) in a new process of both programs, one after the other; the ratio is
taken within the round.  Printed are medians, the ratio's smallest and largest value, and what the design asks for.
"""

import argparse
import collections
import os
import statistics
import subprocess
import sys
import time

# What a script of this folder prints; for first_results.py the time from its launch to its first byte of output.
FIRST = 'first_results.py'
Row = collections.namedtuple('Row', 'workload, module, unit, goal, script',
                             defaults=(None, 'ms', None, 'start_workloads.py'))

ROWS = {
    'spawn': Row('spawn', goal=15),
    'spawn, main imports numpy': Row('spawn', 'numpy'),
    'forkserver': Row('forkserver', goal=5),
    'fork': Row('fork', goal=1.3),
    'fork, main imports numpy': Row('fork', 'numpy'),
    'os.fork': Row('os.fork'),
    'memory, spawn': Row('memory, spawn', unit='MB', goal=2),
    'memory, forkserver': Row('memory, forkserver', unit='MB'),
    'interpreter and imports': Row('started', script=FIRST),
    'first process': Row('process', script=FIRST),
    'first of Pool(2)': Row('pool', script=FIRST, goal=3.5),
    'first of executor': Row('executor', script=FIRST, goal=3.5),
}


def measure(program, row, environment):
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), row.script)
    command = [program, script, row.workload, *([row.module] if row.module else [])]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        text = process.stdout.read(1)
        seconds = time.perf_counter() - start
        text += process.stdout.read()
    if process.returncode != 0 or not text:
        sys.exit(f'compare_starts: {" ".join(command)} failed with exit code {process.returncode}')
    return seconds * 1e3 if row.script == FIRST else float(text)


def compare(rows, programs, rounds):
    """{name of a row: [(value under pyhost, value under python3), ...]}"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith('PYTHON')}
    values = {name: [] for name in rows}
    for _ in range(rounds):
        for name, row in rows.items():
            values[name].append(tuple(measure(program, row, environment) for program in programs))
    return values


def show(values):
    print(f'{"":28}{"pyhost":>12}{"python3":>12}{"ratio":>8}{"from":>8}{"to":>8}{"goal":>7}')
    for name, pairs in values.items():
        row = ROWS[name]
        ours, theirs = zip(*pairs)
        ratios = [other / our for our, other in pairs]
        print(f'{name:28}{statistics.median(ours):9.2f} {row.unit}{statistics.median(theirs):9.2f} {row.unit}'
              f'{statistics.median(ratios):8.2f}{min(ratios):8.2f}{max(ratios):8.2f}{row.goal or "":>7}')


def has_module(program, module):
    return module is None or subprocess.run([program, '-c', f'import {module}'], capture_output=True).returncode == 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--only', metavar='WORD', default='', help='rows whose name contains it')
    parser.add_argument('programs', nargs='*', help='pyhost and python3; without them $PYHOST and $PYHOST_ORACLE')
    arguments = parser.parse_args()
    programs = arguments.programs or [os.environ[name] for name in ('PYHOST', 'PYHOST_ORACLE') if name in os.environ]
    if len(programs) != 2:
        parser.error(f'needs two programs, pyhost and python3, and got {len(programs)}')
    rows = {name: row for name, row in ROWS.items()
            if arguments.only in name and all(has_module(program, row.module) for program in programs)}
    show(compare(rows, programs, arguments.rounds))


if __name__ == '__main__':
    main()
