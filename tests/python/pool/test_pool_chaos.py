"""A pool and an executor under load whose workers are killed, stopped and continued, leave, crash, and run out of memory.

At random.  Every call ends with its right result or a clear error, once; none is run twice that is not to be retried; and
nothing grows.  Runs under pyhost only.
PYHOST_CHAOS_KILLS: how many kills for each case, 40 by default; PYHOST_CHAOS_SEED: another sequence.
"""

import collections
import ctypes
import multiprocessing
import multiprocessing.pool
import os
import random
import resource
import signal
import tempfile
import threading
import time
import unittest
from concurrent.futures import ProcessPoolExecutor

KILLS = int(os.environ.get('PYHOST_CHAOS_KILLS', '40'))
SEED = int(os.environ.get('PYHOST_CHAOS_SEED', str(os.getpid())))
SECONDS = 60  # how long a call may take
ERRORS = (multiprocessing.pool.WorkerLostError, MemoryError)


def note_run(log, number):
    """One line for each time that a call is run."""
    with open(log, 'ab', buffering=0) as file:
        file.write(b'%d\n' % number)


def double(x):
    if x % 97 == 0:
        time.sleep(0.002)
    return x * 2


def double_and_note(log, x):
    note_run(log, x)
    return x * 2


def double_or_die(log, x):
    note_run(log, x)
    chance = random.random()
    if chance < 0.006:
        os.kill(os.getpid(), signal.SIGKILL)
    elif chance < 0.009:
        os._exit(9)
    elif chance < 0.012:
        ctypes.string_at(0)
    elif chance < 0.015:
        exhaust_memory()
    return x * 2


def exhaust_memory():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (64 << 20, before[1]))
    try:
        bytearray(1 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def double_large(data):
    return data + data


class Tormentor:
    """A thread that kills and stops workers while the body of the with statement runs."""

    def __init__(self, pids, seed):
        self._pids = pids
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.kills = 0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()

    def _run(self):
        while not self._stop.wait(self._random.random() * 0.02):
            try:
                self._torment(self._random.choice(self._pids()))
            except (IndexError, ProcessLookupError):
                pass  # just being replaced

    def _torment(self, pid):
        if self._random.random() < 0.3:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.003)
            os.kill(pid, signal.SIGCONT)
        else:
            os.kill(pid, signal.SIGKILL)
            self.kills += 1


def figures():
    """What must not grow: descriptors, threads, kilobytes of this process's own."""
    with open('/proc/self/statm') as file:
        _, resident, shared, *_ = map(int, file.read().split())
    return len(os.listdir('/proc/self/fd')), threading.active_count(), (resident - shared) * 4


class ChaosCase(unittest.TestCase):
    retries = False

    def setUp(self):
        log = tempfile.NamedTemporaryFile()
        self.addCleanup(log.close)
        self.log = log.name
        self.counts = collections.Counter()
        self.random = random.Random(SEED)
        self.number = 0

    def torment(self, pids, load):
        """Runs load() under kills; what is there before and after the last half of them is about the same."""
        load()
        with Tormentor(pids, SEED) as tormentor:
            while tormentor.kills < KILLS // 2:
                load()
            before = figures()
            while tormentor.kills < KILLS:
                load()
        load()
        # Workers that were just killed are replaced in the background.
        deadline = time.monotonic() + SECONDS
        while (after := figures())[0] > before[0] + 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertLessEqual(after[0], before[0] + 6, 'descriptors')
        self.assertLessEqual(after[1], before[1] + 2, 'threads')
        self.assertLess(after[2], before[2] + 8_000 + 2 * KILLS, 'kilobytes')
        self.assertGreater(self.counts['answered'], self.counts['lost'])
        if not self.retries:
            with open(self.log) as file:
                runs = collections.Counter(file.read().split())
            self.assertEqual([number for number, count in runs.items() if count > 1], [])

    def singles(self, count):
        """(number, function, arguments) of some calls; no number comes twice."""
        for _ in range(count):
            self.number += 1
            yield self.number, self.random.choice([double_and_note, double_or_die]), (self.log, self.number)

    def count(self, check):
        try:
            check()
            self.counts['answered'] += 1
        except ERRORS:
            self.counts['lost'] += 1


class PoolCases:
    def test_every_call_of_a_pool_ends_once(self):
        policy = 'retry' if self.retries else 'fail'
        with multiprocessing.get_context(self.method).Pool(3, max_restarts=(1000, 1.0), on_worker_death=policy) as pool:
            self.torment(lambda: [process.pid for process in list(pool._pool)], lambda: self.load(pool))
            self.assertEqual(pool.map(double, range(100)), [2 * x for x in range(100)])

    def load(self, pool):
        singles = [(number, pool.apply_async(function, arguments)) for number, function, arguments in self.singles(150)]
        large = [pool.apply_async(double_large, (bytes([i]) * 40_000,)) for i in range(10)]
        mapped = pool.map_async(double, range(500), 10)
        iterator = pool.imap_unordered(double, range(100))
        for number, result in singles:
            self.count(lambda: self.assertEqual(result.get(SECONDS), number * 2))
        for i, result in enumerate(large):
            self.count(lambda: self.assertEqual(result.get(SECONDS), bytes([i]) * 80_000))
        self.count(lambda: self.assertEqual(mapped.get(SECONDS), [2 * x for x in range(500)]))
        seen = []
        for _ in range(100):
            self.count(lambda: seen.append(iterator.next(SECONDS)))
        self.assertRaises(StopIteration, iterator.next, SECONDS)
        self.assertEqual(len(seen), len(set(seen)))
        self.assertLessEqual(set(seen), {2 * x for x in range(100)})


class ExecutorCases:
    def test_every_call_of_an_executor_ends_once(self):
        policy = 'retry' if self.retries else 'fail'
        context = multiprocessing.get_context(self.method)
        with ProcessPoolExecutor(3, context, max_restarts=(1000, 1.0), on_worker_death=policy) as executor:
            self.torment(lambda: list(executor._processes), lambda: self.load(executor))
            self.assertEqual(list(executor.map(double, range(100))), [2 * x for x in range(100)])

    def load(self, executor):
        called = []
        singles = [(number, executor.submit(function, *arguments)) for number, function, arguments in self.singles(150)]
        for _, future in singles[::3]:
            future.add_done_callback(called.append)
        large = [executor.submit(double_large, bytes([i]) * 40_000) for i in range(10)]
        for number, future in singles:
            self.count(lambda: self.assertEqual(future.result(SECONDS), number * 2))
        for i, future in enumerate(large):
            self.count(lambda: self.assertEqual(future.result(SECONDS), bytes([i]) * 80_000))
        deadline = time.monotonic() + SECONDS
        while len(called) < 50 and time.monotonic() < deadline:
            time.sleep(0.001)
        self.assertEqual(len(called), 50)


def _bind(cases, method, retries):
    name = f'{cases.__name__}_{method}{"_retry" if retries else ""}'
    globals()[name] = type(name, (cases, ChaosCase), {'method': method, 'retries': retries, '__module__': __name__})


for _method in multiprocessing.get_all_start_methods():
    _bind(PoolCases, _method, False)
for _cases in (PoolCases, ExecutorCases):
    _bind(_cases, 'spawn', True)
_bind(ExecutorCases, 'spawn', False)

if __name__ == '__main__':
    unittest.main()
