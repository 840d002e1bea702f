"""A message that was handed over to a reader that died before it took it: the next reader's, before all that came later."""

import multiprocessing
import os
import select
import signal
import time
import unittest
from multiprocessing.connection import Pipe, wait

import _pyhost
from peers import SECONDS

HAND_OVER_SECONDS = 20  # in which a machine that is not busy all the time has handed over a message

FORK = multiprocessing.get_context('fork')


def receive(conn, results):
    """Until None comes."""
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


def echo_until_handed_over(conn, number):
    """The first message that comes by hand is never taken: then signal `number` ends or stops this process."""
    _pyhost.arm_crash_point('hand-over-before-taken', number)
    while True:
        conn.send(conn.recv())


def die_when_announced(conn):
    _pyhost.arm_crash_point('hand-over-announced')
    os.set_blocking(conn.fileno(), False)  # until the machine has a processor to spin on
    while True:
        try:
            conn.recv()
        except BlockingIOError:
            time.sleep(0.001)


READERS = (receive, receive_on_one_processor, wait_and_receive, poll_and_receive)


@unittest.skipUnless(hasattr(_pyhost, 'arm_crash_point'), 'a build without crash points')
@unittest.skipUnless(len(os.sched_getaffinity(0)) > 1, 'nobody spins on one processor')
class LeftBehindTest(unittest.TestCase):
    def start(self, target, *args):
        process = FORK.Process(target=target, args=args)
        process.start()
        self.addCleanup(process.join, SECONDS)
        self.addCleanup(process.kill)
        return process

    def state(self, process):
        """The third field of /proc/PID/stat."""
        with open(f'/proc/{process.pid}/stat') as file:
            return file.read().rsplit(')', 1)[1].split()[0]

    def assert_becomes(self, state, process):
        deadline = time.monotonic() + SECONDS
        while (seen := self.state(process)) != state:
            self.assertLess(time.monotonic(), deadline, f'{seen}, not {state}')
            time.sleep(0.001)  # a machine where all processors are busy is one where nobody spins

    def leave_behind(self, number):
        """Both ends of a pipe, the process that got signal `number`, and the message that it was given."""
        ours, theirs = Pipe()
        process = self.start(echo_until_handed_over, theirs, number)
        message = 0
        deadline = time.monotonic() + HAND_OVER_SECONDS
        while time.monotonic() < deadline:
            message += 1
            ours.send(message)
            while not ours.poll(0.001):
                if self.state(process) in 'TZ':
                    return ours, theirs, process, message
                self.assertLess(time.monotonic(), deadline + SECONDS, 'no answer')
            self.assertEqual(ours.recv(), message)
        if os.getloadavg()[0] > len(os.sched_getaffinity(0)):
            self.skipTest('the machine is busy with something else: nobody spins')
        self.fail('nothing was handed over')

    def test_the_next_reader_takes_it_first(self):
        for target in READERS:
            with self.subTest(target.__name__):
                ours, theirs, dead, message = self.leave_behind(signal.SIGKILL)
                dead.join()
                ours.send(None)
                results = FORK.Queue()
                self.start(target, theirs, results)
                self.assertEqual(results.get(timeout=SECONDS), message)
                self.assertIsNone(results.get(timeout=SECONDS))

    def test_a_reader_that_sleeps_already_takes_it(self):
        for target in READERS:
            with self.subTest(target.__name__):
                ours, theirs, stopped, message = self.leave_behind(signal.SIGSTOP)
                results = FORK.Queue()
                reader = self.start(target, theirs, results)
                self.assert_becomes('S', reader)
                self.assertFalse(theirs.poll())
                stopped.kill()
                stopped.join()
                self.assertEqual(results.get(timeout=SECONDS), message)
                ours.send(None)
                self.assertIsNone(results.get(timeout=SECONDS))

    def test_what_is_sent_after_a_death_is_for_all_to_see(self):
        for reap in (lambda process: os.waitpid(process.pid, 0), lambda process: wait([process.sentinel])):
            ours, theirs = Pipe()
            process = self.start(die_when_announced, theirs)
            reap(process)
            os.set_blocking(theirs.fileno(), True)
            ours.send('first')
            self.assertTrue(select.select([theirs], [], [], SECONDS)[0])
            ours.send('second')
            ours.close()
            self.assertEqual([theirs.recv(), theirs.recv()], ['first', 'second'])


if __name__ == '__main__':
    unittest.main()
