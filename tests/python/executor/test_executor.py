"""concurrent.futures.ProcessPoolExecutor: what it owes its users, with the standard library as the oracle.

Classes without a start method in their name use the default one.
"""

import asyncio
import concurrent.futures as futures
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import unittest
import weakref
from concurrent.futures.process import BrokenProcessPool

UNDER_PYHOST = 'pyhost' in os.path.basename(sys.executable)
SOON = 60


def same(x):
    return x


def add(x, y=0):
    return x + y


def sleep_and_say(seconds, value):
    time.sleep(seconds)
    return value


def fail(text):
    raise ValueError(text)


def leave():
    sys.exit(3)


def pid_after(seconds):
    time.sleep(seconds)
    return os.getpid()


def remember(value):
    global remembered
    remembered = value


def recall():
    return remembered


class Picky(Exception):
    """Cannot be unpickled: its arguments are not those of __init__."""

    def __init__(self, one, two):
        super().__init__(one)


def raise_picky():
    raise Picky('one', 'two')


class RaisesBelow:
    """Raises in a function that its reduction calls."""

    def __reduce__(self):
        return self.cause_of_it_all()

    def cause_of_it_all(self):
        raise RuntimeError('will not be pickled')


class EndsWhenUnpickled:
    def __reduce__(self):
        return sys.exit, (5,)


class FailsWhenUnpickled:
    def __reduce__(self):
        return fail, ('not here',)


def give(cls):
    return cls()


def give_lock():
    return [1, {'lock': threading.Lock()}]


def traceback_of(work):
    try:
        work()
    except RuntimeError:
        return traceback.format_exc()


class ExecutorCase(unittest.TestCase):
    method = 'spawn'

    def executor(self, workers=2, **options):
        executor = futures.ProcessPoolExecutor(workers, multiprocessing.get_context(self.method), **options)
        self.addCleanup(executor.shutdown)
        return executor


