"""Subclasses of Pool that bring their own queues.  Runs under pyhost and under python3, which is the oracle.

What python3 has not (a call lost with its worker is told of) runs under pyhost alone.
"""

import multiprocessing
import multiprocessing.pool
import os
import pickle
import signal
import struct
import sys
import time
import unittest

UNDER_PYHOST = 'pyhost' in os.path.basename(sys.executable)
SECONDS = 60  # how long anything may take before a test fails


def square(x):
    return x * x


def fail(x):
    raise KeyError(x)


def make_lambda():
    return lambda: 1


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def is_marked(x):
    return x == 'marked by the queue'


class Marking:
    """A queue over a pipe that pickles in its own way: text becomes another."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return 'mark' if type(obj) is str and obj == 'to be marked' else None

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, pid):
            return 'marked by the queue'

    def __init__(self, ctx):
        self._reader, self._writer = ctx.Pipe(duplex=False)
        self._rlock, self._wlock = ctx.Lock(), ctx.Lock()

    def put(self, obj):
        import io
        data = io.BytesIO()
        self.Pickler(data).dump(obj)
        with self._wlock:
            self._writer.send_bytes(data.getvalue())

    def get(self):
        import io
        with self._rlock:
            data = self._reader.recv_bytes()
        return self.Unpickler(io.BytesIO(data)).load()

    def empty(self):
        return not self._reader.poll()


class MarkingPool(multiprocessing.pool.Pool):
    queue_class = Marking

    def _setup_queues(self):
        self._inqueue, self._outqueue = self.queue_class(self._ctx), self._ctx.SimpleQueue()
        self._quick_put = self._inqueue.put
        self._quick_get = self._outqueue.get


class HalfDone(Marking):
    """A queue whose workers stay in the middle of a message, until they are killed."""

    def __init__(self, ctx):
        super().__init__(ctx)
        self.owner = os.getpid()
        self.reached = ctx.Semaphore(0)

    def stay(self):
        self.reached.release()
        while True:
            signal.pause()

    def get(self):
        if os.getpid() == self.owner:
            return super().get()
        with self._rlock:
            os.read(self._reader.fileno(), 4)
            self.stay()

    def put(self, obj):
        if os.getpid() == self.owner:
            return super().put(obj)
        with self._wlock:
            os.write(self._writer.fileno(), struct.pack('!i', 100_000))
            self.stay()


class HalfReadPool(MarkingPool):
    queue_class = HalfDone


class HalfWrittenPool(multiprocessing.pool.Pool):
    def _setup_queues(self):
        self._inqueue, self._outqueue = self._ctx.SimpleQueue(), HalfDone(self._ctx)
        self._quick_put = self._inqueue.put
        self._quick_get = self._outqueue.get


class CountingPool(multiprocessing.pool.Pool):
    """Counts what is sent."""

    def _setup_queues(self):
        super()._setup_queues()
        self.sent = []
        put = self._quick_put

        def note_and_put(task):
            if task is not None:
                self.sent.append(task[2:])
            put(task)

        self._quick_put = note_and_put


class QueueCases:
    def pool(self, cls=CountingPool, processes=2, **options):
        pool = cls(processes, context=multiprocessing.get_context(self.method), **options)
        self.addCleanup(pool.join)
        self.addCleanup(pool.terminate)
        return pool

    def test_the_pool_pickles_as_its_queue_does(self):
        pool = self.pool(MarkingPool)
        self.assertTrue(pool.apply(is_marked, ('to be marked',)))
        self.assertEqual(pool.map(is_marked, ['to be marked', 'x'] * 5), [True, False] * 5)

    def test_every_way_of_calling_goes_through_the_queues(self):
        pool = self.pool()
        self.assertEqual(pool.apply(square, (3,)), 9)
        self.assertEqual(pool.sent, [(square, (3,), {})])
        self.assertEqual(pool.map(square, range(100)), [x * x for x in range(100)])
        self.assertEqual(pool.map(square, range(7), 3), [x * x for x in range(7)])
        self.assertEqual(pool.starmap(pow, [(2, 3), (3, 2)]), [8, 9])
        self.assertEqual(list(pool.imap(square, range(20))), [x * x for x in range(20)])
        self.assertEqual(list(pool.imap(square, range(20), 6)), [x * x for x in range(20)])
        self.assertEqual(sorted(pool.imap_unordered(square, iter(range(20)))), [x * x for x in range(20)])
        self.assertEqual(pool.apply_async(int, ('11',), {'base': 2}).get(SECONDS), 3)

    def test_errors_reach_their_call_alone(self):
        pool = self.pool()
        for unsendable in (pool.apply_async(lambda: 1), pool.apply_async(make_lambda)):
            with self.assertRaises(Exception):
                unsendable.get(SECONDS)
        with self.assertRaises(KeyError) as caught:
            pool.apply(fail, (5,))
        self.assertIn('raise KeyError(x)', str(caught.exception.__cause__))
        self.assertEqual(pool.apply(square, (3,)), 9)

    def test_callbacks(self):
        pool = self.pool()
        seen = []
        pool.map_async(square, range(5), callback=seen.append).wait(SECONDS)
        pool.apply_async(fail, (5,), error_callback=seen.append).wait(SECONDS)
        self.assertEqual(seen[0], [0, 1, 4, 9, 16])
        self.assertIsInstance(seen[1], KeyError)

    def test_workers_are_replaced_after_their_last_task(self):
        pool = self.pool(maxtasksperchild=3)
        pids = pool.starmap(os.getpid, [()] * 20, 1)
        self.assertGreaterEqual(len(set(pids)), 7)

    def test_what_was_submitted_is_done_when_a_closed_pool_is_joined(self):
        pool = self.pool(maxtasksperchild=3)
        result = pool.map_async(square, range(50), 1)
        pool.close()
        pool.join()
        self.assertEqual(result.get(SECONDS), [x * x for x in range(50)])

    def test_terminating_ends_what_runs_and_what_waits(self):
        pool = self.pool()
        pool.map_async(time.sleep, [1000] * 20_000, 1)
        start = time.monotonic()
        pool.terminate()
        pool.join()
        self.assertLess(time.monotonic() - start, SECONDS / 2)

    @unittest.skipUnless(UNDER_PYHOST, 'python3 waits for ever')
    def test_terminating_with_a_worker_in_the_middle_of_a_call(self):
        pool = self.pool(HalfReadPool)
        pool.map_async(len, [bytes(10_000)] * 100, 1)  # more than a pipe holds
        self.assertTrue(pool._inqueue.reached.acquire(timeout=SECONDS))
        pool.terminate()
        pool.join()

    @unittest.skipUnless(UNDER_PYHOST, 'python3 waits for ever')
    def test_terminating_with_a_worker_in_the_middle_of_an_outcome(self):
        pool = self.pool(HalfWrittenPool)
        result = pool.apply_async(square, (3,))
        self.assertTrue(pool._outqueue.reached.acquire(timeout=SECONDS))
        pool.terminate()
        pool.join()
        self.assertTrue(result.ready())

    @unittest.skipUnless(UNDER_PYHOST, 'python3 waits for ever')
    def test_a_call_that_is_lost_with_its_worker_says_so(self):
        pool = self.pool(processes=1)
        lost, next_call = pool.apply_async(kill_self), pool.apply_async(square, (3,))
        with self.assertRaisesRegex(multiprocessing.pool.WorkerLostError, r'PoolWorker-\d+ \(pid \d+\) killed by SIGKILL'):
            lost.get(SECONDS)
        self.assertEqual(next_call.get(SECONDS), 9)

    @unittest.skipUnless(UNDER_PYHOST, 'python3 starts workers for ever')
    def test_workers_that_cannot_begin_end_the_pool(self):
        pool = self.pool(initializer=kill_self)
        with self.assertRaisesRegex(multiprocessing.pool.PoolFailedError, 'killed by SIGKILL'):
            pool.apply_async(square, (3,)).get(SECONDS)

    @unittest.skipUnless(UNDER_PYHOST, 'python3 has none')
    def test_options_that_need_the_segment_are_refused(self):
        with self.assertRaisesRegex(ValueError, '_setup_queues'):
            CountingPool(1, timeout=1)
        with self.assertRaisesRegex(ValueError, '_setup_queues'):
            self.pool().apply(square, (1,), timeout=1)


class SpawnTest(QueueCases, unittest.TestCase):
    method = 'spawn'


class ForkTest(QueueCases, unittest.TestCase):
    method = 'fork'


if __name__ == '__main__':
    unittest.main()
