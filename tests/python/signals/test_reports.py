"""Reported problems of other systems, reproduced; tests/README.md has the table.  Here: what no other suite has.

Each program has a time limit: that it ends is half of what is tested.
"""

import os
import signal
import subprocess
import sys
import textwrap
import time
import unittest

SECONDS = 60
PROMPTLY = 1.0  # seconds a terminal may be kept waiting

HEAD = '''
import concurrent.futures, multiprocessing, os, resource, signal, sys, threading, time

def wait_in(obj, method, ready):
    ready.release()
    try:
        getattr(obj, method)()
    except (EOFError, RuntimeError):
        pass  # the end of the parent, on a pipe and in the place of a lock's owner

def sleep(ready=None):
    if ready is not None:
        ready.release()
    time.sleep(300)
'''

BUSY_EVERYWHERE = '''
if __name__ == '__main__':
    context = multiprocessing.get_context({method!r})
    ready = context.Semaphore(0)
    lock = context.Lock()
    lock.acquire()
    manager = context.Manager()
    silent, kept = context.Pipe()
    waits = [(context.Queue(), 'get'), (context.SimpleQueue(), 'get'), (lock, 'acquire'), (context.Event(), 'wait'),
             (silent, 'recv'), (manager.Queue(), 'get')]
    children = [context.Process(target=wait_in, args=(obj, name, ready), daemon=True) for obj, name in waits]
    for child in children:
        child.start()
    for child in children:
        ready.acquire()
    pool = context.Pool(2)
    results = pool.map_async(time.sleep, [300] * 4)
    print('ready', *(child.pid for child in children + pool._pool), manager._process.pid, flush=True)
    {wait}
'''


def is_gone(pid):
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rpartition(')')[2].split()[0] in 'ZX'
    except FileNotFoundError:
        return True


class ReportTest(unittest.TestCase):
    def start(self, program):
        environment = {name: value for name, value in os.environ.items() if name != 'PYTHONUNBUFFERED'}
        process = subprocess.Popen([sys.executable, '-c', HEAD + program], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment)
        self.addCleanup(process.communicate)
        self.addCleanup(lambda: process.poll() is None and process.kill())
        return process

    def run_program(self, program):
        process = self.start(textwrap.dedent(program))
        output, errors = process.communicate(timeout=SECONDS)
        self.assertEqual((process.returncode, errors), (0, ''))
        return output

    def start_busy(self, method, wait):
        process = self.start(BUSY_EVERYWHERE.format(method=method, wait=wait))
        word, *pids = process.stdout.readline().split()
        self.assertEqual(word, 'ready')
        return process, [int(pid) for pid in pids]

    def assert_gone(self, pids, start):
        while not all(map(is_gone, pids)):
            self.assertLess(time.monotonic() - start, 2 * PROMPTLY, [pid for pid in pids if not is_gone(pid)])
            time.sleep(0.01)


class Interrupts(ReportTest):
    """bpo-8296, emcee#113: Ctrl-C leaves a hang or forty tracebacks."""

    def test_one_traceback_and_the_terminal_is_back(self):
        for method in ('spawn', 'fork', 'forkserver'):
            for wait in ('results.get()', 'children[0].join()', 'children[0].join(200)'):
                with self.subTest(method, wait=wait):
                    process, pids = self.start_busy(method, wait)
                    start = time.monotonic()
                    os.killpg(process.pid, signal.SIGINT)
                    _, errors = process.communicate(timeout=SECONDS)
                    self.assertLess(time.monotonic() - start, 2 * PROMPTLY)
                    self.assertEqual(process.returncode, -signal.SIGINT)
                    self.assertEqual(errors.count('Traceback'), 1, errors)
                    self.assertEqual(errors.count('KeyboardInterrupt'), 1, errors)
                    self.assert_gone(pids, start)


class Terminations(ReportTest):
    """cpython#111873, loky#360: workers outlive their parent."""

    def test_of_the_root_take_daemons_and_workers_along(self):
        for how in (signal.SIGTERM, signal.SIGKILL):
            with self.subTest(how):
                process, pids = self.start_busy('spawn', 'results.get()')
                start = time.monotonic()
                process.send_signal(how)
                *pids, manager = pids
                self.assertEqual(process.wait(SECONDS), -how)
                self.assert_gone(pids, start)
                # A manager's server is no daemon; as under python3 it outlives a parent that cannot end it.
                os.kill(manager, signal.SIGKILL)
                self.assertEqual(process.communicate(timeout=SECONDS)[1], '')


class Memory(ReportTest):
    def test_what_cannot_be_had_is_a_memory_error(self):
        """pytorch#5040: SIGBUS without a message when shared memory is full."""
        output = self.run_program('''
            resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))
            if __name__ == '__main__':
                items = multiprocessing.Queue()
                try:
                    items.put(bytes(100 << 20))
                except MemoryError as error:
                    print(error)
                items.put('goes on')
                print(items.get())
        ''')
        self.assertRegex(output, r'(?s)\d+.*limit.*goes on')

    def test_buffers_cost_no_descriptor(self):
        """pytorch#973, #11201: descriptors run out when many buffers are passed."""
        output = self.run_program('''
            if __name__ == '__main__':
                import pickle
                items = multiprocessing.Queue()
                items.put(0), items.get()
                resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
                for number in range(500):
                    items.put(pickle.PickleBuffer(bytearray(20_000 + number)))
                kept = [items.get() for _ in range(500)]
                print(sum(len(buffer) for buffer in kept), len(os.listdir('/proc/self/fd')) < 64)
        ''')
        self.assertEqual(output, f'{sum(range(20_000, 20_500))} True\n')


class Ends(ReportTest):
    def test_a_producer_is_joined_before_its_queue_is_drained(self):
        """cpython#73983: join before drain deadlocks at 64 KB."""
        output = self.run_program('''
            def produce(items):
                for _ in range(100):
                    items.put(bytes(100_000))

            if __name__ == '__main__':
                items = multiprocessing.Queue()
                producer = multiprocessing.Process(target=produce, args=(items,))
                producer.start()
                producer.join(30)
                print(producer.exitcode, sum(len(items.get()) for _ in range(100)))
        ''')
        self.assertEqual(output, '0 10000000\n')

    def test_a_dropped_pool_holds_nobody_up(self):
        """cpython#78353, #82682: a pool that nobody closes hangs at its collection or at the exit."""
        output = self.run_program('''
            if __name__ == '__main__':
                import gc
                multiprocessing.Pool(2).apply(abs, (-1,))
                gc.collect()
                kept = multiprocessing.Pool(2)
                kept.apply_async(time.sleep, (300,))
                print('the end')
        ''')
        self.assertIn('the end\n', output)


if __name__ == '__main__':
    unittest.main()
