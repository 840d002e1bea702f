"""Locks between processes.  Runs under pyhost and under python3, whose standard library is the oracle."""

import ctypes
import gc
import multiprocessing
import os
import signal
import threading
import time
import unittest
import weakref

from context_cases import SECONDS, UNDER_PYHOST, ContextCases, bind


def add_under_lock(lock, value, times):
    for _ in range(times):
        with lock:
            value.value += 1


def hold_and_wait(lock, held, go_on):
    lock.acquire()
    held.set()
    go_on.wait()


def hold_and_leave(lock):
    lock.acquire()


def hold_and_die(lock):
    lock.acquire()
    os.kill(os.getpid(), signal.SIGKILL)


def release_it(lock):
    lock.release()


def wait_for_condition(condition, arrived, woken):
    with condition:
        arrived.release()
        condition.wait()
        woken.release()


def wait_and_report(event, results):
    results.put(event.wait(SECONDS))


def meet(barrier, results):
    try:
        results.put(barrier.wait(SECONDS))
    except threading.BrokenBarrierError:
        results.put('broken')


class Point(ctypes.Structure):
    _fields_ = [('x', ctypes.c_int), ('y', ctypes.c_double)]


class Counted:
    """As little of a lock as a Value needs."""

    acquired = released = 0

    def acquire(self):
        self.acquired += 1

    def release(self):
        self.released += 1


