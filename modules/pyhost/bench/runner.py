"""Runs the workloads: each side in a process of its own, the sides in alternation."""

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import time

MEASURED = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'measured')
TIME_LIMIT = 120  # seconds for one measurement of one side


class WorkloadFailed(Exception):
    """A workload that did not end well; the text says how."""


@dataclasses.dataclass
class Measured:
    """What is known of one workload."""

    name: str
    title: str
    group: str
    unit: str            # of the values: 'seconds', 'bytes', ...
    operation: str       # each value is for one of these
    limit: bool
    values: dict         # {side's label: [a value for each round]}
    result: object = None
    error: str = ''


def load_workloads():
    """{(name, library): class}: see measured/workload.py."""
    sys.path.insert(0, MEASURED)
    try:
        return importlib.import_module('workload').load_all()
    finally:
        sys.path.remove(MEASURED)


def environment():
    """As in a plain shell: what changes how Python behaves would change what is measured."""
    return {name: value for name, value in os.environ.items() if not name.startswith('PYTHON')}


def finish(process, deadline):
    """(stdout, stderr) of a process in a session of its own; past the deadline all of it is killed."""
    try:
        return process.communicate(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise WorkloadFailed(f'was killed: it still ran after {TIME_LIMIT} s') from None
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def launch(command):
    return subprocess.Popen(command, cwd=MEASURED, env=environment(), text=True, start_new_session=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def check_exit(process, errors):
    if process.returncode:
        last = errors.strip().splitlines()[-1:] or ['it said nothing']
        raise WorkloadFailed(f'ended with exit code {process.returncode}: {last[0]}')


def run_script(workload, side):
    """(seconds from launch until the first line, that line)."""
    start = time.perf_counter()
    process = launch([side.program, *(['-c', workload.code] if workload.code else [workload.source])])
    line = process.stdout.readline()
    seconds = time.perf_counter() - start
    _, errors = finish(process, time.monotonic() + TIME_LIMIT)
    check_exit(process, errors)
    return seconds, line


def run_workload(workload, side, seconds, share):
    """(value, result) of one measurement."""
    process = launch([side.program, 'measure.py', workload.name, workload.peer, str(seconds), str(share),
                      workload.main_imports])
    output, errors = finish(process, time.monotonic() + TIME_LIMIT)
    check_exit(process, errors)
    try:
        figures = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise WorkloadFailed(f'printed no figures, but {output[-80:]!r}') from None
    return figures['value'], figures['result']


class Runner:
    """Measures workloads one after the other."""

    def __init__(self, sides, rounds, seconds, share):
        self._sides = sides
        self._rounds = rounds
        self._seconds = seconds
        self._share = share
        self._progress = lambda text: None
        self._workloads = load_workloads()

    def set_progress(self, progress):
        """Have `progress` called with what is being done, in words."""
        self._progress = progress

    def names(self, quick):
        """The workloads in the order of the reports."""
        return [name for (name, library), workload in self._workloads.items()
                if not library and (workload.quick or not quick)]

    def describe(self, name):
        return self._workloads[name, '']

    def measure(self, name):
        """Measured, with an error instead of values where a side failed."""
        workload = self.describe(name)
        measured = Measured(name, workload.title, workload.group, getattr(workload, 'unit', 'seconds'),
                            workload.operation, workload.limit, {})
        sides = self._sides_of(name, workload)
        results = {}
        try:
            for side, _ in sides:
                self._check_needs(workload, side)
            for number in range(self._rounds):
                self._progress(f'{name}: round {number + 1} of {self._rounds}')
                # Forth and back, so that no side always has the cache that another one left.
                for side, variant in sides if number % 2 == 0 else sides[::-1]:
                    value, result = (run_script(variant, side) if variant.source or variant.code else
                                     run_workload(variant, side, self._seconds, self._share))
                    measured.values.setdefault(side.label, []).append(value)
                    if results.setdefault('result', result) != result:
                        raise WorkloadFailed('gave another result than the other program')
        except WorkloadFailed as error:
            measured.error = f'{side.label} {error}'
            measured.values = {}
        measured.result = results.get('result')
        return measured

    def _sides_of(self, name, workload):
        """[(side, the class that it runs)]; of a limit only one side, since it is no contest."""
        if workload.limit:
            return [(self._sides[0], workload)]
        return [(side, variant) for side in self._sides if (variant := self._workloads.get((name, side.library)))]

    @staticmethod
    def _check_needs(workload, side):
        for module in workload.needs:
            if not workload.peer and module not in side.modules:
                raise WorkloadFailed(f'has no {module}')
