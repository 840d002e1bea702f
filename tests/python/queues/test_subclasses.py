"""Subclasses of the queues, as libraries write them.  Runs under pyhost and under python3, which is the oracle."""

import multiprocessing
import multiprocessing.queues
import pickle
import queue
import threading
import time
import unittest
import weakref
from multiprocessing.queues import Queue, JoinableQueue, SimpleQueue
from multiprocessing.util import Finalize

from context_cases import SECONDS, UNDER_PYHOST, ContextCases, bind


class Unpicklable:
    def __reduce__(self):
        raise pickle.PicklingError('this one stays at home')


# ---- As libraries do ---------------------------------------------------------------------------------------------

class CountingFeederQueue(Queue):
    """Starts the feeder itself, with a feeding function of its own (loky)."""

    def __init__(self, maxsize=0, prefix='', *, ctx):
        super().__init__(maxsize, ctx=ctx)
        self._prefix = prefix

    def __getstate__(self):
        return (self._prefix, self._ignore_epipe, self._maxsize, self._reader, self._writer, self._rlock, self._wlock,
                self._sem, self._opid)

    def __setstate__(self, state):
        (self._prefix, self._ignore_epipe, self._maxsize, self._reader, self._writer, self._rlock, self._wlock,
         self._sem, self._opid) = state
        self._reset()

    def _start_thread(self):
        self._buffer.clear()
        self._thread = threading.Thread(target=CountingFeederQueue._feed, daemon=True, args=(
            self._buffer, self._notempty, self._send_bytes, self._wlock, self._prefix))
        self._thread.start()
        self._jointhread = Finalize(self._thread, Queue._finalize_join, [weakref.ref(self._thread)], exitpriority=-5)
        self._close = Finalize(self, Queue._finalize_close, [self._buffer, self._notempty], exitpriority=10)

    @staticmethod
    def _feed(buffer, notempty, send_bytes, writelock, prefix):
        while True:
            with notempty:
                while not buffer:
                    notempty.wait()
                obj = buffer.popleft()
            if obj is multiprocessing.queues._sentinel:
                return
            with writelock:
                send_bytes(pickle.dumps(prefix + obj))


class ReportingQueue(Queue):
    """Wants to know what could not be pickled (concurrent.futures)."""

    def __init__(self, maxsize=0, *, lock, ctx):
        self.lock = lock
        self.errors = []
        super().__init__(maxsize, ctx=ctx)

    def _on_queue_feeder_error(self, e, obj):
        with self.lock:
            self.errors.append((type(e), obj))


class Wrapper:
    """Stands for a connection (torch)."""

    def __init__(self, connection):
        self.connection = connection
        self.calls = 0

    def recv_bytes(self):
        self.calls += 1
        return self.connection.recv_bytes()

    def __getattr__(self, name):
        if name == 'connection':  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.connection, name)


class WrappingQueue(Queue):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._reader = Wrapper(self._reader)
        self._recv_bytes = self._reader.recv_bytes


class PicklingSimpleQueue(SimpleQueue):
    """Pickles in its own way into the pipe (loky)."""

    def put(self, obj):
        data = pickle.dumps(('mine', obj))
        with self._wlock:
            self._writer.send_bytes(data)


# ---- As programs do ----------------------------------------------------------------------------------------------

class SizedQueue(Queue):
    """Counts by itself, which needs nothing of the inside."""

    def __init__(self, maxsize=0, *, ctx):
        super().__init__(maxsize, ctx=ctx)
        self.count = ctx.Value('i', 0)

    def __getstate__(self):
        return super().__getstate__(), self.count

    def __setstate__(self, state):
        state, self.count = state
        super().__setstate__(state)

    def put(self, *args, **kwargs):
        super().put(*args, **kwargs)
        with self.count.get_lock():
            self.count.value += 1


class PollingTasks(JoinableQueue):
    """Calls the base class by its name."""

    def __init__(self, maxsize=0, *, ctx):
        JoinableQueue.__init__(self, maxsize, ctx=ctx)

    def ready(self):
        return self._reader.poll(SECONDS)

    def put(self, obj):
        JoinableQueue.put(self, obj)


def echo(inbox, outbox):
    while (obj := inbox.get()) is not None:
        outbox.put(obj)


def finish_tasks(tasks):
    while tasks.get() is not None:
        tasks.task_done()
    tasks.task_done()


