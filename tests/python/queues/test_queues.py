"""Queues between processes.  Runs under pyhost and under python3, whose standard library is the oracle."""

import contextlib
import io
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import time
import unittest

from context_cases import SECONDS, UNDER_PYHOST, ContextCases, bind


def echo(inbox, outbox):
    while (obj := inbox.get()) is not None:
        outbox.put(obj)


def put_numbered(outbox, producer, count):
    for number in range(count):
        outbox.put((producer, number))


def drain(inbox, outbox):
    taken = []
    while (obj := inbox.get()) is not None:
        taken.append(obj)
    outbox.put(taken)


def put_and_die(outbox):
    outbox.put('last words')
    if not UNDER_PYHOST:
        outbox.close()
        outbox.join_thread()
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_ever(inbox, ready):
    ready.set()
    inbox.get()


def use_sent_objects(inbox):
    other, lock, event = inbox.get()
    with lock:
        other.put('through a queue that came through a queue')
    event.set()


def finish_tasks(tasks):
    while tasks.get() is not None:
        tasks.task_done()
    tasks.task_done()


class Unpicklable:
    def __reduce__(self):
        raise pickle.PicklingError('this one stays at home')


class CannotBeLoaded:
    def __reduce__(self):
        return int, ('not a number',)


class QueueCases(ContextCases):
    def test_objects_come_back_equal_and_in_order(self):
        there, back = self.context.Queue(), self.context.Queue()
        self.start(echo, there, back)
        objects = [0, 'text', b'bytes', {'a': [1, (2.5, None)]}, 'x' * 100_000, b'y' * 3_000_000, {1, 2}, True]
        for obj in objects:
            there.put(obj)
        there.put(None)
        self.assertEqual([back.get(timeout=SECONDS) for _ in objects], objects)

    def test_each_producer_is_first_in_first_out(self):
        box = self.context.Queue()
        for producer in range(3):
            self.start(put_numbered, box, producer, 300)
        seen = {producer: [] for producer in range(3)}
        for _ in range(900):
            producer, number = box.get(timeout=SECONDS)
            seen[producer].append(number)
        self.assertEqual(list(seen.values()), [list(range(300))] * 3)

    def test_several_consumers_share_without_loss_or_repetition(self):
        box, results = self.context.Queue(), self.context.Queue()
        for _ in range(3):
            self.start(drain, box, results)
        for number in range(500):
            box.put(number)
        for _ in range(3):
            box.put(None)
        taken = sum((results.get(timeout=SECONDS) for _ in range(3)), [])
        self.assertEqual(sorted(taken), list(range(500)))

    def test_a_bounded_queue_is_full_at_its_size(self):
        box = self.context.Queue(2)
        box.put(1)
        box.put(2, timeout=SECONDS)
        with self.assertRaises(queue.Full):
            box.put(3, block=False)
        start = time.monotonic()
        with self.assertRaises(queue.Full):
            box.put(3, timeout=0.1)
        self.assertGreaterEqual(time.monotonic() - start, 0.09)
        self.assertTrue(box.full())
        self.assertEqual(box.get(timeout=SECONDS), 1)
        box.put(3)
        self.assertEqual([box.get(timeout=SECONDS), box.get(timeout=SECONDS)], [2, 3])

    def test_an_empty_queue_raises_empty(self):
        box = self.context.Queue()
        with self.assertRaises(queue.Empty):
            box.get_nowait()
        start = time.monotonic()
        with self.assertRaises(queue.Empty):
            box.get(timeout=0.1)
        self.assertGreaterEqual(time.monotonic() - start, 0.09)
        with self.assertRaises(queue.Empty):
            box.get(timeout=-1)

    def test_only_a_used_queue_is_no_longer_asked_whether_it_is_empty_once_it_is_closed(self):
        queue = self.context.Queue()
        queue.close()
        queue.join_thread()
        self.assertTrue(queue.empty())
        queue = self.context.Queue()
        queue.put('something')
        queue.close()
        queue.join_thread()
        with self.assertRaisesRegex(OSError, 'is closed'):
            queue.empty()

    def test_a_closed_queue_refuses_put_and_get(self):
        box = self.context.Queue()
        box.put('kept')
        box.close()
        box.join_thread()
        with self.assertRaisesRegex(ValueError, 'is closed'):
            box.put('more')
        with self.assertRaisesRegex(ValueError, 'is closed'):
            box.get()

    def test_a_message_survives_the_death_of_its_producer(self):
        box = self.context.Queue()
        child = self.start(put_and_die, box)
        child.join(SECONDS)
        self.assertEqual(child.exitcode, -signal.SIGKILL)
        self.assertEqual(box.get(timeout=SECONDS), 'last words')

    def test_queues_and_locks_are_not_pickled_outside_of_a_start(self):
        for shared in self.context.Queue(), self.context.Lock(), self.context.Event(), self.context.JoinableQueue():
            with self.assertRaisesRegex(RuntimeError, 'through inheritance'):
                pickle.dumps(shared)

    def test_join_waits_until_all_tasks_are_done(self):
        tasks = self.context.JoinableQueue()
        for number in range(20):
            tasks.put(number)
        tasks.put(None)
        self.start(finish_tasks, tasks)
        tasks.join()
        self.assertTrue(tasks.empty())
        with self.assertRaises(ValueError):
            tasks.task_done()

    def test_a_simple_queue_carries_objects(self):
        there, back = self.context.SimpleQueue(), self.context.SimpleQueue()
        self.assertTrue(there.empty())
        self.start(echo, there, back)
        there.put({'a': 1})
        self.assertEqual(back.get(), {'a': 1})
        there.put(None)

    def test_a_waiting_consumer_that_is_killed_leaves_the_queue_usable(self):
        # python3's queue keeps the dead reader's lock for ever.
        if not UNDER_PYHOST:
            return
        box, ready = self.context.Queue(), self.context.Event()
        victim = self.start(wait_for_ever, box, ready)
        self.assertTrue(ready.wait(SECONDS))
        victim.kill()
        victim.join(SECONDS)
        box.put('for the living')
        self.assertEqual(box.get(timeout=SECONDS), 'for the living')


