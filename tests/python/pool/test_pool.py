"""Pools.  Runs under pyhost and under python3, whose standard library is the oracle for all that it has."""

import collections
import functools
import gc
import multiprocessing
import multiprocessing.pool
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import unittest

UNDER_PYHOST = 'pyhost' in os.path.basename(sys.executable)
SECONDS = 60  # how long anything may take before a test fails


def square(x):
    return x * x


def total(*args, **kwds):
    return sum(args) + sum(kwds.values())


def fail(x):
    raise KeyError(x)


def fail_on(bad, x):
    if x == bad:
        raise ValueError(f'bad item {x}')
    return x


def identity(x):
    return x


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def pid_of_worker(_=None):
    return os.getpid()


def set_flag(value):
    global flag
    flag = value


def get_flag(_):
    return flag


def make_lambda(_):
    return lambda: 1


def is_daemon():
    return multiprocessing.current_process().daemon


def type_name(x):
    return type(x).__name__


def items_below(count, bad=None):
    for i in range(count):
        if i == bad:
            raise LookupError(f'no item {i}')
        yield i


class SlowToUnpickle:
    """Whoever unpickles one waits for go_on."""

    begun = threading.Event()
    go_on = threading.Event()
    made = 0

    def __reduce__(self):
        return make_slowly, ()


def make_slowly():
    SlowToUnpickle.begun.set()
    SlowToUnpickle.go_on.wait(SECONDS)
    SlowToUnpickle.made += 1
    return SlowToUnpickle()


class Counter:
    """Callable with state."""

    def __init__(self):
        self.calls = 0

    def __call__(self, _):
        self.calls += 1
        return self.calls


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError('will not be pickled')


class RaisesBelow:
    """Raises in a function that its reduction calls."""

    def __reduce__(self):
        return self.cause_of_it_all()

    def cause_of_it_all(self):
        raise RuntimeError('will not be pickled')


class TwoArguments(Exception):
    """Pickles, but does not unpickle: its constructor wants two arguments."""

    def __init__(self, first, second):
        super().__init__(first)


def raise_two_arguments(_):
    raise TwoArguments('first', 'second')


