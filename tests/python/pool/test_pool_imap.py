"""imap() over iterables that are slow, endless, or wait for results.  Runs under pyhost and under python3, which is the oracle.

That an endless iterable is not read without end, and does not hold up the pool's end, is pyhost's alone.
"""

import itertools
import multiprocessing
import multiprocessing.pool
import os
import queue
import sys
import threading
import time
import unittest

UNDER_PYHOST = 'pyhost' in os.path.basename(sys.executable)
SECONDS = 60  # how long anything may take before a test fails
MANY = 200_000  # more items than an imap() over a sequence submits at once


def square(x):
    return x * x


class Gate:
    """An iterable that gives `before`, and `after` when open() is called."""

    def __init__(self, before, after):
        self._before = before
        self._after = after
        self._opened = threading.Event()

    def open(self):
        self._opened.set()

    def __iter__(self):
        yield from self._before
        if not self._opened.wait(SECONDS):
            raise TimeoutError('the results of the items before were not there')
        yield from self._after


class Counting:
    """An endless iterable that counts what was read."""

    def __init__(self):
        self.read = 0

    def __iter__(self):
        for i in itertools.count():
            self.read += 1
            yield i


class ImapCases:
    """Bound to the pools below; both methods, for they differ in the order of results only."""

    @classmethod
    def setUpClass(cls):
        cls.pool = cls.make_pool()

    @classmethod
    def tearDownClass(cls):
        cls.pool.terminate()
        cls.pool.join()

    def methods(self):
        for method in (self.pool.imap, self.pool.imap_unordered):
            with self.subTest(method=method.__name__):
                yield method

    def test_the_next_input_may_depend_on_a_result(self):
        for method in self.methods():
            inputs = queue.Queue()
            inputs.put(2)
            results = []
            for result in method(square, iter(inputs.get, None)):
                results.append(result)
                inputs.put(result if result < 1000 else None)
            self.assertEqual(results, [4, 16, 256, 65536])

    def test_results_come_while_the_iterable_is_waiting(self):
        # However many were read at once before: 100 fill no batch, 1000 do and leave something over.
        for method in self.methods():
            for fast in (1, 100, 1000):
                gate = Gate(range(fast), range(fast, fast + 3))
                results = method(square, gate)
                first = [results.next(SECONDS) for _ in range(fast)]
                gate.open()
                self.assertEqual(sorted(first + list(results)), [x * x for x in range(fast + 3)])

    def test_results_of_whole_chunks_come_while_the_iterable_is_waiting(self):
        for method in self.methods():
            gate = Gate(range(20), range(20, 23))
            results = method(square, gate, chunksize=5)
            first = [next(results) for _ in range(20)]
            gate.open()
            self.assertEqual(sorted(first + list(results)), [x * x for x in range(23)])

    def test_a_chunk_that_is_not_whole_goes_with_the_error_of_its_iterable(self):
        def items():
            yield from range(7)
            raise LookupError('no item 7')

        results = self.pool.imap(square, items(), chunksize=3)
        self.assertEqual([next(results) for _ in range(6)], [x * x for x in range(6)])
        self.assertRaisesRegex(LookupError, 'no item 7', next, results)

    def test_long_sequences(self):
        items = range(MANY)
        for sequence in (items, list(items)):
            for chunksize in (100, 1000, 70_000):
                self.assertEqual(list(self.pool.imap(square, sequence, chunksize)), [x * x for x in items])

    @unittest.skipUnless(UNDER_PYHOST, 'python3 reads on until memory is full')
    def test_an_endless_iterable_is_read_as_far_as_the_workers_come(self):
        with self.make_pool() as pool:
            items = Counting()
            results = pool.imap(time.sleep, itertools.chain([SECONDS, SECONDS], (0 for _ in items)))
            self.assertTrue(wait_until_still(lambda: items.read))
            self.assertLess(items.read, 50_000)
            del results

    @unittest.skipUnless(UNDER_PYHOST, 'python3 waits for the next item')
    def test_the_end_of_the_pool_does_not_wait_for_the_iterable(self):
        pool = self.make_pool()
        gate = Gate([1], [])
        self.addCleanup(gate.open)
        self.assertEqual(pool.imap(square, gate).next(SECONDS), 1)
        start = time.monotonic()
        pool.terminate()
        self.assertLess(time.monotonic() - start, SECONDS / 2)


def wait_until_still(number):
    """Whether the number, once it is not 0, stays as it is for half a second."""
    deadline = time.monotonic() + SECONDS
    last = 0
    while time.monotonic() < deadline:
        time.sleep(0.5)
        now = number()
        if now == last != 0:
            return True
        last = now
    return False


class SpawnTest(ImapCases, unittest.TestCase):
    @staticmethod
    def make_pool():
        return multiprocessing.get_context('spawn').Pool(2)


class ThreadsTest(ImapCases, unittest.TestCase):
    @staticmethod
    def make_pool():
        return multiprocessing.pool.ThreadPool(2)

    test_an_endless_iterable_is_read_as_far_as_the_workers_come = unittest.skip('threads cannot be ended')(
        ImapCases.test_an_endless_iterable_is_read_as_far_as_the_workers_come)


if __name__ == '__main__':
    unittest.main()
