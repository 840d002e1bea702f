"""What ProcessPoolExecutor has besides the standard library's: limits, policies for deaths, ending running calls, memory.

Runs under pyhost only.
"""

import concurrent.futures
import multiprocessing.pool
import os
import signal
import tempfile
import time
import unittest
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from multiprocessing.pool import CallTimeoutError, WorkerLostError

SECONDS = 60  # how long anything may take before a test fails
LONG = 1000


def square(x):
    return x * x


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def touch_and_sleep(path):
    open(path, 'w').close()
    time.sleep(LONG)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_first(path, deaths):
    with open(path, 'a+') as file:
        file.write('x\n')
        file.flush()
        file.seek(0)
        attempt = len(file.readlines())
    if attempt <= deaths:
        die()
    return attempt


_kept = []


def keep_bytes(count):
    _kept.append(b'x' * count)
    return os.getpid()


def keywords(**kwds):
    return kwds


def fail():
    raise RuntimeError('cannot begin')


class OptionsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, 'file')

    def make(self, workers=1, **options):
        executor = ProcessPoolExecutor(workers, **options)
        self.addCleanup(executor.shutdown)
        return executor

    def test_stuck_call_raises_with_the_workers_stack_and_the_executor_goes_on(self):
        executor = self.make()
        future = executor.options(timeout=0.3).submit(sleep, LONG)
        with self.assertRaises(CallTimeoutError) as caught:
            future.result(SECONDS)
        self.assertIsInstance(caught.exception, concurrent.futures.TimeoutError)
        self.assertIn('in sleep', caught.exception.stack)
        self.assertEqual(executor.submit(square, 3).result(SECONDS), 9)
        self.assertEqual(executor.stats()[0]['restarts'], 1)

    def test_limit_for_all_calls_reaches_callbacks_and_map(self):
        executor = self.make(timeout=0.3)
        future = executor.submit(sleep, LONG)
        done, _ = concurrent.futures.wait([future], SECONDS)
        self.assertIsInstance(done.pop().exception(), CallTimeoutError)
        self.assertRaises(CallTimeoutError, list, executor.map(sleep, [LONG]))

    def test_calls_that_wait_behind_a_stuck_one_are_run(self):
        executor = self.make()
        stuck = executor.options(timeout=0.3).submit(sleep, LONG)
        others = [executor.submit(square, i) for i in range(20)]
        self.assertEqual([other.result(SECONDS) for other in others], [i * i for i in range(20)])
        self.assertRaises(CallTimeoutError, stuck.result, SECONDS)

    def test_keywords_are_the_functions(self):
        options = self.make().options(timeout=SECONDS)
        self.assertEqual(options.submit(keywords, timeout=1, on_worker_death=2).result(),
                         {'timeout': 1, 'on_worker_death': 2})

    def test_running_call_is_cancelled_when_asked_for(self):
        executor = self.make()
        future = executor.submit(touch_and_sleep, self.path)
        deadline = time.monotonic() + SECONDS
        while not os.path.exists(self.path) and time.monotonic() < deadline:
            time.sleep(0.005)
        self.assertFalse(future.cancel())
        self.assertTrue(future.running())
        self.assertTrue(future.cancel(running=True))
        self.assertTrue(future.cancelled())
        self.assertRaises(concurrent.futures.CancelledError, future.result)
        self.assertEqual(executor.submit(square, 3).result(SECONDS), 9)

    def test_death_costs_its_call_only(self):
        executor = self.make(2, on_worker_death='fail')
        dead = executor.submit(die)
        others = [executor.submit(square, i) for i in range(20)]
        with self.assertRaises(WorkerLostError) as caught:
            dead.result(SECONDS)
        self.assertEqual(caught.exception.exitcode, -signal.SIGKILL)
        self.assertEqual([other.result(SECONDS) for other in others], [i * i for i in range(20)])
        self.assertEqual(executor.submit(square, 3).result(SECONDS), 9)

    def test_idle_worker_that_is_killed_is_replaced(self):
        executor = self.make(on_worker_death='fail')
        pid = executor.submit(os.getpid).result(SECONDS)
        os.kill(pid, signal.SIGKILL)
        self.assertEqual(executor.submit(square, 3).result(SECONDS), 9)

    def test_death_of_a_worker_that_was_started_later_is_noticed(self):
        executor = self.make(2, on_worker_death='fail')
        first = executor.submit(sleep, 5)
        pid = executor.submit(os.getpid).result(SECONDS)  # by the second worker, started while the first is watched
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + SECONDS
        while pid in executor._processes and time.monotonic() < deadline:
            time.sleep(0.005)
        self.assertNotIn(pid, executor._processes)
        self.assertFalse(first.done())

    def test_lost_call_is_run_again(self):
        executor = self.make(on_worker_death='retry')
        self.assertEqual(executor.submit(die_at_first, self.path, 2).result(SECONDS), 3)
        self.assertRaises(WorkerLostError, executor.submit(die).result, SECONDS)
        self.assertRaises(WorkerLostError, executor.options(on_worker_death='fail').submit(die).result, SECONDS)

    def test_lost_call_is_run_again_during_shutdown(self):
        with self.make(on_worker_death='retry') as executor:
            future = executor.submit(die_at_first, self.path, 1)
        self.assertEqual(future.result(0), 2)

    def test_workers_that_cannot_begin_break_it_all_the_same(self):
        executor = self.make(on_worker_death='fail', initializer=fail)
        self.assertRaises(BrokenProcessPool, executor.submit(square, 1).result, SECONDS)

    def test_without_a_policy_it_breaks(self):
        executor = self.make()
        self.assertRaises(BrokenProcessPool, executor.submit(die).result, SECONDS)
        self.assertRaises(BrokenProcessPool, executor.submit, square, 1)

    def test_worker_that_grew_is_replaced(self):
        executor = self.make(max_memory_per_worker=100 << 20)
        pids = [executor.submit(keep_bytes, 40 << 20).result(SECONDS) for _ in range(8)]
        self.assertGreaterEqual(len(set(pids)), 3)

    def test_bad_options(self):
        executor = self.make()
        for error, options in ((ValueError, {'timeout': 0}), (TypeError, {'timeout': 'x'}),
                               (ValueError, {'on_worker_death': 'fail'})):
            self.assertRaises(error, executor.options, **options)
        for error, options in ((ValueError, {'timeout': -1}), (ValueError, {'on_worker_death': 'x'}),
                               (TypeError, {'max_memory_per_worker': 1.5}), (TypeError, {'max_restarts': 3})):
            self.assertRaises(error, ProcessPoolExecutor, 1, **options)


if __name__ == '__main__':
    unittest.main()