def kill_self(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def leave(code):
    os._exit(code)


def wait_for_file(path):
    while not os.path.exists(path):
        time.sleep(0.001)
    return 'there'


def exit_by_exception(code):
    sys.exit(code)


def broken_initializer():
    raise RuntimeError('this worker cannot begin')


def traceback_of(work):
    try:
        work()
    except RuntimeError:
        return traceback.format_exc()


def run_script(text, *arguments, **kwds):
    return subprocess.run([sys.executable, '-c', text, *arguments], capture_output=True, text=True, timeout=SECONDS, **kwds)


class PoolCases:
    """What every Pool does."""

    method = None

    @classmethod
    def setUpClass(cls):
        cls.context = multiprocessing.get_context(cls.method)
        cls.pool = cls.context.Pool(2)

    @classmethod
    def tearDownClass(cls):
        cls.pool.terminate()
        cls.pool.join()

    def test_apply_passes_arguments_and_keywords(self):
        self.assertEqual(self.pool.apply(total, (1, 2), {'a': 3}), 6)
        self.assertEqual(self.pool.apply(total), 0)
        self.assertEqual(self.pool.apply(total, [4, 5]), 9)

    def test_keywords_are_any_mapping_and_nothing_else(self):
        self.assertEqual(self.pool.apply(total, (1,), collections.UserDict(a=2)), 3)
        self.assertEqual(self.pool.apply(total, (1,), collections.Counter('aab')), 4)
        for keywords in (5, 'text', [('a', 1)]):
            result = self.pool.apply_async(total, (), keywords)
            self.assertRaisesRegex(TypeError, 'must be a mapping', result.get, SECONDS)
            self.assertRaisesRegex(TypeError, 'must be a mapping', self.pool.apply, total, (), keywords)

    def test_calls_behind_a_long_one_are_run_meanwhile(self):
        # Small calls one after the other keep one worker busy and the other asleep; then one of them takes long.
        for i in range(40):
            for small in [self.pool.apply_async(square, (x,)) for x in range(i)]:
                small.get(SECONDS)
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, 'end')
                long = self.pool.apply_async(wait_for_file, (path,))
                others = [self.pool.apply_async(square, (x,)) for x in range(i % 4 + 1)]
                self.assertEqual([other.get(SECONDS) for other in others], [x * x for x in range(i % 4 + 1)])
                self.assertFalse(long.ready())
                open(path, 'w').close()
                self.assertEqual(long.get(SECONDS), 'there')

    def test_map_keeps_the_order(self):
        for chunksize in (None, 1, 3, 1000):
            for items in (range(100), list(range(100)), tuple(range(100)), items_below(100)):
                self.assertEqual(self.pool.map(square, items, chunksize), [x * x for x in range(100)])

    def test_map_over_sequences_gives_what_iteration_gives(self):
        for items in ('text', b'bytes', bytearray(b'abc'), range(10, 0, -3), {1: 2}, {5}):
            self.assertEqual(self.pool.map(identity, items), list(items))

    def test_map_of_nothing(self):
        self.assertEqual(self.pool.map(square, []), [])
        self.assertEqual(self.pool.map_async(square, []).get(SECONDS), [])
        self.assertEqual(list(self.pool.imap(square, [])), [])
        self.assertEqual(list(self.pool.imap_unordered(square, iter(()))), [])

    def test_starmap_unpacks(self):
        pairs = [(i, i + 1) for i in range(50)]
        for chunksize in (None, 1, 7):
            self.assertEqual(self.pool.starmap(total, pairs, chunksize), [a + b for a, b in pairs])
        self.assertEqual(self.pool.starmap_async(total, pairs).get(SECONDS), [a + b for a, b in pairs])

    def test_imap_gives_results_in_order(self):
        self.assertEqual(list(self.pool.imap(square, range(50))), [x * x for x in range(50)])
        self.assertEqual(list(self.pool.imap(square, items_below(50), chunksize=7)), [x * x for x in range(50)])

    def test_imap_unordered_gives_every_result_once(self):
        self.assertEqual(sorted(self.pool.imap_unordered(square, items_below(500))), [x * x for x in range(500)])

    def test_imap_gives_the_results_before_the_iterable_failed(self):
        iterator = self.pool.imap(square, items_below(10, bad=3))
        self.assertEqual([next(iterator) for _ in range(3)], [0, 1, 4])
        self.assertRaises(LookupError, next, iterator)

    def test_imap_next_times_out(self):
        iterator = self.pool.imap(sleep, [0.6])
        self.assertRaises(multiprocessing.TimeoutError, iterator.next, 0.02)
        self.assertEqual(iterator.next(SECONDS), 0.6)
        self.assertRaises(StopIteration, iterator.next)

    def test_result_is_there_or_not(self):
        result = self.pool.apply_async(sleep, (0.5,))
        self.assertFalse(result.ready())
        self.assertRaises(ValueError, result.successful)
        self.assertRaises(multiprocessing.TimeoutError, result.get, 0.02)
        result.wait(SECONDS)
        self.assertTrue(result.ready())
        self.assertTrue(result.successful())
        self.assertEqual(result.get(), 0.5)
        self.assertEqual(result.get(), 0.5)

    def test_exception_carries_the_remote_traceback(self):
        with self.assertRaises(KeyError) as caught:
            self.pool.apply(fail, ('key',))
        self.assertEqual(caught.exception.args, ('key',))
        self.assertIs(type(caught.exception.__cause__), multiprocessing.pool.RemoteTraceback)
        self.assertIn('raise KeyError(x)', str(caught.exception.__cause__))
        self.assertFalse(self.pool.map_async(fail, [1, 2]).wait(SECONDS))

    def test_failed_result_says_so(self):
        result = self.pool.apply_async(fail, (1,))
        result.wait(SECONDS)
        self.assertFalse(result.successful())
        self.assertRaises(KeyError, result.get)

    def test_map_raises_one_of_its_exceptions(self):
        with self.assertRaisesRegex(ValueError, 'bad item 40'):
            self.pool.map(functools.partial(fail_on, 40), range(100))

    def test_callbacks_run_before_the_result_is_ready(self):
        seen = []
        self.pool.apply_async(square, (3,), callback=seen.append).wait(SECONDS)
        self.pool.map_async(square, [1, 2], callback=seen.append).wait(SECONDS)
        result = self.pool.apply_async(fail, (3,), error_callback=seen.append)
        self.assertRaises(KeyError, result.get, SECONDS)
        self.assertEqual(seen[:2], [9, [1, 4]])
        self.assertIsInstance(seen[2], KeyError)

    def test_callbacks_run_in_another_thread(self):
        threads = []
        self.pool.apply_async(square, (3,), callback=lambda _: threads.append(threading.current_thread())).wait(SECONDS)
        self.assertIsNot(threads[0], threading.current_thread())

    def test_callable_with_state_begins_each_call_afresh(self):
        self.assertEqual(self.pool.map(Counter(), range(4), 1), [1, 1, 1, 1])
        counter = Counter()
        counter.calls = 10
        self.assertEqual(self.pool.apply(counter, (None,)), 11)
        counter.calls = 20
        self.assertEqual(self.pool.apply(counter, (None,)), 21)

    def test_large_function_and_arguments(self):
        add = functools.partial(total, *range(5000))
        self.assertEqual(self.pool.map(add, [1, 2, 3], 1), [sum(range(5000)) + i for i in (1, 2, 3)])
        big = bytes(3_000_000)
        self.assertEqual(self.pool.apply(len, (big,)), 3_000_000)
        self.assertEqual(self.pool.apply(bytes, (3_000_000,)), big)

    def test_scalars_arrive_as_they_were_sent(self):
        values = [None, True, False, 0, 1, -1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -2**31, 2**63 - 1, -2**63, 2**63,
                  10**40, 0.0, -0.5, float('inf'), '', 'abc', 'äöü', '\udc80', 'x' * 300, b'', b'bytes', b'y' * 300, (), (1,),
                  (1, 'a', None), (1, 2, 3, 4, 5), ((1, (2,)), 3), tuple(range(100)), [1], {'a': 1}, {2}, 1j]
        for chunksize in (1, 5):
            received = self.pool.map(identity, values, chunksize)
            self.assertEqual(received, values)
            self.assertEqual([type(value) for value in received], [type(value) for value in values])

    def test_lists_of_numbers_arrive_as_they_were_sent(self):
        numbers = [0, 1, -1, 255, 256, 65536, 2**31, -2**40, 0.5, float('-inf'), None, True, False]
        for items in ([], numbers, list(range(5000)), [2**70, 1], [1, 'a', 1], [[1], [2]], [0.1] * 3000):
            received = self.pool.apply(identity, (items,))
            self.assertEqual(received, items)
            self.assertEqual([type(item) for item in received], [type(item) for item in items])
            self.assertEqual(self.pool.map(identity, [items, items], 1), [items, items])
            self.assertEqual(self.pool.map(identity, items * 3), items * 3)

    def test_what_an_argument_shares_stays_shared(self):
        inner = []
        received = self.pool.apply(identity, ([inner, inner],))
        self.assertIs(received[0], received[1])

    def test_unpicklable_argument_fails_its_call_only(self):
        self.assertRaisesRegex(RuntimeError, 'will not be pickled', self.pool.apply, identity, (Unpicklable(),))
        self.assertRaisesRegex(RuntimeError, 'will not be pickled', self.pool.map, identity, [1, Unpicklable(), 3], 1)
        self.assertEqual(self.pool.apply(square, (4,)), 16)

    def test_error_of_pickling_has_the_traceback_of_the_reducer(self):
        bad, pool = RaisesBelow(), self.pool
        for way in (lambda: pool.apply(identity, (bad,)),
                    lambda: pool.apply_async(identity, (bad,)).get(SECONDS),
                    lambda: pool.map(identity, [bad]),
                    lambda: next(pool.imap(identity, [bad])),
                    lambda: next(pool.imap_unordered(identity, iter([bad]), 2))):
            self.assertIn('in cause_of_it_all', traceback_of(way))

    def test_unpicklable_result_fails_its_call_only(self):
        with self.assertRaises(multiprocessing.pool.MaybeEncodingError) as caught:
            self.pool.apply(make_lambda, (1,))
        self.assertIn('lambda', str(caught.exception))
        self.assertEqual(self.pool.apply(square, (4,)), 16)

    def test_pool_does_not_travel(self):
        self.assertRaises(NotImplementedError, self.pool.apply, identity, (self.pool,))

    def test_threads_that_wait_for_one_result_get_the_same(self):
        SlowToUnpickle.begun.clear()
        SlowToUnpickle.go_on.clear()
        SlowToUnpickle.made = 0
        call = self.pool.apply_async(SlowToUnpickle)
        results = []
        threads = [threading.Thread(target=lambda: results.append(call.get(SECONDS))) for _ in range(4)]
        for thread in threads:
            thread.start()
        self.assertTrue(SlowToUnpickle.begun.wait(SECONDS), 'one of them unpickles')
        with self.assertRaises(multiprocessing.TimeoutError):
            call.get(0.01)
        self.assertFalse(call.ready())
        SlowToUnpickle.go_on.set()
        for thread in threads:
            thread.join(SECONDS)
        self.assertEqual(len(results), 4)
        self.assertEqual(len(set(map(id, results))), 1)
        self.assertEqual(SlowToUnpickle.made, 1)
        self.assertTrue(call.successful())

    def test_threads_share_a_pool(self):
        wrong = []

        def use(number):
            for i in range(50):
                if self.pool.apply(total, (number, i)) != number + i:
                    wrong.append((number, i))

        threads = [threading.Thread(target=use, args=(1000 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        self.assertEqual(wrong, [])

    def test_bad_arguments(self):
        self.assertRaises(ValueError, self.context.Pool, 0)
        self.assertRaises(ValueError, self.context.Pool, -1)
        self.assertRaises(TypeError, self.context.Pool, 1, 'no function')
        for count in (0, -1, 0.5, '12'):
            self.assertRaises(ValueError, self.context.Pool, 1, maxtasksperchild=count)

    def test_workers_are_daemons(self):
        self.assertTrue(self.pool.apply(is_daemon))

    def test_numpy_arrays_are_mapped_like_lists(self):
        try:
            import numpy
        except ImportError:
            self.skipTest('numpy is not installed')
        array = numpy.arange(200_000, dtype=numpy.float64)
        self.assertEqual(float(sum(self.pool.map(float, array[:1000]))), float(array[:1000].sum()))
        numpy.testing.assert_array_equal(self.pool.apply(identity, (array,)), array)
        self.assertEqual(self.pool.map(type_name, array[:3]), ['float64'] * 3)


class PoolLifeCases:
    """How pools begin and end."""

    method = None

    @classmethod
    def setUpClass(cls):
        cls.context = multiprocessing.get_context(cls.method)

    def test_initializer_runs_in_each_worker(self):
        with self.context.Pool(2, set_flag, ('set',)) as pool:
            self.assertEqual(pool.map(get_flag, range(10), 1), ['set'] * 10)

    def test_closed_pool_finishes_its_calls(self):
        pool = self.context.Pool(2)
        result = pool.map_async(sleep, [0.05] * 6, 1)
        pool.close()
        self.assertRaises(ValueError, pool.apply, square, (1,))
        pool.join()
        self.assertEqual(result.get(SECONDS), [0.05] * 6)

    def test_closed_pool_finishes_a_lazy_iteration(self):
        pool = self.context.Pool(2)
        iterator = pool.imap(square, items_below(300))
        pool.close()
        self.assertEqual(list(iterator), [x * x for x in range(300)])
        pool.join()

    def test_join_needs_close(self):
        with self.context.Pool(1) as pool:
            self.assertRaises(ValueError, pool.join)

    def test_terminate_does_not_wait_for_calls(self):
        pool = self.context.Pool(2)
        pool.map_async(sleep, [5.0] * 100, 1)
        start = time.monotonic()
        pool.terminate()
        pool.join()
        self.assertLess(time.monotonic() - start, 4)

    def test_with_statement_terminates(self):
        with self.context.Pool(1) as pool:
            pid = pool.apply(pid_of_worker)
        pool.join()
        wait_for_end([pid], SECONDS)
        self.assertRaises(ValueError, pool.apply, square, (1,))

    def test_workers_are_replaced_after_their_last_task(self):
        with self.context.Pool(2, maxtasksperchild=3) as pool:
            pids = pool.map(pid_of_worker, range(30), 1)
            self.assertGreaterEqual(len(set(pids)), 10)
            self.assertLessEqual(max(pids.count(pid) for pid in pids), 3)

    def test_closed_pool_with_short_lived_workers_is_drained(self):
        pool = self.context.Pool(3, maxtasksperchild=1)
        results = [pool.apply_async(square, (i,)) for i in range(12)]
        pool.close()
        pool.join()
        self.assertEqual([result.get(SECONDS) for result in results], [i * i for i in range(12)])

    def test_result_keeps_its_pool(self):
        result = self.context.Pool(1).apply_async(square, (7,))
        self.assertEqual(result.get(SECONDS), 49)

    def test_repr(self):
        pool = self.context.Pool(2)
        self.assertRegex(repr(pool), r'<multiprocessing\.pool\.Pool state=RUN pool_size=2>')
        pool.terminate()
        self.assertIn('TERMINATE', repr(pool))


class PyhostPoolCases:
    """What the standard library has not."""

    def test_call_of_a_killed_worker_raises(self):
        with self.assertRaises(multiprocessing.pool.WorkerLostError) as caught:
            self.pool.apply(kill_self)
        self.assertEqual(caught.exception.exitcode, -signal.SIGKILL)
        self.assertEqual(caught.exception.function, 'kill_self')
        self.assertRegex(str(caught.exception), r'pid \d+.*killed by SIGKILL.*kill_self')
        self.assertEqual(self.pool.map(square, range(10)), [x * x for x in range(10)])

    def test_call_of_a_worker_that_leaves_raises(self):
        for function in (leave, exit_by_exception):
            with self.assertRaisesRegex(multiprocessing.pool.WorkerLostError, 'exited with code 7') as caught:
                self.pool.apply(function, (7,))
            self.assertEqual(caught.exception.exitcode, 7)

    def test_only_the_calls_in_hand_are_lost(self):
        results = [self.pool.apply_async(kill_self if i % 20 == 0 else square, (i,)) for i in range(100)]
        for i, result in enumerate(results):
            if i % 20 == 0:
                self.assertRaises(multiprocessing.pool.WorkerLostError, result.get, SECONDS)
            else:
                self.assertEqual(result.get(SECONDS), i * i)

    def test_exception_that_does_not_unpickle(self):
        with self.assertRaises(multiprocessing.pool.RemoteCallError) as caught:
            self.pool.apply(raise_two_arguments, (1,))
        self.assertEqual(caught.exception.type_name, 'TwoArguments')
        self.assertEqual(caught.exception.message, 'first')
        self.assertIn('raise TwoArguments', caught.exception.traceback)

    def test_each_waiter_gets_an_exception_of_its_own(self):
        result = self.pool.apply_async(fail, (1,))
        exceptions = []
        for _ in range(2):
            with self.assertRaises(KeyError) as caught:
                result.get(SECONDS)
            exceptions.append(caught.exception)
        self.assertIsNot(exceptions[0], exceptions[1])

    def test_error_names_the_unpicklable_part(self):
        with self.assertRaisesRegex(Exception, r"args\[0\]\['key'\]\[1\]"):
            self.pool.apply(identity, ({'key': [1, Unpicklable()]},))
        with self.assertRaisesRegex(Exception, 'lambda at .*set_start_method'):
            self.pool.map(lambda x: x, [1])

    def test_unpicklable_result_has_the_traceback_of_the_reducer(self):
        with self.assertRaises(multiprocessing.pool.MaybeEncodingError) as caught:
            self.pool.apply(RaisesBelow)
        self.assertIn('in cause_of_it_all', str(caught.exception.__cause__))

    def test_error_names_the_item_by_its_place_in_the_iterable(self):
        bad = Unpicklable()
        for chunksize in (None, 1, 2, 100):
            for items in ([1, 2, bad, 4], (1, 2, bad, 4), iter([1, 2, bad, 4])):
                with self.assertRaisesRegex(RuntimeError, r'^items\[2\]: '):
                    self.pool.map(identity, items, chunksize)
            with self.assertRaisesRegex(RuntimeError, r'^items\[2\]\[1\]: '):
                self.pool.starmap(total, [(1,), (2,), (3, bad)], chunksize)
        for method in (self.pool.imap, self.pool.imap_unordered):
            for chunksize in (1, 2, 100):
                for items in ([*range(200), bad], iter([*range(200), bad])):
                    with self.assertRaisesRegex(RuntimeError, r'^items\[200\]: '):
                        list(method(identity, items, chunksize))

    def test_function_that_no_worker_can_find(self):
        done = run_script('import multiprocessing\n'
                          'if __name__ == "__main__":\n'
                          f'    multiprocessing.set_start_method({self.method!r})\n'
                          '    def inside(x): return x + 1\n'
                          '    with multiprocessing.Pool(1) as pool: print(pool.map(inside, [1]))\n')
        if self.method == 'fork':
            self.assertEqual(done.stdout, '[2]\n')
        else:
            self.assertRegex(done.stderr, "AttributeError: .*inside.*(\\n.*)?The child could not find .*set_start_method")

    def test_locks_and_queues_travel_with_calls(self):
        box = self.context.Queue()
        box.put('inside')
        again = self.pool.apply(identity, (box,))
        self.assertEqual(again.get(timeout=SECONDS), 'inside')

    def test_interrupted_get_leaves_the_pool_usable(self):
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with self.assertRaises(KeyboardInterrupt):
            self.pool.apply(sleep, (1.0,))
        timer.join()
        self.assertEqual(self.pool.apply(square, (3,)), 9)

    def test_idle_workers_survive_an_interrupt_from_the_keyboard(self):
        pids = {process.pid for process in self.pool._pool}
        self.pool.apply(square, (1,))
        for pid in pids:
            os.kill(pid, signal.SIGINT)
        self.assertEqual(self.pool.map(square, range(50), 1), [x * x for x in range(50)])
        self.assertEqual({process.pid for process in self.pool._pool}, pids)

    def test_stats_count_the_calls(self):
        with self.context.Pool(1) as pool:
            pool.map(square, range(10), 1)
            self.assertEqual([worker['calls'] for worker in pool.stats()], [10])


class PyhostPoolLifeCases:
    """How pools end where the standard library's hang or leave something behind."""

    def test_workers_that_cannot_begin_fail_the_pool(self):
        with self.context.Pool(1, broken_initializer) as pool:
            with self.assertRaisesRegex(multiprocessing.pool.PoolFailedError, 'this worker cannot begin'):
                pool.apply_async(square, (1,)).get(SECONDS)
            self.assertRaises(multiprocessing.pool.PoolFailedError, pool.apply, square, (1,))

    def test_number_of_deaths_can_be_set(self):
        with self.context.Pool(1, broken_initializer, max_restarts=(1, 10)) as pool:
            with self.assertRaisesRegex(multiprocessing.pool.PoolFailedError, '^square: 1 worker'):
                pool.apply_async(square, (1,)).get(SECONDS)

    def test_dropped_pool_warns_and_ends_its_workers(self):
        pool = self.context.Pool(1)
        pid = pool.apply(pid_of_worker)
        with self.assertWarnsRegex(ResourceWarning, 'unclosed running multiprocessing pool'):
            del pool
            gc.collect()
        wait_for_end([pid], SECONDS)

    def test_terminated_calls_raise(self):
        pool = self.context.Pool(1)
        result = pool.apply_async(sleep, (50,))
        pool.terminate()
        self.assertRaises(multiprocessing.pool.PoolFailedError, result.get, SECONDS)

    def test_worker_that_ignores_sigterm_does_not_hold_up_the_end(self):
        pool = self.context.Pool(1, signal.signal, (signal.SIGTERM, signal.SIG_IGN))
        pool.apply_async(sleep, (100,))
        start = time.monotonic()
        pool.terminate()
        pool.join()
        self.assertLess(time.monotonic() - start, 10)

    def test_forked_copy_of_a_pool_refuses(self):
        pool = self.context.Pool(1)
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                pool.apply(square, (2,))
            except RuntimeError as error:
                os.write(write_end, str(error).encode())
            finally:
                os._exit(0)
        os.close(write_end)
        with open(read_end) as answer:
            self.assertIn('belongs to the process that made it', answer.read())
        os.waitpid(pid, 0)
        self.assertEqual(pool.apply(square, (2,)), 4)
        pool.terminate()

    def test_forked_process_can_have_a_pool_of_its_own(self):
        with self.context.Pool(1) as pool:
            pool.apply(square, (1,))
            read_end, write_end = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    with self.context.Pool(1, maxtasksperchild=1) as own:
                        os.write(write_end, repr(own.map(square, range(5), 1)).encode())
                finally:
                    os._exit(0)
            os.close(write_end)
            with open(read_end) as answer:
                self.assertEqual(answer.read(), '[0, 1, 4, 9, 16]')
            os.waitpid(pid, 0)
            self.assertEqual(pool.apply(square, (2,)), 4)

    def test_program_ends_although_a_worker_is_dead_or_stopped(self):
        script = ('import multiprocessing, os, signal, sys, time\n'
                  'if __name__ == "__main__":\n'
                  f'    multiprocessing.set_start_method({self.method!r})\n'
                  '    pool = multiprocessing.Pool(2)\n'
                  '    pool.map(abs, range(10))\n'
                  '    os.kill(pool._pool[0].pid, signal.SIGKILL)\n'
                  '    os.kill(pool._pool[1].pid, signal.SIGSTOP)\n'
                  '    pool.apply_async(abs, (1,))\n'
                  '    print("end")\n')
        done = run_script(script)
        self.assertEqual(done.stdout, 'end\n')
        self.assertEqual(done.returncode, 0)

    def test_workers_end_with_a_killed_parent(self):
        script = ('import multiprocessing, os, signal, time\n'
                  'if __name__ == "__main__":\n'
                  f'    multiprocessing.set_start_method({self.method!r})\n'
                  '    pool = multiprocessing.Pool(2)\n'
                  '    pool.map(abs, range(10))\n'
                  '    pool.map_async(time.sleep, [60, 60])\n'
                  '    print(*(process.pid for process in pool._pool), flush=True)\n'
                  '    os.kill(os.getpid(), signal.SIGKILL)\n')
        done = run_script(script)
        pids = [int(pid) for pid in done.stdout.split()]
        self.assertEqual(len(pids), 2)
        wait_for_end(pids, 3)  # the promise is one second; the machine may be busy


def wait_for_end(pids, seconds):
    deadline = time.monotonic() + seconds
    while running := [pid for pid in pids if is_running(pid)]:
        if time.monotonic() > deadline:
            raise AssertionError(f'still running: {running}')
        time.sleep(0.01)


def is_running(pid):
    try:
        with open(f'/proc/{pid}/stat') as stat:
            return stat.read().rpartition(')')[2].split()[0] not in 'ZX'
    except OSError:
        return False


def bind():
    for method in multiprocessing.get_all_start_methods():
        for cases, extra in ((PoolCases, PyhostPoolCases), (PoolLifeCases, PyhostPoolLifeCases)):
            bases = (cases, extra) if UNDER_PYHOST else (cases,)
            name = f'{cases.__name__[:-5]}Test_{method}'
            globals()[name] = type(name, (*bases, unittest.TestCase), {'method': method, '__module__': __name__})


bind()

if __name__ == '__main__':
    unittest.main()