class PyhostQueueCases:
    """What python3's queues cannot do."""

    def test_put_many_and_get_many_move_batches(self):
        box = self.context.Queue()
        self.assertEqual(box.put_many(range(100)), 100)
        self.assertEqual(box.get_many(30), list(range(30)))
        self.assertEqual(box.get_many(1000), list(range(30, 100)))
        with self.assertRaises(queue.Empty):
            box.get_many(5, timeout=0.05)

    def test_get_many_keeps_what_came_before_an_object_that_cannot_be_loaded(self):
        box = self.context.Queue()
        box.put_many([1, 2, CannotBeLoaded(), 4])
        with self.assertRaises(ValueError) as caught:
            box.get_many(4)
        self.assertEqual(caught.exception.received, [1, 2])
        self.assertEqual(box.get_many(4), [4])

    def test_an_object_that_cannot_be_pickled_is_reported_by_put_and_not_counted(self):
        box = self.context.Queue(1)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            box.put(Unpicklable())
        self.assertIn('this one stays at home', said.getvalue())
        self.assertTrue(box.empty())
        box.put('fine')
        self.assertEqual(box.qsize(), 1)
        self.assertEqual(box.get(timeout=SECONDS), 'fine')

    def test_queues_locks_and_events_travel_through_a_queue(self):
        box, other = self.context.Queue(), self.context.Queue()
        lock, event = self.context.Lock(), self.context.Event()
        self.start(use_sent_objects, box)
        box.put((other, lock, event))
        self.assertEqual(other.get(timeout=SECONDS), 'through a queue that came through a queue')
        self.assertTrue(event.wait(SECONDS))

    def test_an_object_sent_through_a_queue_outlives_its_sender(self):
        box = self.context.Queue()
        inner = self.context.Queue()
        inner.put('inside')
        box.put(inner)
        del inner
        self.assertEqual(box.get(timeout=SECONDS).get(timeout=SECONDS), 'inside')

    def test_an_array_crosses_without_a_copy_in_the_pickle(self):
        import numpy
        there, back = self.context.Queue(), self.context.Queue()
        self.start(echo, there, back)
        array = numpy.arange(300_000, dtype=numpy.float64).reshape(1000, 300)
        there.put(array)
        result = back.get(timeout=SECONDS)
        there.put(None)
        numpy.testing.assert_array_equal(result, array)
        result[0, 0] = 7.0  # writable, as pickle promises
        frozen = array.copy()
        frozen.flags.writeable = False
        back.put(frozen)
        self.assertEqual(back.get(timeout=SECONDS).flags.writeable, sys.version_info < (3, 14))


bind(globals(), 'QueueTest', QueueCases, *([PyhostQueueCases] if UNDER_PYHOST else []))

if __name__ == '__main__':
    unittest.main()