class SynchronizeCases(ContextCases):
    def test_a_lock_lets_one_in_at_a_time(self):
        for make in self.context.Lock, self.context.RLock, self.context.Semaphore, self.context.BoundedSemaphore:
            with self.subTest(make.__name__):
                lock, value = make(), self.context.Value('i', 0, lock=False)
                for _ in range(3):
                    self.start(add_under_lock, lock, value, 500)
                self.join_children()
                self.assertEqual(value.value, 1500)

    def test_a_held_lock_is_not_given_twice(self):
        lock, held, go_on = self.context.Lock(), self.context.Event(), self.context.Event()
        self.start(hold_and_wait, lock, held, go_on)
        self.assertTrue(held.wait(SECONDS))
        self.assertFalse(lock.acquire(False))
        start = time.monotonic()
        self.assertFalse(lock.acquire(timeout=0.1))
        self.assertGreaterEqual(time.monotonic() - start, 0.09)
        go_on.set()

    def test_another_process_may_release_a_lock(self):
        lock = self.context.Lock()
        lock.acquire()
        self.start(release_it, lock).join(SECONDS)
        self.assertTrue(lock.acquire(timeout=SECONDS))
        lock.release()

    def test_a_lock_left_by_a_normal_exit_stays_locked(self):
        lock = self.context.Lock()
        self.start(hold_and_leave, lock).join(SECONDS)
        self.assertFalse(lock.acquire(timeout=0.1))
        lock.release()
        self.assertTrue(lock.acquire(timeout=SECONDS))

    def test_releasing_what_is_not_held_is_an_error(self):
        with self.assertRaises(ValueError):
            self.context.Lock().release()
        with self.assertRaises(AssertionError):
            self.context.RLock().release()
        bounded = self.context.BoundedSemaphore(2)
        with self.assertRaises(ValueError):
            bounded.release()
        with self.assertRaises(ValueError):
            self.context.BoundedSemaphore(0).release()

    def test_values_that_a_semaphore_cannot_have(self):
        for kind in self.context.Semaphore, self.context.BoundedSemaphore:
            self.assertEqual(kind(2**31 - 1).get_value(), 2**31 - 1)
            self.assertRaises(OSError, kind, -1)
            for value in 2**31, 2**70:
                self.assertRaises(OverflowError, kind, value)

    def test_a_barrier_says_what_it_is(self):
        barrier = self.context.Barrier(2)
        self.assertRegex(repr(barrier), r'^<multiprocessing\.synchronize\.Barrier at 0x[0-9a-f]+: waiters=0/2>$')
        barrier.abort()
        self.assertRegex(repr(barrier), r'^<multiprocessing\.synchronize\.Barrier at 0x[0-9a-f]+: broken>$')

    def test_a_recursive_lock_counts_its_owner(self):
        lock = self.context.RLock()
        for _ in range(3):
            self.assertTrue(lock.acquire())
        for _ in range(3):
            lock.release()
        with self.assertRaises(AssertionError):
            lock.release()

    def test_notify_wakes_as_many_as_asked(self):
        condition = self.context.Condition()
        arrived, woken = self.context.Semaphore(0), self.context.Semaphore(0)
        for _ in range(3):
            self.start(wait_for_condition, condition, arrived, woken)
        for _ in range(3):
            self.assertTrue(arrived.acquire(timeout=SECONDS))
        with condition:  # all are in wait(): it gave the lock up
            condition.notify(1)
        self.assertTrue(woken.acquire(timeout=SECONDS))
        self.assertFalse(woken.acquire(timeout=0.1))
        with condition:
            condition.notify_all()
        for _ in range(2):
            self.assertTrue(woken.acquire(timeout=SECONDS))

    def test_a_condition_is_used_under_its_lock(self):
        condition = self.context.Condition()
        for use in condition.wait, condition.notify, condition.notify_all:
            with self.assertRaises(AssertionError):
                use()
        with condition:
            self.assertFalse(condition.wait(0.05))
            self.assertTrue(condition.wait_for(lambda: True))
            self.assertFalse(condition.wait_for(lambda: False, timeout=0.05))

    def test_an_event_releases_all_who_wait(self):
        event, results = self.context.Event(), self.context.Queue()
        for _ in range(3):
            self.start(wait_and_report, event, results)
        self.assertFalse(event.wait(0.05))
        event.set()
        self.assertEqual([results.get(timeout=SECONDS) for _ in range(3)], [True] * 3)
        event.clear()
        self.assertFalse(event.is_set())

    def test_a_barrier_gathers_its_parties(self):
        barrier, results = self.context.Barrier(3), self.context.Queue()
        for _ in range(2):
            self.start(meet, barrier, results)
        orders = [barrier.wait(SECONDS)] + [results.get(timeout=SECONDS) for _ in range(2)]
        self.assertEqual(sorted(orders), [0, 1, 2])
        self.assertFalse(barrier.broken)

    def test_an_aborted_barrier_is_broken_until_reset(self):
        barrier, results = self.context.Barrier(2), self.context.Queue()
        self.start(meet, barrier, results)
        while barrier.n_waiting == 0:
            time.sleep(0.001)
        barrier.abort()
        self.assertEqual(results.get(timeout=SECONDS), 'broken')
        with self.assertRaises(threading.BrokenBarrierError):
            barrier.wait(1)
        barrier.reset()
        self.assertFalse(barrier.broken)

    def test_values_and_arrays_are_shared(self):
        value, array = self.context.Value('d', 1.5), self.context.Array('i', [1, 2, 3])
        self.start(add_under_lock, value.get_lock(), value.get_obj(), 10).join(SECONDS)
        self.assertEqual(value.value, 11.5)
        self.assertEqual(array[:], [1, 2, 3])

    def test_items_of_an_array(self):
        array = self.context.Array('d', 4)
        array[1] = 2.5
        self.assertEqual((list(array), len(array), array[-3], array[1:3]), ([0.0, 2.5, 0.0, 0.0], 4, 2.5, [2.5, 0.0]))
        self.assertIn(2.5, array)
        self.assertEqual(list(reversed(array)), [0.0, 0.0, 2.5, 0.0])
        array[:2] = [1.0, 2.0]
        self.assertEqual(sum(array), 3.0)
        for wrong in (4, -5, 'x'):
            with self.assertRaises((IndexError, TypeError)):
                array[wrong]
            with self.assertRaises((IndexError, TypeError)):
                array[wrong] = 1.0
        with self.assertRaises(TypeError):
            array[0] = 'x'
        self.assertTrue(array.acquire(False))  # An access that failed has let go of the lock.
        array.release()
        text = self.context.Array('c', b'hello')
        text.value = b'hi'
        self.assertEqual((text.raw, text.value, text[:3]), (b'hi\0lo', b'hi', b'hi\0'))

    def test_values_of_structures(self):
        point = self.context.Value(Point, 1, 2.0)
        point.x += 5
        with point:
            point.y *= point.x
        self.assertEqual((point.x, point.y, type(point).__name__), (6, 12.0, 'SynchronizedPoint'))
        with self.assertRaises(AttributeError):
            point.z
        with self.assertRaises(AttributeError):
            del point.x
        with self.assertRaises(TypeError):
            point.x = 'much'
        self.assertEqual(point.x, 6)

    def test_a_value_is_used_under_the_lock_it_was_given(self):
        for lock in Counted(), self.context.Semaphore(1), threading.Lock(), self.context.Lock():
            with self.subTest(type(lock).__name__):
                value = self.context.Value('i', 1, lock=lock)
                value.value += 1
                self.assertIs(value.get_lock(), lock)
                self.assertEqual(value.value, 2)
                if isinstance(lock, Counted):
                    self.assertEqual((lock.acquired, lock.released), (3, 3))
                else:
                    lock.acquire()
                    self.assertFalse(self.reads_within(value, 0.1))
                    lock.release()
                    self.assertTrue(self.reads_within(value, SECONDS))

    @staticmethod
    def reads_within(value, seconds):
        read = threading.Event()

        def read_it():
            value.value
            read.set()

        threading.Thread(target=read_it, daemon=True).start()
        return read.wait(seconds)

    def test_a_lock_with_another_acquire_is_called(self):
        lock = self.context.RLock()
        calls = []
        acquire = lock.acquire
        lock.acquire = lambda *args: calls.append('acquire') or acquire(*args)
        value = self.context.Value('i', 5, lock=lock)
        self.assertEqual((value.value, calls), (5, ['acquire']))

    def test_values_go_with_their_last_reference(self):
        value = self.context.Value('i', 5)
        value.itself = [value]
        gone = weakref.ref(value)
        del value
        gc.collect()
        self.assertIsNone(gone())


class PyhostSynchronizeCases:
    """What python3's locks cannot do: survive the death of their owner."""

    def test_a_lock_of_a_killed_owner_says_so_once_and_is_free(self):
        from multiprocessing.synchronize import OwnerDiedError
        for lock in self.context.Lock(), self.context.RLock():
            with self.subTest(repr(lock)):
                self.start(hold_and_die, lock).join(SECONDS)
                with self.assertRaisesRegex(OwnerDiedError, 'SIGKILL|died|killed'):
                    lock.acquire(timeout=SECONDS)
                self.assertTrue(lock.acquire(timeout=SECONDS))
                lock.release()

    def test_locked_tells_without_taking(self):
        for lock in self.context.Lock(), self.context.RLock(), self.context.Condition(), self.context.Semaphore(1):
            self.assertFalse(lock.locked())
            lock.acquire()
            self.assertTrue(lock.locked())
            lock.release()


bind(globals(), 'SynchronizeTest', SynchronizeCases, *([PyhostSynchronizeCases] if UNDER_PYHOST else []))

if __name__ == '__main__':
    unittest.main()