class CallCases:
    def test_result_and_exception(self):
        executor = self.executor()
        self.assertEqual(executor.submit(add, 2, y=3).result(SOON), 5)
        future = executor.submit(fail, 'no')
        with self.assertRaisesRegex(ValueError, '^no$') as caught:
            future.result(SOON)
        self.assertIn("raise ValueError(text)", str(caught.exception.__cause__))
        self.assertIs(future.exception(), caught.exception)

    def test_exit_in_a_call_is_its_outcome(self):
        executor = self.executor(1)
        with self.assertRaises(SystemExit) as caught:
            executor.submit(leave).result(SOON)
        self.assertEqual(caught.exception.code, 3)
        self.assertEqual(executor.submit(same, 1).result(SOON), 1)

    def test_timeout(self):
        executor = self.executor(1)
        future = executor.submit(sleep_and_say, 0.5, 'late')
        with self.assertRaises(futures.TimeoutError):
            future.result(0.01)
        with self.assertRaises(futures.TimeoutError):
            future.exception(timeout=-1)
        self.assertEqual(future.result(SOON), 'late')

    def test_map(self):
        executor = self.executor()
        self.assertEqual(list(executor.map(add, range(100), range(100))), [2 * i for i in range(100)])
        self.assertEqual(list(executor.map(same, range(10), chunksize=3)), list(range(10)))
        self.assertEqual(list(executor.map(same, [])), [])
        with self.assertRaises(ValueError):
            executor.map(same, [1], chunksize=0)
        with self.assertRaises(futures.TimeoutError):
            list(executor.map(time.sleep, [1], timeout=0.01))

    def test_many_outstanding_from_several_threads(self):
        executor = self.executor()
        sums = []

        def work():
            calls = [executor.submit(same, i) for i in range(1500)]
            sums.append(sum(call.result(SOON) for call in calls))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
        self.assertEqual(sums, [1500 * 1499 // 2] * 4)

    def test_several_threads_wait_for_one_future(self):
        executor = self.executor(1)
        future = executor.submit(sleep_and_say, 0.2, 'x')
        got = []
        threads = [threading.Thread(target=lambda: got.append(future.result(SOON))) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
        self.assertEqual(got, ['x'] * 5)

    def test_what_cannot_be_pickled_fails_its_future_alone(self):
        executor = self.executor(1)
        with self.assertRaises(Exception) as caught:
            executor.submit(same, [1, lambda: 2]).result(SOON)
        self.assertNotIsInstance(caught.exception, BrokenProcessPool)
        with self.assertRaises(TypeError):
            executor.submit(give_lock).result(SOON)
        self.assertEqual(executor.submit(same, 1).result(SOON), 1)

    def test_error_of_pickling_has_the_traceback_of_the_reducer(self):
        executor = self.executor(1)
        for way in (lambda: executor.submit(same, RaisesBelow()).result(SOON),
                    lambda: list(executor.map(same, [RaisesBelow()])),
                    lambda: executor.submit(give, RaisesBelow).result(SOON)):
            self.assertIn('in cause_of_it_all', traceback_of(way))

    def test_initializer(self):
        executor = self.executor(1, initializer=remember, initargs=('it',))
        self.assertEqual(executor.submit(recall).result(SOON), 'it')


class WaitingCases:
    def test_callback_in_another_thread_while_this_one_holds_its_lock(self):
        executor = self.executor(1)
        lock = threading.Lock()
        called = threading.Event()

        def callback(future):
            with lock:
                called.set()

        future = executor.submit(sleep_and_say, 0.05, 1)
        future.add_done_callback(callback)
        with lock:
            self.assertEqual(future.result(SOON), 1)
        self.assertTrue(called.wait(SOON))

    def test_callbacks_without_anybody_waiting(self):
        executor = self.executor()
        called = threading.Semaphore(0)
        for i in range(50):
            executor.submit(same, i).add_done_callback(lambda future: called.release())
        for _ in range(50):
            self.assertTrue(called.acquire(timeout=SOON))

    def test_callback_of_a_finished_future_runs_at_once(self):
        executor = self.executor(1)
        future = executor.submit(same, 1)
        while not future.done():
            time.sleep(0.001)
        got = []
        future.add_done_callback(got.append)
        self.assertEqual(got, [future])

    def test_callback_that_raises_leaves_the_others(self):
        executor = self.executor(1)
        called = threading.Event()
        future = executor.submit(sleep_and_say, 0.05, 1)
        with self.assertLogs('concurrent.futures', 'ERROR'):
            future.add_done_callback(lambda future: 1 / 0)
            future.add_done_callback(lambda future: called.set())
            self.assertTrue(called.wait(SOON))

    def test_wait_and_as_completed(self):
        executor = self.executor()
        calls = [executor.submit(same, i) for i in range(20)]
        self.assertEqual({call.result() for call in futures.as_completed(calls, SOON)}, set(range(20)))
        slow, quick = executor.submit(sleep_and_say, 1, 1), executor.submit(same, 2)
        done, _ = futures.wait([slow, quick], SOON, futures.FIRST_COMPLETED)
        self.assertEqual(done, {quick})
        done, left = futures.wait([slow, quick], SOON)
        self.assertEqual((len(done), len(left)), (2, 0))

    def test_cancel(self):
        executor = self.executor(1)
        calls = [executor.submit(sleep_and_say, 0.3, i) for i in range(8)]
        got = []
        calls[-1].add_done_callback(got.append)
        calls[0].exception(SOON)
        self.assertFalse(calls[0].cancel())
        self.assertTrue(calls[-1].cancel())
        self.assertEqual(got, [calls[-1]])
        with self.assertRaises(futures.CancelledError):
            calls[-1].result()
        self.assertTrue(calls[-1].cancelled() and calls[-1].done())
        self.assertEqual([call.result(SOON) for call in calls[:-1]], list(range(7)))

    def test_running(self):
        executor = self.executor(1)
        future = executor.submit(sleep_and_say, 0.5, 1)
        deadline = time.monotonic() + SOON
        while not future.running():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.001)
        self.assertIn('running', repr(future))
        future.result(SOON)
        self.assertFalse(future.running())

    def test_asyncio(self):
        executor = self.executor()

        async def main():
            loop = asyncio.get_running_loop()
            calls = [loop.run_in_executor(executor, same, i) for i in range(50)]
            with self.assertRaises(ValueError):
                await loop.run_in_executor(executor, fail, 'here')
            wrapped = asyncio.wrap_future(executor.submit(add, 1, 2))
            return await asyncio.wait_for(asyncio.gather(wrapped, *calls), SOON)

        self.assertEqual(asyncio.run(main()), [3, *range(50)])

    def test_asyncio_cancels_what_was_not_taken(self):
        executor = self.executor(1)

        async def main():
            loop = asyncio.get_running_loop()
            calls = [loop.run_in_executor(executor, sleep_and_say, 0.2, i) for i in range(6)]
            calls[-1].cancel()
            return await asyncio.gather(*calls, return_exceptions=True)

        outcomes = asyncio.run(main())
        self.assertEqual(outcomes[:-1], list(range(5)))
        self.assertIsInstance(outcomes[-1], asyncio.CancelledError)


class EndCases:
    def test_shutdown_finishes_all_calls(self):
        executor = self.executor()
        calls = [executor.submit(sleep_and_say, 0.01, i) for i in range(20)]
        executor.shutdown()
        self.assertTrue(all(call.done() for call in calls))
        self.assertEqual([call.result() for call in calls], list(range(20)))
        with self.assertRaisesRegex(RuntimeError, 'after shutdown'):
            executor.submit(same, 1)

    def test_shutdown_cancels(self):
        executor = self.executor(1)
        calls = [executor.submit(sleep_and_say, 0.2, i) for i in range(20)]
        calls[0].result(SOON)
        executor.shutdown(cancel_futures=True)
        self.assertTrue(all(call.done() for call in calls))
        self.assertGreater(sum(call.cancelled() for call in calls), 10)

    def test_dropped_executor_finishes_its_calls(self):
        executor = self.executor()
        self.doCleanups()  # it must not be kept
        executor = futures.ProcessPoolExecutor(2, multiprocessing.get_context(self.method))
        call = executor.submit(sleep_and_say, 0.1, 'done')
        processes = list(executor._processes.values())
        manager, dead = executor._executor_manager_thread, weakref.ref(executor)
        del executor
        gc.collect()
        self.assertIsNone(dead())
        manager.join(SOON)
        self.assertFalse([process for process in processes if process.is_alive()])
        self.assertEqual(call.result(SOON), 'done')

    def test_killed_worker_breaks_the_executor(self):
        executor = self.executor()
        calls = [executor.submit(time.sleep, SOON) for _ in range(5)]
        next(iter(executor._processes.values())).kill()
        for call in calls:
            self.assertRaises(BrokenProcessPool, call.result, SOON)
        self.assertRaises(BrokenProcessPool, executor.submit, same, 1)

    def test_death_reaches_callbacks(self):
        executor = self.executor(1)
        called = threading.Event()
        executor.submit(os._exit, 1).add_done_callback(lambda future: called.set())
        self.assertTrue(called.wait(SOON))


class SpawnTest(CallCases, WaitingCases, EndCases, ExecutorCase):
    pass


class ForkTest(CallCases, EndCases, ExecutorCase):
    method = 'fork'


class ForkserverTest(CallCases, EndCases, ExecutorCase):
    method = 'forkserver'


class ScriptTest(unittest.TestCase):
    def run_script(self, text):
        done = subprocess.run([sys.executable, '-c', textwrap.dedent(text)], capture_output=True, text=True,
                              timeout=SOON)
        return done.stdout, done.stderr, done.returncode

    def test_exit_finishes_calls_and_callbacks(self):
        out, error, code = self.run_script('''
            import time
            from concurrent.futures import ProcessPoolExecutor
            if __name__ == '__main__':
                executor = ProcessPoolExecutor(1)
                executor.submit(time.sleep, 0.3).add_done_callback(lambda future: print('done'))
            ''')
        self.assertEqual((out, error, code), ('done\n', '', 0))

    def test_fork_with_a_running_executor(self):
        out, error, code = self.run_script('''
            import os, sys, warnings
            from concurrent.futures import ProcessPoolExecutor
            warnings.simplefilter('ignore')
            if __name__ == '__main__':
                with ProcessPoolExecutor(1) as executor:
                    executor.submit(abs, -1).result()
                    pid = os.fork()
                    if pid == 0:
                        sys.exit(7)
                    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), executor.submit(abs, -2).result())
            ''')
        self.assertEqual((out, code), ('7 2\n', 0), error)  # atexit functions of the copy may complain


@unittest.skipUnless(UNDER_PYHOST, "what the standard library's executor does not do")
class PyhostTest(ExecutorCase):
    def broken(self, call):
        with self.assertRaises(BrokenProcessPool) as caught:
            call.result(SOON)
        return caught.exception

    def test_death_is_explained(self):
        for ending, words, exitcode in (((os._exit, 0), 'exited with code 0', 0),
                                        ((os._exit, 3), 'exited with code 3', 3),
                                        ((os.kill, 0, 9), 'killed by SIGKILL', -9)):
            executor = self.executor(1)
            waiting = executor.submit(same, 1)
            waiting.result(SOON)
            pid = next(iter(executor._processes))
            function, *arguments = ending
            call = executor.submit(function, *(pid if argument == 0 and function is os.kill else argument
                                               for argument in arguments))
            other = executor.submit(same, 1)
            error = self.broken(call)
            self.assertRegex(str(error), f'pid {pid}.* {words} while it ran {function.__name__}')
            self.assertEqual((error.__cause__.pid, error.__cause__.exitcode), (pid, exitcode))
            self.assertIsNot(self.broken(other), error)
            with self.assertRaisesRegex(BrokenProcessPool, words):
                executor.submit(same, 1)

    def test_one_call_has_one_worker_started(self):
        context = multiprocessing.get_context(self.method)
        go = context.Event()
        executor = self.executor(4, initializer=go.wait)
        call = executor.submit(same, 1)  # nobody takes it before go.set()
        for _ in range(10):
            executor._crew.maintain()  # what the pool service does whenever something happens
        self.assertEqual(len(executor._processes), 1)
        others = [executor.submit(same, n) for n in (2, 3)]
        self.assertEqual(len(executor._processes), 3)
        go.set()
        self.assertEqual([one.result(SOON) for one in (call, *others)], [1, 2, 3])
        self.assertEqual(executor.submit(same, 4).result(SOON), 4)
        self.assertEqual(len(executor._processes), 3, 'three were idle')

    def test_call_that_cannot_be_pickled_has_a_worker_started_for_the_next_one(self):
        executor = self.executor(2)
        for _ in range(2):
            with self.assertRaises((AttributeError, pickle.PicklingError)):
                executor.submit(lambda: None).result(SOON)
        self.assertEqual(len(executor._processes), 2)

    def test_death_of_an_idle_worker_is_explained(self):
        executor = self.executor(1)
        executor.submit(same, 1).result(SOON)
        process = next(iter(executor._processes.values()))
        process.kill()
        deadline = time.monotonic() + SOON
        while not executor._broken:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.001)
        self.assertRegex(executor._broken, f'{process.name} .pid {process.pid}. killed by SIGKILL while it was idle')

    def test_failing_initializer_is_the_cause(self):
        executor = self.executor(1, initializer=fail, initargs=('not today',))
        error = self.broken(executor.submit(same, 1))
        self.assertIn('its initializer raised ValueError: not today', str(error))
        self.assertIsInstance(error.__cause__, ValueError)

    def test_what_cannot_be_unpickled_fails_its_future_alone(self):
        executor = self.executor(1)
        for call in (executor.submit(same, FailsWhenUnpickled()), executor.submit(give, FailsWhenUnpickled),
                     executor.submit(give, EndsWhenUnpickled), executor.submit(raise_picky)):
            error = self.broken(call)
            self.assertEqual(type(error).__name__, 'CallUnreadableError')
            self.assertTrue(str(error.__cause__))
        self.assertEqual(executor.submit(same, 1).result(SOON), 1)

    def test_unpicklable_argument_is_found(self):
        executor = self.executor(1)
        with self.assertRaisesRegex(Exception, r"args\[0\]\['here'\]"):
            executor.submit(same, {'here': lambda: 1}).result(SOON)
        with self.assertRaisesRegex(TypeError, r"result\[1\]\['lock'\]"):
            executor.submit(give_lock).result(SOON)

    def test_every_call_that_was_not_taken_can_be_cancelled(self):
        executor = self.executor(1)
        calls = [executor.submit(sleep_and_say, 0.2, i) for i in range(2000)]
        calls[0].result(SOON)
        cancelled = [call.cancel() for call in calls[2:]]
        self.assertEqual(cancelled, [True] * 1998)
        self.assertEqual(calls[1].result(SOON), 1)
        self.assertEqual(executor.submit(same, 1).result(SOON), 1)

    def test_max_tasks_per_child(self):
        executor = self.executor(1, max_tasks_per_child=2)
        pids = list(executor.map(pid_after, [0] * 6))
        self.assertEqual(len(set(pids)), 3)
        self.assertEqual(pids[0], pids[1])
        calls = [executor.submit(pid_after, 0) for _ in range(4)]
        executor.shutdown()
        self.assertEqual(len({call.result() for call in calls}), 2)

    def test_no_worker_is_replaced_while_all_are_being_ended(self):
        executor = self.executor(1, max_tasks_per_child=1)
        calls = [executor.submit(pid_after, 0.5) for _ in range(3)]
        executor._force_shutting_down = True  # as terminate_workers() does before it ends them
        calls[0].result(SOON)
        for call in calls[1:]:
            with self.assertRaisesRegex(BrokenProcessPool, 'forcefully shut down'):
                call.result(SOON)

    def test_max_tasks_per_child_without_the_executor(self):
        executor = futures.ProcessPoolExecutor(1, multiprocessing.get_context(self.method), max_tasks_per_child=1)
        calls = [executor.submit(pid_after, 0.1) for _ in range(3)]
        del executor
        gc.collect()
        self.assertEqual(len({call.result(SOON) for call in calls}), 3)

    def test_map_with_a_buffer(self):
        executor = self.executor(1)
        read = []

        def numbers():
            for i in range(20):
                read.append(i)
                yield i

        results = executor.map(same, numbers(), buffersize=3)
        self.assertEqual(len(read), 3)
        self.assertEqual(next(results), 0)
        self.assertEqual(len(read), 4)
        self.assertEqual(list(results), list(range(1, 20)))
        self.assertEqual(list(executor.map(same, range(20), chunksize=4, buffersize=2)), list(range(20)))
        self.assertRaises(TypeError, executor.map, same, [], buffersize='3')
        self.assertRaises(ValueError, executor.map, same, [], buffersize=0)

    def test_workers_can_be_terminated_or_killed(self):
        for end in ('terminate_workers', 'kill_workers'):
            executor = self.executor(1)
            executor.submit(same, 1).result(SOON)
            running = executor.submit(time.sleep, SOON)
            while not running.running():
                time.sleep(0.001)
            waiting = executor.submit(same, 1)
            getattr(executor, end)()
            self.broken(running)
            self.assertTrue(waiting.cancelled())
            self.assertRaises(RuntimeError, executor.submit, same, 1)
            getattr(executor, end)()

    def test_no_thread_for_who_only_waits_for_results(self):
        executor = self.executor(1)
        for i in range(100):
            executor.submit(same, i).result(SOON)
        self.assertNotIn('ExecutorCallbacks', [thread.name for thread in threading.enumerate()])

    def test_results_nobody_asks_for_are_collected(self):
        executor = self.executor(1)
        for i in range(5000):
            executor.submit(same, i)
        executor.submit(same, 1).result(SOON)
        executor.shutdown()
        self.assertFalse(executor._pending_work_items)


if __name__ == '__main__':
    unittest.main()
