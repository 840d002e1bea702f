"""What suites share whose cases run once for each start method: children that are joined, and binding to the methods.

    class QueueCases(ContextCases):
        def test_...(self):
            queue = self.context.Queue()
            self.start(function, queue)

    bind(globals(), 'QueueTest', QueueCases)        # QueueTest_spawn, QueueTest_fork, QueueTest_forkserver
"""

import multiprocessing
import os
import sys
import unittest

UNDER_PYHOST = 'pyhost' in os.path.basename(sys.executable)
SECONDS = 20  # how long anything may take before a test fails


class ContextCases:
    """`self.context` is the context of the start method that the cases are bound to."""

    method = None

    def setUp(self):
        self.context = multiprocessing.get_context(self.method)
        self.children = []

    def tearDown(self):
        for child in self.children:
            child.join(SECONDS)
            self.assertIsNotNone(child.exitcode, f'{child} still runs')

    def start(self, target, *args):
        """A child that has been started; it must end by itself."""
        child = self.context.Process(target=target, args=args)
        child.start()
        self.children.append(child)
        return child

    def join_children(self):
        for child in self.children:
            child.join(SECONDS)
        self.children.clear()


def bind(namespace, name, *bases):
    """Puts a TestCase for each start method into a module's namespace."""
    for method in multiprocessing.get_all_start_methods():
        namespace[f'{name}_{method}'] = type(f'{name}_{method}', (*bases, unittest.TestCase),
                                             {'method': method, '__module__': namespace['__name__']})
