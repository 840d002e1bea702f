"""What Pool has besides the standard library's: limits, cancelling, deaths and retries, memory, progress, figures.

Runs under pyhost only.
"""

import contextlib
import ctypes
import io
import multiprocessing
import multiprocessing.pool
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import types
import unittest
from multiprocessing.pool import CallCancelledError, CallTimeoutError, WorkerLostError
from unittest import mock

try:
    import numpy
except ImportError:
    numpy = None

SECONDS = 60  # how long anything may take before a test fails
LONG = 1000


def square(x):
    return x * x


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def sleep_in_c_with_the_gil():
    ctypes.PyDLL(None).sleep(LONG)


def ignore_sigterm():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def block_signals_and_sleep():
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
    time.sleep(LONG)


def stop_self():
    os.kill(os.getpid(), signal.SIGSTOP)


def touch_and_sleep(path):
    open(path, 'w').close()
    time.sleep(LONG)


def count_attempt(path):
    """How many lines the file has, with the one that is written now."""
    with open(path, 'a+') as file:
        file.write('x\n')
        file.flush()
        file.seek(0)
        return len(file.readlines())


def die_at_first(path, deaths=1):
    attempt = count_attempt(path)
    if attempt <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt


def fill_and_die_at_first(path, array):
    total = float(array.sum())
    array[:] = -1
    if count_attempt(path) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return total


def crash(_=None):
    ctypes.string_at(0)


def fail(_):
    raise KeyError('ordinary')


_kept = []


def keep_bytes(count):
    _kept.append(b'x' * count)
    return os.getpid()


def pid_of_worker(_=None):
    return os.getpid()


def raise_in_initializer():
    raise RuntimeError('cannot begin')


def wait_for_file(path):
    deadline = time.monotonic() + SECONDS
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.005)


class PoolCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, 'file')

    def make_pool(self, processes=2, **options):
        pool = multiprocessing.get_context(self.method).Pool(processes, **options)
        self.addCleanup(pool.join)
        self.addCleanup(pool.terminate)
        return pool

    method = 'spawn'


class TimeoutTest(PoolCase):
    def test_stuck_call_raises_with_the_workers_stack_and_the_worker_is_replaced(self):
        pool = self.make_pool(1)
        before = pool.apply(pid_of_worker)
        start = time.monotonic()
        with self.assertRaises(CallTimeoutError) as caught:
            pool.apply(sleep, (LONG,), timeout=0.2)
        self.assertLess(time.monotonic() - start, 10)
        error = caught.exception
        self.assertIsInstance(error, TimeoutError)
        self.assertIsInstance(error, multiprocessing.TimeoutError)
        self.assertEqual((error.pid, error.function, error.limit), (before, 'sleep', 0.2))
        self.assertIn('in sleep', error.stack)
        self.assertIn('in sleep', str(error.__cause__))
        self.assertRegex(str(error), rf'sleep took longer than 0.2 seconds; .*pid {before}')
        self.assertNotEqual(pool.apply(pid_of_worker), before)

    def test_stack_of_a_worker_that_holds_the_gil_in_c(self):
        with self.assertRaises(CallTimeoutError) as caught:
            self.make_pool(1).apply(sleep_in_c_with_the_gil, timeout=0.2)
        self.assertIn('in sleep_in_c_with_the_gil', caught.exception.stack)

    def test_worker_that_blocks_all_signals_is_killed_without_a_stack(self):
        pool = self.make_pool(1)
        with self.assertRaises(CallTimeoutError) as caught:
            pool.apply(block_signals_and_sleep, timeout=0.2)
        self.assertEqual(caught.exception.stack, '')
        self.assertEqual(pool.apply(square, (3,)), 9)

    def test_stopped_worker_does_not_hold_its_call(self):
        self.assertRaises(CallTimeoutError, self.make_pool(1).apply, stop_self, timeout=0.2)

    def test_limit_counts_from_the_call_s_begin(self):
        pool = self.make_pool(1)
        results = [pool.apply_async(sleep, (0.2,), timeout=1.5) for _ in range(10)]
        self.assertEqual([result.get(SECONDS) for result in results], [0.2] * 10)

    def test_limit_is_for_each_item_of_a_chunk(self):
        self.assertEqual(self.make_pool(1).map(sleep, [0.2] * 8, 8, timeout=1.0), [0.2] * 8)
        self.assertRaises(CallTimeoutError, self.make_pool(1).map, sleep, [0, 0, LONG, 0], 4, timeout=0.2)

    def test_other_calls_complete(self):
        pool = self.make_pool()
        iterator = pool.imap(sleep, [0, LONG, 0, 0], timeout=0.3)
        self.assertEqual(next(iterator), 0)
        self.assertRaises(CallTimeoutError, next, iterator)
        self.assertEqual([next(iterator), next(iterator)], [0, 0])

    def test_limit_for_all_calls_of_a_pool(self):
        pool = self.make_pool(timeout=0.3)
        self.assertRaises(CallTimeoutError, pool.apply, sleep, (LONG,))
        self.assertRaises(CallTimeoutError, pool.apply_async(sleep, (LONG,)).get, SECONDS)
        self.assertEqual(pool.apply(sleep, (0.5,), timeout=SECONDS), 0.5)

    def test_error_callback_gets_it(self):
        seen = []
        self.make_pool(1).apply_async(sleep, (LONG,), error_callback=seen.append, timeout=0.2).wait(SECONDS)
        self.assertIsInstance(seen[0], CallTimeoutError)

    def test_own_keywords_are_the_functions(self):
        self.assertEqual(self.make_pool(1).apply(dict, (), {'timeout': 1, 'progress': 2}), {'timeout': 1, 'progress': 2})

    def test_error_can_be_pickled(self):
        error = CallTimeoutError('it took long', 12, 'f', 0.5, 'stack')
        copy = pickle.loads(pickle.dumps(error))
        self.assertEqual((str(copy), copy.pid, copy.limit, copy.stack), ('it took long', 12, 0.5, 'stack'))

    def test_many_calls_near_their_limit_end_one_way_or_the_other(self):
        pool = self.make_pool(timeout=0.05)
        results = [pool.apply_async(sleep, (0.045 + i % 10 / 1000,)) for i in range(60)]
        for result in results:
            with contextlib.suppress(CallTimeoutError):
                self.assertLess(result.get(SECONDS), 0.06)


