"""A message that was handed over to a reader that died before it took it: the next reader's, before all that came later."""

import multiprocessing
import os
import signal
import time
import unittest
from multiprocessing.connection import Pipe, wait

import _pyhost
from peers import SECONDS

FORK = multiprocessing.get_context('fork')


def receive(conn, results):
    """As many as are asked for, until None."""
    while True:
        results.put(item := conn.recv())
        if item is None:
            return


def receive_on_one_processor(conn, results):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # spinning does not pay there
    receive(conn, results)


def wait_and_receive(conn, results):
    wait([conn])
    receive(conn, results)


def poll_and_receive(conn, results):
    conn.poll(None)
    receive(conn, results)


def die_with_a_message(conn):
    _pyhost.arm_crash_point('hand-over-before-taken')
    while True:
        conn.recv()


def stop_when_announced(conn):
    _pyhost.arm_crash_point('hand-over-announced', signal.SIGSTOP)
    conn.recv()


READERS = (receive, receive_on_one_processor, wait_and_receive, poll_and_receive)


@unittest.skipUnless(hasattr(_pyhost, 'arm_crash_point'), 'a build without crash points')
class LeftBehindTest(unittest.TestCase):
    def start(self, target, *args):
        process = FORK.Process(target=target, args=args)
        process.start()
        self.addCleanup(process.join, SECONDS)
        self.addCleanup(process.kill)
        return process

    def assert_becomes(self, state, process):
        """`state`: as in the third field of /proc/PID/stat."""
        deadline = time.monotonic() + SECONDS
        while True:
            with open(f'/proc/{process.pid}/stat') as file:
                seen = file.read().rsplit(')', 1)[1].split()[0]
            if seen == state:
                return
            self.assertLess(time.monotonic(), deadline, f'{seen}, not {state}')
            time.sleep(0.001)  # a machine where all processors are busy is one where nobody spins

    def assert_come(self, expected, results):
        self.assertEqual([results.get(timeout=SECONDS) for _ in expected], expected)

    def test_the_next_reader_takes_it_first(self):
        for target in READERS:
            with self.subTest(target.__name__):
                ours, theirs = Pipe()
                results = FORK.Queue()
                process = self.start(die_with_a_message, theirs)
                number = 0
                while process.exitcode is None:
                    number += 1
                    ours.send(number)
                    time.sleep(0.0001)
                self.assertEqual(process.exitcode, -signal.SIGKILL)
                ours.send(None)
                self.start(target, theirs, results)
                items = []
                while not items or items[-1] is not None:
                    items.append(results.get(timeout=SECONDS))
                self.assertEqual(items[:-1], list(range(number + 2 - len(items), number + 1)))
                self.assertGreater(len(items), 1)

    def test_a_reader_that_sleeps_already_takes_it(self):
        for target in READERS:
            with self.subTest(target.__name__):
                ours, theirs = Pipe()
                results = FORK.Queue()
                stopped = self.start(stop_when_announced, theirs)
                self.assert_becomes('T', stopped)
                reader = self.start(target, theirs, results)
                self.assert_becomes('S', reader)
                ours.send('given to the one that is stopped')
                self.assertFalse(theirs.poll())
                stopped.kill()
                stopped.join()
                self.assert_come(['given to the one that is stopped'], results)
                ours.send(None)
                self.assert_come([None], results)


if __name__ == '__main__':
    unittest.main()