class SubclassCases(ContextCases):
    def assert_rides(self, box, *, pipe):
        if UNDER_PYHOST:
            self.assertEqual(box._queue is None, pipe)

    def test_a_feeder_of_its_own_feeds(self):
        box, back = CountingFeederQueue(prefix='fed ', ctx=self.context), self.context.SimpleQueue()
        self.assert_rides(box, pipe=True)
        box.put('here')
        self.assertEqual(box.get(timeout=SECONDS), 'fed here')
        child = self.context.Process(target=put_one, args=(box, 'there'))
        child.start()
        self.assertEqual(box.get(timeout=SECONDS), 'fed there')
        child.join(SECONDS)
        box.close()
        box.join_thread()
        back.close()

    def test_a_reporter_is_called_without_the_locks_of_the_one_who_puts(self):
        lock = threading.Lock()
        box = ReportingQueue(1, lock=lock, ctx=self.context)
        self.assert_rides(box, pipe=True)
        stubborn = Unpicklable()
        with lock:
            box.put(stubborn)
        box.put('fine', timeout=SECONDS)  # the place of the other one is free again
        self.assertEqual(box.get(timeout=SECONDS), 'fine')
        self.assertEqual(box.errors, [(pickle.PicklingError, stubborn)])
        box.close()
        box.join_thread()

    def test_a_wrapped_reader_is_used(self):
        box = WrappingQueue(ctx=self.context)
        self.assert_rides(box, pipe=True)
        box.put('through the wrapper')
        self.assertEqual(box.get(), 'through the wrapper')
        self.assertEqual(box._reader.calls, 1)

    def test_a_simple_queue_may_write_into_its_pipe(self):
        box, back = PicklingSimpleQueue(ctx=self.context), self.context.SimpleQueue()
        self.assert_rides(box, pipe=True)
        self.start(echo, box, back)
        box.put('a')
        self.assertEqual(back.get(), ('mine', 'a'))
        SimpleQueue.put(box, None)

    def test_a_subclass_that_only_adds_keeps_the_speed(self):
        box, back = SizedQueue(ctx=self.context), SizedQueue(ctx=self.context)
        self.assert_rides(box, pipe=False)
        self.start(echo, box, back)
        for number in range(5):
            box.put(number)
        self.assertEqual([back.get(timeout=SECONDS) for _ in range(5)], list(range(5)))
        box.put(None)
        self.join_children()
        self.assertEqual((box.count.value, back.count.value), (6, 5))

    def test_the_base_class_may_be_called_by_its_name(self):
        tasks = PollingTasks(ctx=self.context)
        self.assert_rides(tasks, pipe=True)
        tasks.put('a task')
        self.assertTrue(tasks.ready())
        tasks.put(None)
        self.start(finish_tasks, tasks)
        tasks.join()

    def test_a_subclass_of_such_a_subclass_is_one_too(self):
        class More(WrappingQueue):
            pass

        box = More(ctx=self.context)
        self.assert_rides(box, pipe=True)
        box.put(1)
        self.assertEqual(box.get(timeout=SECONDS), 1)

    def test_a_bounded_pipe_is_full_and_empty_at_the_same_points(self):
        box = WrappingQueue(2, ctx=self.context)
        self.assertTrue(box.empty())
        with self.assertRaises(queue.Empty):
            box.get_nowait()
        with self.assertRaises(queue.Empty):
            box.get(timeout=0.05)
        box.put(1)
        box.put(2)
        self.assertTrue(box.full())
        self.assertEqual(box.qsize(), 2)
        with self.assertRaises(queue.Full):
            box.put(3, timeout=0.05)
        self.assertEqual([box.get(timeout=SECONDS), box.get(timeout=SECONDS)], [1, 2])
        box.close()
        box.join_thread()
        for use in box.get, box.put:
            with self.assertRaisesRegex(ValueError, 'is closed'):
                use(*[0] * (use == box.put))

    def test_what_was_put_is_flushed_when_the_process_ends(self):
        box = WrappingQueue(ctx=self.context)
        child = self.start(put_one, box, 'x' * 1_000_000)
        self.assertEqual(len(box.get(timeout=SECONDS)), 1_000_000)
        child.join(SECONDS)
        self.assertEqual(child.exitcode, 0)

    def test_a_pipe_is_not_pickled_outside_of_a_start(self):
        for box in WrappingQueue(ctx=self.context), PicklingSimpleQueue(ctx=self.context):
            with self.assertRaisesRegex(RuntimeError, 'through inheritance'):
                pickle.dumps(box)

    def test_a_feeder_that_is_blocked_ends_when_the_queue_is_broken(self):
        if not hasattr(Queue, '_terminate_broken'):
            self.skipTest('this Python has no Queue._terminate_broken')
        box = WrappingQueue(ctx=self.context)
        box._ignore_epipe = True
        box.put(b'x' * 1_000_000)
        deadline = time.monotonic() + SECONDS
        while not box._reader.poll() and time.monotonic() < deadline:
            pass
        box._terminate_broken()
        self.assertFalse(box._thread.is_alive())


class PyhostSubclassCases:
    def test_batches_go_through_a_pipe_too(self):
        box = WrappingQueue(3, ctx=self.context)
        self.assertEqual(box.put_many(range(5), timeout=0.05), 3)
        self.assertEqual(box.get_many(2, timeout=SECONDS), [0, 1])
        self.assertEqual(box.get_many(9, timeout=SECONDS), [2])
        with self.assertRaises(queue.Empty):
            box.get_many(1, timeout=0.01)


def put_one(box, obj):
    box.put(obj)


bind(globals(), 'SubclassTest', SubclassCases, *([PyhostSubclassCases] if UNDER_PYHOST else []))

if __name__ == '__main__':
    unittest.main()