class CancelTest(PoolCase):
    def test_running_call_is_ended(self):
        pool = self.make_pool(1)
        result = pool.apply_async(touch_and_sleep, (self.path,))
        wait_for_file(self.path)
        self.assertTrue(result.cancel())
        self.assertRaisesRegex(CallCancelledError, r'touch_and_sleep was cancelled while .*pid', result.get, SECONDS)
        self.assertTrue(result.cancelled())
        self.assertEqual(pool.apply(square, (3,)), 9)

    def test_waiting_call_is_not_run(self):
        pool = self.make_pool(1)
        first = pool.apply_async(sleep, (0.3,))
        second = pool.apply_async(touch_and_sleep, (self.path,))
        self.assertTrue(second.cancel())
        self.assertRaisesRegex(CallCancelledError, 'before it was run', second.get, SECONDS)
        self.assertEqual(first.get(SECONDS), 0.3)
        self.assertEqual(pool.apply(square, (3,)), 9)
        self.assertFalse(os.path.exists(self.path))

    def test_call_that_is_done_stays_so(self):
        result = self.make_pool(1).apply_async(square, (4,))
        result.wait(SECONDS)
        self.assertFalse(result.cancel())
        self.assertEqual(result.get(), 16)
        self.assertFalse(result.cancelled())

    def test_map_is_ended_as_a_whole(self):
        pool = self.make_pool()
        result = pool.map_async(sleep, [0.1] * 1000, 1)
        self.assertTrue(result.cancel())
        self.assertRaises(CallCancelledError, result.get, SECONDS)
        self.assertEqual(pool.map(square, range(5)), [0, 1, 4, 9, 16])

    def test_worker_that_ignores_sigterm_is_killed(self):
        pool = self.make_pool(1, initializer=ignore_sigterm)
        result = pool.apply_async(touch_and_sleep, (self.path,))
        wait_for_file(self.path)
        self.assertTrue(result.cancel())
        self.assertRaises(CallCancelledError, result.get, SECONDS)

    def test_waiting_threads_of_a_thread_pool(self):
        with multiprocessing.pool.ThreadPool(1) as pool:
            first = pool.apply_async(sleep, (0.2,))
            second = pool.apply_async(touch_and_sleep, (self.path,))
            self.assertTrue(second.cancel())
            self.assertRaises(CallCancelledError, second.get, SECONDS)
            self.assertEqual(first.get(SECONDS), 0.2)
            self.assertRaises(ValueError, pool.apply, square, (1,), timeout=1)


