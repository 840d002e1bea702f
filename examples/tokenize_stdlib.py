#!/usr/bin/env python3
"""Reads every .py file of the standard library with tokenize and ast, in child processes, and counts names.

    pyhost examples/tokenize_stdlib.py
    pyhost examples/tokenize_stdlib.py --processes 8 --top 20
    python3 examples/tokenize_stdlib.py        # the same program on the standard library's multiprocessing

Prints the most used names, what each child process did, and how much faster that was than one process: the same
files are read once more without children, unless --no-baseline is given.
"""

import argparse
import ast
import collections
import keyword
import multiprocessing
import os
import sys
import sysconfig
import time
import tokenize
import warnings

# Old files have string escapes that newer Pythons warn of.
warnings.filterwarnings('ignore', category=SyntaxWarning)
warnings.filterwarnings('ignore', category=DeprecationWarning)

Report = collections.namedtuple('Report', 'path pid seconds names definitions error')


def read_file(path):
    """Counts the names in one file: a Report, which says why where the file cannot be read."""
    start = time.perf_counter()
    names = collections.Counter()
    definitions = 0
    error = None
    try:
        with tokenize.open(path) as file:
            source = file.read()
        lines = iter(source.splitlines(keepends=True))
        for token in tokenize.generate_tokens(lambda: next(lines, '')):
            if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
                names[token.string] += 1
        for node in ast.walk(ast.parse(source, path)):
            definitions += isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    except (SyntaxError, UnicodeDecodeError, tokenize.TokenError, RecursionError,
            OSError) as problem:
        # The library's tests contain files that are broken on purpose.
        error = f'{type(problem).__name__}: {problem}'
    return Report(path, os.getpid(), time.perf_counter() - start, names, definitions, error)


def find_files(folder):
    """Every .py file below a folder, the largest first, so that no worker is left with a large one at the end."""
    found = []
    for parent, _folders, files in os.walk(folder):
        found += [os.path.join(parent, name) for name in files if name.endswith('.py')]
    return sorted(found, key=lambda path: (-os.path.getsize(path), path))


class Progress:
    """A line on stderr that counts up; silent unless stderr is a terminal."""

    def __init__(self, total, label):
        self._total = total
        self._label = label
        self._done = 0
        self._shown = 0.0
        self._enabled = sys.stderr.isatty()

    def step(self):
        """One more is done."""
        self._done += 1
        now = time.monotonic()
        if self._enabled and (now - self._shown > 0.1 or self._done == self._total):
            self._shown = now
            print(f'\r{self._label}: {self._done}/{self._total} files', end='', file=sys.stderr, flush=True)

    def close(self):
        """Leaves the terminal as it was."""
        if self._enabled:
            print('\r\x1b[K', end='', file=sys.stderr, flush=True)


def collect(reports, progress):
    """(reports as a list, seconds from now until the last one came)."""
    start = time.perf_counter()
    collected = []
    for report in reports:
        collected.append(report)
        progress.step()
    progress.close()
    return collected, time.perf_counter() - start


def read_in_children(files, processes):
    """The reports of child processes, the seconds they took all together, and those for starting the pool."""
    start = time.perf_counter()
    with multiprocessing.Pool(processes) as pool:
        started = time.perf_counter() - start
        reports, seconds = collect(pool.imap_unordered(read_file, files), Progress(len(files), 'children'))
    return reports, seconds, started


def print_names(reports, top):
    """The most used names, over all files."""
    total = collections.Counter()
    for report in reports:
        total.update(report.names)
    print(f'most used of {len(total):,} names:')
    for name, count in total.most_common(top):
        print(f'  {count:8,}  {name}')


def print_hosts(reports):
    """What each child process did."""
    print('  process    files    seconds')
    for pid in sorted({report.pid for report in reports}):
        own = [report for report in reports if report.pid == pid]
        print(f'  {pid:7}  {len(own):7,}  {sum(report.seconds for report in own):9.2f}')


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', nargs='?', default=sysconfig.get_path('stdlib'),
                        help='where the files are (default: this Python\'s standard library, %(default)s)')
    parser.add_argument('-p', '--processes', type=int, default=multiprocessing.cpu_count(), metavar='N',
                        help='child processes (default: one for each processor, %(default)s)')
    parser.add_argument('-n', '--files', type=int, metavar='N', help='read at most N files (default: all)')
    parser.add_argument('-t', '--top', type=int, default=10, metavar='N',
                        help='how many names to print (default: %(default)s)')
    parser.add_argument('--no-baseline', action='store_true',
                        help='do not read the files again in one process, to compare')
    arguments = parser.parse_args()
    if arguments.processes < 1:
        parser.error('--processes must be at least 1')
    if not os.path.isdir(arguments.folder):
        parser.error(f'no such folder: {arguments.folder}')
    return arguments


def main():
    arguments = parse_arguments()
    files = find_files(arguments.folder)[:arguments.files]
    if not files:
        sys.exit(f'no .py files in {arguments.folder}')
    reports, seconds, started = read_in_children(files, arguments.processes)

    print_names(reports, arguments.top)
    failed = sum(report.error is not None for report in reports)
    definitions = sum(report.definitions for report in reports)
    print(f'{len(reports):,} files with {definitions:,} functions and classes; {failed} are not valid Python')
    print(f'{arguments.processes} processes, started in {started * 1000:.1f} ms, read them in {seconds:.2f} s:')
    print_hosts(reports)
    if arguments.no_baseline:
        return
    alone, alone_seconds = collect(map(read_file, files), Progress(len(files), 'one process'))
    if {(r.path, r.definitions, r.error) for r in alone} != {(r.path, r.definitions, r.error) for r in reports}:
        sys.exit('one process and its children disagree about the files')
    print(f'one process reads them in {alone_seconds:.2f} s: '
          f'{arguments.processes} are {alone_seconds / seconds:.2f} times as fast')


if __name__ == '__main__':
    main()
