"""`pyhost -m pyhost.bench`."""

import argparse
import dataclasses
import fnmatch
import json
import os
import sys
import time

from pyhost.bench import machine, page, table
from pyhost.bench.runner import Runner
from pyhost.bench.sides import NoSuchProgram, default_python, find_sides

DESCRIPTION = """Measures multiprocessing and ProcessPoolExecutor under python3 and under pyhost, side by side.

Every workload runs in both programs, in alternation: the same script, the same data, a warm-up before. A time is that of
one operation; "times better" is the median over all rounds of python3's figure divided by pyhost's in the same round, with
an interval that holds the true median with 95% confidence (of five rounds: 94%). Both programs' results are compared. Nothing is left out where
pyhost is slower. Other libraries take part where python3 has them installed."""


def parse(arguments):
    parser = argparse.ArgumentParser(prog='pyhost -m pyhost.bench', description=DESCRIPTION,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--list', action='store_true', help='name the workloads and end')
    parser.add_argument('--only', metavar='NAME', nargs='+', help='run only these workloads; * and ? are wildcards')
    parser.add_argument('--quick', action='store_true', help='a selection, in less than a minute')
    parser.add_argument('--rounds', type=int, metavar='N', help='pairs of measurements (default: 7; --quick: 5)')
    parser.add_argument('--seconds', type=float, metavar='S',
                        help='how long one measurement lasts at least, without its set-up (default: 0.3; --quick: 0.03)')
    parser.add_argument('--python', default=default_python(), metavar='PROGRAM',
                        help='the python3 to compare with (default: %(default)s)')
    parser.add_argument('--json', metavar='FILE', help='write every figure there (- is stdout, instead of the table)')
    parser.add_argument('--html', metavar='FILE', help='write a page with charts there')
    options = parser.parse_args(arguments)
    options.rounds = options.rounds if options.rounds is not None else 5 if options.quick else 7
    options.seconds = options.seconds if options.seconds is not None else 0.03 if options.quick else 0.3
    if options.rounds < 1:
        parser.error('--rounds must be at least 1')
    if not 0 <= options.seconds <= 60:
        parser.error('--seconds must be between 0 and 60')
    return parser, options


class Progress:
    """One line on a terminal that is rewritten; elsewhere nothing until a workload is done."""

    def __init__(self, total):
        self._total = total
        self._done = 0
        self._start = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def __call__(self, text):
        if self._terminal:
            print(f'\r\x1b[K[{self._done + 1}/{self._total}] {text}, {time.monotonic() - self._start:.0f} s',
                  end='', file=sys.stderr, flush=True)

    def finished(self, name):
        self._done += 1
        if not self._terminal:
            print(f'[{self._done}/{self._total}] {name}', file=sys.stderr, flush=True)

    def close(self):
        if self._terminal:
            print('\r\x1b[K', end='', file=sys.stderr, flush=True)


def select(runner, options, parser):
    """The names of the workloads to run."""
    everything = runner.names(quick=False)
    if not options.only:
        return runner.names(options.quick)
    for pattern in options.only:
        if not fnmatch.filter(everything, pattern):
            parser.error(f'no workload is named {pattern}; --list names them')
    return [name for name in everything if any(fnmatch.fnmatch(name, pattern) for pattern in options.only)]


def measure_all(runner, names):
    """([Measured], whether it was interrupted)."""
    done = []
    progress = Progress(len(names))
    runner.set_progress(progress)
    try:
        for name in names:
            done.append(runner.measure(name))
            progress.finished(name)
    except KeyboardInterrupt:
        return done, True
    finally:
        progress.close()
    return done, False


def make_report(options, facts, sides, missing, done, interrupted):
    """Everything that was found out, as it is written to JSON."""
    return {
        'machine': facts,
        'sides': [{'label': side.label, 'program': side.program, 'Python': side.version} for side in sides],
        'missing': missing,
        'rounds': options.rounds,
        'seconds': options.seconds,
        'interrupted': interrupted,
        'workloads': [dataclasses.asdict(measured) for measured in done],
    }


def check_files(options, parser):
    """That reports cannot be written is said before minutes were spent on them."""
    for path in (options.json, options.html):
        if path and path != '-':
            try:
                with open(path, 'a', encoding='utf-8'):
                    pass
            except OSError as error:
                parser.error(f'cannot write {path}: {error.strerror}')


def write_reports(options, report, done):
    """Whether all reports that were asked for could be written."""
    written = True
    texts = [(options.json, lambda: json.dumps(report, indent=1)), (options.html, lambda: page.render(report, done))]
    for path, make_text in texts:
        if path == '-':
            print(make_text())
        elif path:
            try:
                with open(path, 'w', encoding='utf-8') as file:
                    file.write(make_text())
            except OSError as error:
                print(f'pyhost.bench: cannot write {path}: {error.strerror}', file=sys.stderr)
                written = False
    return written


def main(arguments=None):
    try:
        code = run(*parse(arguments))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:  # before anything was measured, or after it
        print('interrupted', file=sys.stderr)
        return 130
    except OSError as error:
        if error.filename is not None:
            raise
        print(f'pyhost.bench: cannot write to the standard output: {error.strerror}', file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left of it is not tried again at the end
        return 1


def run(parser, options):
    try:
        sides, missing = find_sides(options.python)
    except NoSuchProgram as error:
        parser.error(str(error))
    runner = Runner(sides, options.rounds, options.seconds, 0.1 if options.quick else 1.0)
    names = select(runner, options, parser)
    if options.list:
        for name in names:
            print(f'{name:24} {runner.describe(name).title}')
        return 0
    check_files(options, parser)
    facts = machine.describe()
    done, interrupted = measure_all(runner, names)
    report = make_report(options, facts, sides, missing, done, interrupted)
    written = write_reports(options, report, done)
    if options.json != '-':
        print(table.text(done))
        if missing:
            print(f'\nNot installed, so not compared: {", ".join(missing)}.')
    if interrupted:
        print(f'\ninterrupted: {len(done)} of {len(names)} workloads were measured', file=sys.stderr)
        return 130
    return 1 if not written or any(measured.error for measured in done) else 0
