"""Names of the standard library's pool that begin with an underscore, and yet are used: progress loops, recipes.

Runs under pyhost and under python3, which is the oracle.
"""

import multiprocessing
import multiprocessing.pool
import os
import pickle
import sys
import tempfile
import time
import unittest
from multiprocessing import pool as mpp

UNDER_PYHOST = 'pyhost' in os.path.basename(sys.executable)
SECONDS = 60  # how long anything may take before a test fails


def add(x, y):
    return x + y


def divide(x, y):
    return x / y


def square(x):
    return x * x


def wait_for_file(path):
    while not os.path.exists(path):
        time.sleep(0.001)


def istarmap(self, func, iterable, chunksize=1):
    """The recipe for an imap() with starmap()'s arguments: https://stackoverflow.com/a/57364423"""
    self._check_running()
    if chunksize < 1:
        raise ValueError(f'Chunksize must be 1+, not {chunksize}')
    task_batches = mpp.Pool._get_tasks(func, iterable, chunksize)
    result = mpp.IMapIterator(self)
    self._taskqueue.put((self._guarded_task_generation(result._job, mpp.starmapstar, task_batches), result._set_length))
    return (item for chunk in result for item in chunk)


class NamesCases:
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, 'end')
        self.pool = self.make_pool()
        self.addCleanup(self.pool.join)
        self.addCleanup(self.pool.terminate)

    def begin_waiting(self, count):
        """Results of `count` calls that wait for end_waiting()."""
        return [self.pool.apply_async(wait_for_file, (self.path,)) for _ in range(count)]

    def end_waiting(self):
        open(self.path, 'w').close()

    def assert_becomes(self, expected, number):
        deadline = time.monotonic() + SECONDS
        while number() != expected and time.monotonic() < deadline:
            time.sleep(0.001)
        self.assertEqual(number(), expected)

    # ---- istarmap ------------------------------------------------------------------------------------------------

    def test_istarmap_gives_the_results_in_order(self):
        pairs = [(i, i + 1) for i in range(50)]
        for chunksize in (1, 7, 100):
            for iterable in (pairs, iter(pairs)):
                self.assertEqual(list(istarmap(self.pool, add, iterable, chunksize)), [2 * i + 1 for i in range(50)])
        self.assertEqual(list(istarmap(self.pool, add, [])), [])

    def test_istarmap_of_a_closed_pool_is_finished(self):
        results = istarmap(self.pool, add, ((i, 1) for i in range(300)))
        self.pool.close()
        self.assertEqual(list(results), list(range(1, 301)))

    def test_istarmap_raises_what_the_function_raises(self):
        results = istarmap(self.pool, divide, [(1, 1), (1, 0), (4, 2)])
        self.assertEqual(next(results), 1)
        self.assertRaises(ZeroDivisionError, next, results)

    def test_istarmap_raises_what_the_iterable_raises(self):
        def pairs():
            yield 1, 2
            raise LookupError('no more')

        results = istarmap(self.pool, add, pairs())
        self.assertEqual(next(results), 3)
        self.assertRaisesRegex(LookupError, 'no more', next, results)

    def test_unordered_istarmap(self):
        result = mpp.IMapUnorderedIterator(self.pool)
        batches = mpp.Pool._get_tasks(square, range(20), 3)
        self.pool._taskqueue.put((self.pool._guarded_task_generation(result._job, mpp.mapstar, batches),
                                  result._set_length))
        self.assertEqual(sorted(sum(result, [])), [x * x for x in range(20)])

    def test_tasks_may_have_keywords(self):
        result = mpp.IMapIterator(self.pool)
        tasks = [(result._job, i, add, (i,), {'y': 1}) for i in range(3)]
        self.pool._taskqueue.put((iter(tasks), result._set_length))
        self.assertEqual(list(result), [1, 2, 3])

    def test_functions_of_tasks(self):
        self.assertEqual(mpp.mapstar((add, [1, 2], [3, 4])), [4, 6])
        self.assertEqual(mpp.starmapstar((add, [(1, 2), (3, 4)])), [3, 7])
        for function in (mpp.mapstar, mpp.starmapstar):
            self.assertIn(b'multiprocessing.pool', pickle.dumps(function))
            self.assertIs(pickle.loads(pickle.dumps(function)), function)

    # ---- What is left ----------------------------------------------------------------------------------------------

    def test_number_of_chunks_that_are_left(self):
        result = self.pool.map_async(wait_for_file, [self.path] * 10, chunksize=3)
        self.assertEqual(result._number_left, 4)
        self.end_waiting()
        self.assert_becomes(0, lambda: result._number_left)
        self.assertEqual(result.get(SECONDS), [None] * 10)
        self.assertEqual(result._number_left, 0)
        self.assertEqual(self.pool.map_async(square, [])._number_left, 0)

    def test_progress_loop(self):
        result = self.pool.map_async(square, range(1000), chunksize=1)
        seen = [result._number_left]
        while not result.ready():
            seen.append(result._number_left)
        self.assertEqual(seen, sorted(seen, reverse=True))
        self.assertEqual(result._number_left, 0)
        self.assertEqual(result.get(), [x * x for x in range(1000)])

    def test_cache_is_as_long_as_there_are_results_to_come(self):
        self.assertEqual(len(self.pool._cache), 0)
        self.assertFalse(self.pool._cache)
        results = self.begin_waiting(5)
        self.assertEqual(len(self.pool._cache), 5)
        self.end_waiting()
        self.assert_becomes(0, lambda: len(self.pool._cache))  # though nobody asks for a result
        self.assertTrue(all(result.ready() for result in results))

    def test_task_queue_is_empty_when_all_is_done(self):
        self.pool.map(square, range(100))
        self.assertEqual(self.pool._taskqueue.qsize(), 0)
        self.assertTrue(self.pool._taskqueue.empty())

    @unittest.skipUnless(UNDER_PYHOST, 'python3 counts what is not in the pipe to the workers')
    def test_task_queue_is_as_long_as_calls_wait_for_a_worker(self):
        self.begin_waiting(5)
        self.assert_becomes(3, self.pool._taskqueue.qsize)
        self.assertFalse(self.pool._taskqueue.empty())
        self.end_waiting()
        self.assert_becomes(0, self.pool._taskqueue.qsize)


class SpawnTest(NamesCases, unittest.TestCase):
    @staticmethod
    def make_pool():
        return multiprocessing.get_context('spawn').Pool(2)


class ThreadsTest(NamesCases, unittest.TestCase):
    @staticmethod
    def make_pool():
        return multiprocessing.pool.ThreadPool(2)


class PoolWithOwnQueues(mpp.Pool):
    def _setup_queues(self):
        super()._setup_queues()


class OwnQueuesTest(NamesCases, unittest.TestCase):
    @staticmethod
    def make_pool():
        return PoolWithOwnQueues(2, context=multiprocessing.get_context('spawn'))


if __name__ == '__main__':
    unittest.main()
