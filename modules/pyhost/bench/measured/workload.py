"""What a workload is.  Everything in this folder runs unchanged under python3 and under pyhost.

A workload is a class derived from Workload, in one of the files of workloads/.  `run(count)` does `count` operations and
returns something that can be written as JSON and that depends on every operation's outcome: both programs must return
the same.  Only `run` is timed; `prepare` and `finish` are not.
"""

import importlib

CONTEXT = 'spawn'  # the start method of all workloads that are not about starting
MODULES = ('starts', 'channels', 'calls', 'sharing', 'whole', 'limits')  # of workloads/
REGISTRY = {}      # filled by the classes themselves


class Workload:
    name = ''          # in the command line and in reports; unique
    title = ''         # one line for people
    group = ''
    operation = 'call'  # what is counted
    batch = 1000       # operations that are timed together
    quick = False      # belongs to the set of --quick
    needs = ()         # modules without which it is skipped
    peer = ''          # the library that does it here, where it is not multiprocessing
    limit = False      # no contest, but what the machine or the interpreter allows
    main_imports = ''  # a module that the main module imports, as a larger program would
    source = code = ''  # of a Script

    def __init_subclass__(cls):
        if 'name' in vars(cls) or 'peer' in vars(cls):
            key = (cls.name, cls.peer)
            assert key not in REGISTRY, f'two workloads are {key}'
            REGISTRY[key] = cls

    def prepare(self):
        """Start what the operations need."""

    def run(self, count):
        raise NotImplementedError

    def finish(self):
        """End what prepare() started."""


class Figure(Workload):
    """A workload whose run(1) returns its figure instead of being timed: (value, result)."""

    unit = 'bytes'
    batch = 1


class Script(Workload):
    """A workload that is a program of its own: the time from its launch until its first line of output."""

    operation = 'launch'
    batch = 1
    source = ''        # a file beside workloads/, or
    code = ''          # what python3 -c gets


def load_all():
    """{(name, peer): class} of every workload, in the order of the reports."""
    for module in MODULES:
        importlib.import_module(f'workloads.{module}')
    return REGISTRY