class DeathTest(PoolCase):
    def test_fault_comes_with_the_workers_stack(self):
        with self.assertRaises(WorkerLostError) as caught:
            self.make_pool(1).apply(crash)
        error = caught.exception
        self.assertEqual(error.exitcode, -signal.SIGSEGV)
        self.assertRegex(error.stack, r'Segmentation fault[^|]*in crash')
        self.assertIn('in crash', str(error.__cause__))

    def test_workers_that_leave_in_calls_all_at_once_are_no_failing_start(self):
        pool = self.make_pool(6)
        for _ in range(5):
            for result in [pool.apply_async(os._exit, (9,)) for _ in range(6)]:
                self.assertRaises(WorkerLostError, result.get, SECONDS)
        self.assertEqual(pool.apply(square, (3,)), 9)

    def test_retried_call_succeeds(self):
        pool = self.make_pool(on_worker_death='retry')
        self.assertEqual(pool.apply(die_at_first, (self.path,)), 2)
        self.assertEqual(pool.map(square, range(100)), [x * x for x in range(100)])

    def test_retry_can_be_asked_for_one_call(self):
        pool = self.make_pool()
        self.assertRaises(WorkerLostError, pool.apply, os._exit, (3,))
        self.assertEqual(pool.apply(die_at_first, (self.path,), on_worker_death='retry'), 2)

    def test_number_of_retries(self):
        self.assertRaises(WorkerLostError, self.make_pool(on_worker_death='retry', max_retries=1).apply, die_at_first,
                          (self.path, 5))
        with open(self.path) as file:
            self.assertEqual(len(file.readlines()), 2)

    def test_retry_in_a_closed_pool(self):
        pool = self.make_pool(on_worker_death='retry')
        result = pool.apply_async(die_at_first, (self.path, 2))
        pool.close()
        pool.join()
        self.assertEqual(result.get(SECONDS), 3)

    def test_exception_of_the_function_is_no_reason_to_retry(self):
        self.assertRaises(KeyError, self.make_pool(on_worker_death='retry').apply, fail, (1,))

    def test_large_arguments_come_again(self):
        data = os.urandom(3_000_000)
        self.assertEqual(self.make_pool(1, on_worker_death='retry').apply(die_at_first_with, (self.path, data)), data)

    @unittest.skipIf(numpy is None, 'numpy is not installed')
    def test_retry_sees_arrays_as_they_were_sent(self):
        array = numpy.ones(500_000)
        pool = self.make_pool(1, on_worker_death='retry')
        self.assertEqual(pool.apply(fill_and_die_at_first, (self.path, array)), 500_000)
        self.assertEqual(array.sum(), 500_000)

    def test_cause_of_workers_that_cannot_begin_is_printed_once(self):
        with tempfile.TemporaryFile('w+') as output:
            saved = os.dup(2)
            os.dup2(output.fileno(), 2)
            try:
                pool = self.make_pool(initializer=raise_in_initializer)
                self.assertRaisesRegex(multiprocessing.pool.PoolFailedError, 'RuntimeError: cannot begin',
                                       pool.apply, square, (1,))
                pool.terminate()
                pool.join()
            finally:
                os.dup2(saved, 2)
                os.close(saved)
            output.seek(0)
            self.assertEqual(output.read().count('RuntimeError: cannot begin'), 1)


def die_at_first_with(path, data):
    die_at_first(path)
    return data


# Prints what becomes of a call whose worker and supervisor are killed together: nobody is left to tell.
WITHOUT_A_SUPERVISOR = """
import _pyhost, multiprocessing, os, signal, time
if __name__ == '__main__':
    with multiprocessing.get_context('spawn').Pool(2) as pool:
        result = pool.apply_async(time.sleep, (1000,))
        while not any(one['call'] for one in pool.stats()):
            time.sleep(0.01)
        pid = next(one['pid'] for one in pool.stats() if one['call'])
        os.kill(_pyhost.supervisor_pid(), signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        try:
            result.get(30)
        except Exception as error:
            print(type(error).__name__, 'sleep' in str(error), pool.apply(abs, (-3,)))
"""


class LonelyTest(unittest.TestCase):
    def test_lost_call_ends_though_the_supervisor_is_dead(self):
        done = subprocess.run([sys.executable, '-c', WITHOUT_A_SUPERVISOR], capture_output=True, text=True, timeout=SECONDS)
        self.assertEqual(done.stdout, 'WorkerLostError True 3\n', done.stderr)


class MemoryTest(PoolCase):
    def test_worker_that_grew_is_replaced_after_the_call(self):
        pool = self.make_pool(1, max_memory_per_worker=100 << 20)
        pids = [pool.apply(keep_bytes, (30 << 20,)) for _ in range(12)]
        self.assertGreaterEqual(len(set(pids)), 3)
        self.assertGreater(pids.count(pids[0]), 1)

    def test_shared_arguments_do_not_count(self):
        pool = self.make_pool(1, max_memory_per_worker=100 << 20)
        array = multiprocessing.get_context('spawn').RawArray('b', 1)
        self.assertEqual(len({pool.apply(pid_of_worker, (array,)) for _ in range(10)}), 1)


class Bar:
    """Stands for tqdm's."""

    made = []

    def __init__(self, desc, total):
        self.desc, self.total, self.shown, self.closed = desc, total, 0, False
        Bar.made.append(self)

    def update(self, count):
        self.shown += count

    def close(self):
        self.closed = True


