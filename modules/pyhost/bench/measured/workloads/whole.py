"""A real job, and what processes cost while they do nothing."""

import ast
import collections
import hashlib
import multiprocessing
import os
import sysconfig
import time
import tokenize
import warnings

from workload import CONTEXT, Figure, Workload

warnings.filterwarnings('ignore', category=SyntaxWarning)
warnings.filterwarnings('ignore', category=DeprecationWarning)


def count_names(path):
    """The names in one Python file, and how many functions it has."""
    names = collections.Counter()
    try:
        with tokenize.open(path) as file:
            source = file.read()
        lines = iter(source.splitlines(keepends=True))
        for token in tokenize.generate_tokens(lambda: next(lines, '')):
            if token.type == tokenize.NAME:
                names[token.string] += 1
        functions = sum(isinstance(node, ast.FunctionDef) for node in ast.walk(ast.parse(source)))
    except (SyntaxError, UnicodeDecodeError, tokenize.TokenError):
        return names, 0  # the library's tests contain files that are broken on purpose
    return names, functions


class Tokenize(Workload):
    name = 'real-job'
    title = 'tokenize and parse files of the standard library, imap_unordered, 2 workers'
    group = 'A real job'
    operation = 'file'
    batch = 120
    quick = True

    def prepare(self):
        library = sysconfig.get_path('stdlib')
        self.files = sorted(os.path.join(library, name) for name in os.listdir(library) if name.endswith('.py'))
        self.pool = multiprocessing.get_context(CONTEXT).Pool(2)

    def run(self, count):
        total, functions = collections.Counter(), 0
        for names, found in self.pool.imap_unordered(count_names, self.files[:count]):
            total.update(names)
            functions += found
        digest = hashlib.sha256(repr(sorted(total.items())).encode()).hexdigest()
        return [functions, digest]

    def finish(self):
        self.pool.close()
        self.pool.join()


def idle(control):
    control.send('ready')
    control.recv()


def descendants():
    """The processes that this one has started, and those that they have."""
    parents = {}
    for entry in os.listdir('/proc'):
        if entry.isdigit():
            try:
                with open(f'/proc/{entry}/stat', 'rb') as file:
                    parents[int(entry)] = int(file.read().rpartition(b')')[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                pass
    found = {os.getpid()}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} | found
        if more == found:
            return found
        found = more


def proportional_size(pid):
    """Bytes of memory, where what n processes share counts as an nth for each."""
    with open(f'/proc/{pid}/smaps_rollup') as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith('Pss:'))


def cpu_seconds(pid):
    with open(f'/proc/{pid}/stat', 'rb') as file:
        fields = file.read().rpartition(b')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


class Idle(Figure):
    group = 'While idle'
    children = 4

    def prepare(self):
        context = multiprocessing.get_context(CONTEXT)
        self.controls, self.processes = [], []
        for _ in range(self.children):
            ours, theirs = context.Pipe()
            process = context.Process(target=idle, args=(theirs,))
            process.start()
            ours.recv()
            self.controls.append(ours)
            self.processes.append(process)

    def finish(self):
        for control, process in zip(self.controls, self.processes):
            control.send('end')
            process.join()


class ChildMemory(Idle):
    name = 'memory-child'
    title = 'memory of one idle child of four (PSS)'
    operation = 'child'
    quick = True

    def run(self, count):
        sizes = [proportional_size(process.pid) for process in self.processes]
        return sum(sizes) / len(sizes), len(sizes)


class SessionMemory(Idle):
    name = 'memory-session'
    title = 'memory of a program with four idle children, helpers included (PSS)'
    operation = 'program'

    def run(self, count):
        return sum(map(proportional_size, descendants())), len(self.processes)


class IdleCpu(Idle):
    name = 'cpu-idle'
    title = 'CPU time of a program with eight idle children, in 2 s'
    unit = 'seconds of CPU'
    operation = 'program'
    children = 8

    def run(self, count):
        everybody = descendants()
        before = {pid: cpu_seconds(pid) for pid in everybody}
        time.sleep(2)  # what is measured is idleness
        return sum(cpu_seconds(pid) - before[pid] for pid in everybody), len(self.processes)
