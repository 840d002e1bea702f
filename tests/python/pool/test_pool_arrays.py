"""Large arrays as arguments and results.  Runs under pyhost and under python3, which is the oracle.

A result that lies in shared memory already goes back as it is, if the worker has let go of it: nobody may notice.
"""

import gc
import multiprocessing
import os
import sys
import time
import unittest
from concurrent.futures import ProcessPoolExecutor

try:
    import numpy
except ImportError:
    numpy = None

LARGE = 1 << 16  # numbers
kept = []


def same(x):
    return x


def double_in_place(x):
    x *= 2
    return x


def keep(x):
    kept.append(x)
    return x


def kept_sums():
    return os.getpid(), [float(array.sum()) for array in kept]


def twice_the_same(x):
    return x, x


def overlapping(x):
    return x, x.reshape(2, -1), x[:100], x[::-1]


def keep_a_view(x):
    kept.append(x[:10])
    return x


def is_writable(array):
    return array.flags.writeable


def read_only(x):
    x.flags.writeable = False
    return x


def leave_to_a_child(x):
    pid = os.fork()
    if pid == 0:
        time.sleep(0.5)
        os._exit(0 if x[0] == 1 else 1)
    kept.append(pid)
    return x


def end_of_child():
    return os.waitstatus_to_exitcode(os.waitpid(kept.pop(), 0)[1])


@unittest.skipIf(numpy is None, 'numpy is not installed')
class LargeResults(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pool = multiprocessing.get_context('spawn').Pool(1)

    @classmethod
    def tearDownClass(cls):
        cls.pool.terminate()
        cls.pool.join()

    def setUp(self):
        self.ones = numpy.ones(LARGE)

    def test_an_argument_that_comes_back_is_the_callers_own(self):
        result = self.pool.apply(same, (self.ones,))
        result[:] = 5
        self.assertEqual(self.ones.sum(), LARGE)
        again = self.pool.apply(same, (result,))
        again[:] = 6
        self.assertEqual(result.sum(), 5 * LARGE)

    def test_what_the_worker_did_to_it_is_seen(self):
        for _ in range(5):
            self.assertEqual(self.pool.apply(double_in_place, (self.ones,)).sum(), 2 * LARGE)
        self.assertEqual(self.ones.sum(), LARGE)

    def test_what_the_worker_keeps_is_its_own(self):
        for function, size in ((keep, LARGE), (keep_a_view, 10)):
            result = self.pool.apply(function, (self.ones,))
            result[:] = 7
            _, sums = self.pool.apply(kept_sums)
            self.assertEqual(sums[-1], size)

    def test_one_array_twice_is_one_array_and_views_are_arrays_of_their_own(self):
        first, second = self.pool.apply(twice_the_same, (self.ones,))
        self.assertIs(first, second)
        arrays = self.pool.apply(overlapping, (self.ones,))
        for i, array in enumerate(arrays):
            array[:] = i
        self.assertEqual([float(array.sum()) for array in arrays], [0, LARGE, 200, 3 * LARGE])

    def test_read_only_arrays_arrive_writable_before_python_3_14(self):
        expected = sys.version_info < (3, 14)
        for size in (10, LARGE):
            sent = numpy.frombuffer(bytes(8 * size))
            self.assertEqual(self.pool.apply(is_writable, (sent,)), expected)
            result = self.pool.apply(read_only, (sent,))
            self.assertEqual(result.flags.writeable, expected)
            self.assertEqual(result.sum(), 0)
        self.assertTrue(self.pool.apply(is_writable, (self.ones,)))
        self.assertTrue(self.ones.flags.writeable)

    def test_a_child_of_the_worker_keeps_what_it_had(self):
        result = self.pool.apply(leave_to_a_child, (self.ones,))
        result[:] = 9
        self.assertEqual(self.pool.apply(end_of_child), 0)

    def test_results_of_a_map_and_of_an_executor(self):
        results = self.pool.map(double_in_place, [self.ones, self.ones + 1])
        self.assertEqual([float(array.sum()) for array in results], [2 * LARGE, 4 * LARGE])
        with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as executor:
            future = executor.submit(double_in_place, self.ones)
            self.assertEqual(future.result().sum(), 2 * LARGE)

    def test_memory_is_given_back(self):
        for _ in range(200):
            result = self.pool.apply(same, (numpy.ones(1 << 20),))
            self.assertEqual(result[-1], 1)
        del result
        gc.collect()
        self.assertEqual(self.pool.apply(same, (3,)), 3)


if __name__ == '__main__':
    unittest.main()