class Terminal(io.StringIO):
    def isatty(self):
        return True


class ProgressTest(PoolCase):
    def test_bar_of_tqdm(self):
        Bar.made.clear()
        pool = self.make_pool()
        with mock.patch.dict(sys.modules, {'tqdm': types.ModuleType('tqdm'),
                                           'tqdm.auto': types.SimpleNamespace(tqdm=Bar)}):
            pool.map(square, range(1000), progress=True)
            pool.starmap(pow, [(1, 2)] * 30, 1, progress=True)
            list(pool.imap(square, range(20), progress=True))
            list(pool.imap_unordered(square, iter(range(20)), 6, progress=True))
        self.assertEqual([(bar.desc, bar.total, bar.shown, bar.closed) for bar in Bar.made],
                         [('square', 1000, 1000, True), ('pow', 30, 30, True), ('square', 20, 20, True),
                          ('square', None, 20, True)])

    def test_line_on_a_terminal(self):
        terminal = Terminal()
        without = {'tqdm': None, 'tqdm.auto': None, 'rich': None, 'rich.progress': None}
        with mock.patch.dict(sys.modules, without), mock.patch('sys.stderr', terminal):
            self.make_pool().map(sleep, [0.15] * 4, 1, progress=True)
        self.assertRegex(terminal.getvalue(), r'\rsleep: 4/4 \(100%\) in \d+\.\d s\n$')
        self.assertGreater(terminal.getvalue().count('\r'), 1)

    def test_nothing_where_there_is_no_terminal(self):
        file = io.StringIO()
        without = {'tqdm': None, 'tqdm.auto': None, 'rich': None, 'rich.progress': None}
        with mock.patch.dict(sys.modules, without), mock.patch('sys.stderr', file):
            self.assertEqual(self.make_pool().map(square, [1, 2], progress=True), [1, 4])
        self.assertEqual(file.getvalue(), '')


class StatsTest(PoolCase):
    def test_figures_of_the_workers(self):
        pool = self.make_pool(1)
        pool.apply(sleep, (0.1,))
        pool.apply(len, (bytes(100_000),))
        one, = pool.stats()
        self.assertEqual((one['pid'], one['calls'], one['restarts']), (pool._pool[0].pid, 2, 0))
        self.assertGreater(one['busy'], 0.09)
        self.assertGreater(one['pickling'], 0)
        self.assertGreater(one['waiting'], 0)
        self.assertGreater(one['bytes_in'], 100_000)
        self.assertGreater(one['bytes_out'], 0)
        self.assertRaises(WorkerLostError, pool.apply, os._exit, (1,))
        pool.apply(square, (1,))
        self.assertEqual(pool.stats()[0]['restarts'], 1)

    def test_help_tells_of_them(self):
        text = multiprocessing.pool.Pool.__doc__ + ''.join(
            str(getattr(multiprocessing.pool.Pool, name).__doc__) for name in ('apply', 'map', 'imap', 'stats'))
        for word in ('timeout', 'on_worker_death', 'max_retries', 'max_memory_per_worker', 'max_restarts', 'progress',
                     'cancel', 'restarts', 'CallTimeoutError', 'WorkerLostError'):
            self.assertIn(word, text)


class BadInputTest(PoolCase):
    def test_options_are_checked(self):
        pool = self.make_pool(1)
        for error, options in ((ValueError, {'timeout': 0}), (ValueError, {'timeout': -1}),
                               (ValueError, {'timeout': float('nan')}), (TypeError, {'timeout': '1'}),
                               (ValueError, {'on_worker_death': 'again'})):
            for call in (pool.apply, pool.apply_async):
                self.assertRaises(error, call, square, (1,), **options)
            for call in (pool.map, pool.map_async, pool.starmap, pool.starmap_async, pool.imap, pool.imap_unordered):
                self.assertRaises(error, call, square, [1], **options)
        self.assertEqual(pool.apply(square, (2,), timeout=float('inf')), 4)

    def test_options_of_a_pool_are_checked(self):
        for error, options in ((ValueError, {'timeout': 0}), (TypeError, {'timeout': 'x'}),
                               (ValueError, {'on_worker_death': None}), (ValueError, {'max_retries': -1}),
                               (TypeError, {'max_retries': 1.5}), (ValueError, {'max_memory_per_worker': 0}),
                               (TypeError, {'max_memory_per_worker': '1G'}), (ValueError, {'max_restarts': (0, 1)}),
                               (TypeError, {'max_restarts': 5}), (TypeError, {'max_restarts': ('a', 'b')}),
                               (ValueError, {'max_restarts': (1, 0)})):
            with self.assertRaises(error, msg=options):
                multiprocessing.Pool(1, **options)


if __name__ == '__main__':
    unittest.main()
