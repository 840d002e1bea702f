"""A pool under load whose workers are killed, stopped and continued, leave, and crash, at random.

Every call ends with its right result or with WorkerLostError, exactly once, and nothing grows.  Runs under pyhost only.
PYHOST_CHAOS_SECONDS: how long, for each start method; PYHOST_CHAOS_SEED: another sequence.
"""

import ctypes
import multiprocessing
import multiprocessing.pool
import os
import random
import signal
import threading
import time
import unittest

CHAOS_SECONDS = float(os.environ.get('PYHOST_CHAOS_SECONDS', '4'))
SEED = int(os.environ.get('PYHOST_CHAOS_SEED', str(os.getpid())))
SECONDS = 60  # how long a call may take


def double(x):
    if x % 97 == 0:
        time.sleep(0.002)
    return x * 2


def double_or_die(x):
    chance = random.random()
    if chance < 0.006:
        os.kill(os.getpid(), signal.SIGKILL)
    if chance < 0.009:
        os._exit(9)
    if chance < 0.012:
        ctypes.string_at(0)
    if chance < 0.015:
        raise SystemExit(3)
    return x * 2


def double_large(data):
    return data + data


class Tormentor:
    """A thread that kills and stops workers of a pool while the body of the with statement runs."""

    def __init__(self, pool, seed):
        self._pool = pool
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
                self._torment(self._random.choice(list(self._pool._pool)).pid)
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


def open_descriptors():
    return len(os.listdir('/proc/self/fd'))


class ChaosCases:
    method = None

    def test_every_call_ends_with_its_result_or_a_clear_error(self):
        context = multiprocessing.get_context(self.method)
        with context.Pool(3, max_restarts=(1000, 1.0)) as pool:
            self.expect_outcomes(pool, random.Random(SEED))
            descriptors = open_descriptors()
            with Tormentor(pool, SEED) as tormentor:
                deadline = time.monotonic() + CHAOS_SECONDS
                answered = lost = 0
                while time.monotonic() < deadline:
                    counts = self.expect_outcomes(pool, random.Random(SEED + answered))
                    answered, lost = answered + counts[0], lost + counts[1]
            self.assertEqual(pool.map(double, range(100)), [2 * x for x in range(100)])
            self.assertLessEqual(open_descriptors(), descriptors + 4)
        self.assertGreater(tormentor.kills, 5 * CHAOS_SECONDS)
        self.assertGreater(answered, lost)

    def expect_outcomes(self, pool, choice):
        """(calls with a result, calls lost) of a mixed load."""
        singles = [(i, pool.apply_async(choice.choice([double, double_or_die]), (i,))) for i in range(200)]
        large = [pool.apply_async(double_large, (bytes([i]) * 40_000,)) for i in range(10)]
        mapped = pool.map_async(double, range(500), 10)
        iterator = pool.imap_unordered(double, range(100))
        counts = [0, 0]
        for i, result in singles:
            self.count(counts, lambda: self.assertEqual(result.get(SECONDS), i * 2))
        for i, result in enumerate(large):
            self.count(counts, lambda: self.assertEqual(result.get(SECONDS), bytes([i]) * 80_000))
        self.count(counts, lambda: self.assertEqual(mapped.get(SECONDS), [2 * x for x in range(500)]))
        seen = []
        for _ in range(100):
            self.count(counts, lambda: seen.append(iterator.next(SECONDS)))
        self.assertRaises(StopIteration, iterator.next, SECONDS)
        self.assertEqual(len(seen), len(set(seen)))
        self.assertLessEqual(set(seen), {2 * x for x in range(100)})
        return counts

    @staticmethod
    def count(counts, check):
        try:
            check()
            counts[0] += 1
        except multiprocessing.pool.WorkerLostError:
            counts[1] += 1


for _method in multiprocessing.get_all_start_methods():
    _name = f'ChaosTest_{_method}'
    globals()[_name] = type(_name, (ChaosCases, unittest.TestCase), {'method': _method, '__module__': __name__})

if __name__ == '__main__':
    unittest.main()
