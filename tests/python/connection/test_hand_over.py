"""Pipes between processes whose readers wait, where pyhost hands small messages over beside the descriptor: nobody may be
able to tell.  Runs under pyhost and under python3, whose standard library is the oracle."""

import multiprocessing
import os
import random
import select
import signal
import sys
import threading
import time
import unittest
from multiprocessing.connection import Pipe, wait

from peers import SECONDS

METHODS = ('spawn', 'fork', 'forkserver')
SPAWN = multiprocessing.get_context('spawn')


def message(number):
    """Of a size that takes turns between both ways, and differs from its neighbours in every byte."""
    size = random.Random(number).choice((0, 1, 40, 1000, 1900, 1940, 3000, 70000))
    return number, bytes([number % 251]) * size


def echo(conn):
    """Sends back what comes, until None."""
    while (received := conn.recv()) is not None:
        conn.send(received)


def echo_bytes(conn):
    into = bytearray(100)
    while size := conn.recv_bytes_into(into):
        conn.send_bytes(into, 0, size)


def send_numbers(conn, lock, first, count):
    """Each writer's are in order; `lock` keeps the writers apart."""
    for number in range(first, first + count):
        with lock:
            conn.send((first, number))
    conn.close()


def collect(conn, lock, results):
    """Reads until None, which stays for the other readers."""
    got = []
    while True:
        with lock:
            item = conn.recv()
        if item is None:
            results.put(got)
            return
        got.append(item)


def write_down(conn, fd):
    while True:
        os.write(fd, b'%d\n' % conn.recv())


def send_when_told(conn, told):
    while told.recv() is not None:
        conn.send('said')
        told.send('done')


class HandOver(unittest.TestCase):
    def start(self, method, target, *args):
        process = multiprocessing.get_context(method).Process(target=target, args=args)
        process.start()
        self.addCleanup(process.kill)
        return process

    def end(self, process):
        process.join(SECONDS)
        self.assertEqual(process.exitcode, 0)

    def test_there_and_back_by_every_method(self):
        for method in METHODS:
            with self.subTest(method):
                ours, theirs = Pipe()
                process = self.start(method, echo, theirs)
                for number in range(1500):
                    ours.send(message(number))
                    self.assertEqual(ours.recv(), message(number))
                ours.send(None)
                self.end(process)

    def test_many_at_a_time_stay_in_order(self):
        ours, theirs = Pipe()
        process = self.start('spawn', echo, theirs)
        rng = random.Random(1)
        number = 0
        while number < 3000:
            # Now the reader waits, now it finds some there.
            burst = range(number, number + rng.choice((1, 1, 1, 2, 3, 10)))
            for each in burst:
                ours.send((each, b'x' * (each % 50)))
            for each in burst:
                self.assertEqual(ours.recv(), (each, b'x' * (each % 50)))
            number = burst.stop
        ours.send(None)
        self.end(process)

    def test_one_way_pipes(self):
        reader, writer = Pipe(duplex=False)
        lock = SPAWN.Lock()
        process = self.start('spawn', send_numbers, writer, lock, 0, 3000)
        self.assertEqual([reader.recv() for _ in range(3000)], [(0, number) for number in range(3000)])
        self.end(process)

    def test_bytes_into_a_buffer(self):
        ours, theirs = Pipe()
        process = self.start('spawn', echo_bytes, theirs)
        into = bytearray(200)
        for size in (1, 100, 50) * 300:
            ours.send_bytes(b'y' * size)
            self.assertEqual(ours.recv_bytes_into(into, 7), size)
            self.assertEqual(into[7:7 + size], b'y' * size)
        ours.send_bytes(b'')
        self.end(process)

    def test_message_for_a_small_buffer(self):
        ours, theirs = Pipe()
        process = self.start('spawn', echo_bytes, theirs)
        for _ in range(200):
            ours.send_bytes(b'z' * 90)
            with self.assertRaises(multiprocessing.BufferTooShort) as caught:
                ours.recv_bytes_into(bytearray(80))
            self.assertEqual(caught.exception.args[0], b'z' * 90)
        ours.send_bytes(b'')
        self.end(process)

    def test_longer_than_allowed_ends_reading(self):
        for size in (11, 5000):
            ours, theirs = Pipe()
            process = self.start('spawn', echo, theirs)
            for _ in range(50):
                ours.send(b'warm')
                ours.recv()
            ours.send(b'x' * size)
            with self.assertRaisesRegex(OSError, 'bad message length'):
                ours.recv_bytes(10)
            self.assertFalse(ours.readable)
            ours.send(None)
            self.end(process)

    def test_descriptor_tells_whoever_is_not_in_recv(self):
        ours, theirs = Pipe()
        told, tell = Pipe()
        process = self.start('spawn', send_when_told, theirs, told)
        for round in range(300):
            self.assertEqual(select.select([ours], [], [], 0)[0], [])
            self.assertEqual(wait([ours], 0), [])
            self.assertFalse(ours.poll())
            tell.send('say')
            self.assertEqual(tell.recv(), 'done')
            self.assertEqual(select.select([ours], [], [], 0)[0], [ours])
            self.assertEqual(wait([ours], 0), [ours])
            self.assertTrue(ours.poll())
            self.assertEqual(ours.recv(), 'said')
        tell.send(None)
        self.end(process)

    def test_end_of_the_other_side_is_seen_while_waiting(self):
        ours, theirs = Pipe()
        lock = SPAWN.Lock()
        process = self.start('spawn', send_numbers, theirs, lock, 0, 10)
        theirs.close()
        self.assertEqual([ours.recv() for _ in range(10)], [(0, number) for number in range(10)])
        with self.assertRaises(EOFError):
            ours.recv()
        self.end(process)
        with self.assertRaises(BrokenPipeError):
            ours.send('nobody')

    def test_several_writers_and_readers(self):
        reader, writer = Pipe(duplex=False)
        reading, writing = SPAWN.Lock(), SPAWN.Lock()
        results = SPAWN.SimpleQueue()
        readers = [self.start('spawn', collect, reader, reading, results) for _ in range(2)]
        writers = [self.start('spawn', send_numbers, writer, writing, first, 1000) for first in (0, 10_000)]
        for process in writers:
            self.end(process)
        for _ in readers:
            writer.send(None)
        collected = [results.get() for _ in readers]
        for process in readers:
            self.end(process)
        for got in collected:
            for first in (0, 10_000):
                series = [number for source, number in got if source == first]
                self.assertEqual(series, sorted(series))
        self.assertEqual(sorted(number for got in collected for _, number in got),
                         [*range(1000), *range(10_000, 11_000)])

    def test_a_reader_that_is_killed_leaves_the_rest_to_the_next(self):
        # Each child writes down what it has received.  It is killed while it waits: in the middle of a message the rest of that
        # would be what the next one takes for a message, in python3 too.
        rng = random.Random(7)
        ours, theirs = Pipe()
        read_end, write_end = os.pipe()
        written = []

        def await_written(number):
            while len(written) < number:
                self.assertTrue(select.select([read_end], [], [], SECONDS)[0], f'{number} does not come')
                written.extend(map(int, os.read(read_end, 1 << 16).split()))

        sent = 0
        for _ in range(30):
            process = self.start('fork', write_down, theirs, write_end)
            for _ in range(rng.randrange(100)):
                sent += 1
                ours.send(sent)
                if rng.random() < 0.3:
                    time.sleep(rng.uniform(0, 0.0002))
            await_written(sent)
            time.sleep(rng.uniform(0, 0.0002))  # spinning, or asleep
            os.kill(process.pid, signal.SIGKILL)
            process.join(SECONDS)
            sent += 1
            ours.send(sent)  # to nobody
        process = self.start('fork', write_down, theirs, write_end)
        await_written(sent)
        self.assertEqual(written, list(range(1, sent + 1)))
        process.kill()
        process.join(SECONDS)

    def test_a_signal_handler_while_waiting(self):
        ours, theirs = Pipe()
        process = self.start('spawn', echo, theirs)
        calls = []
        before = signal.signal(signal.SIGALRM, lambda *_: calls.append(1))
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
        number = 0
        while len(calls) < 50:
            ours.send(number)
            self.assertEqual(ours.recv(), number)
            number += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        ours.send(None)
        self.end(process)

    def test_a_handler_that_raises_loses_nothing(self):
        class Alarm(Exception):
            pass

        def handler(*_):
            raise Alarm

        ours, theirs = Pipe()
        process = self.start('spawn', echo, theirs)
        before = signal.signal(signal.SIGALRM, handler)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        # With nothing on its way: in the middle of a message a connection is lost, as in python3.
        for number in range(40):
            ours.send(number)
            self.assertEqual(ours.recv(), number)
            with self.assertRaises(Alarm):
                signal.setitimer(signal.ITIMER_REAL, 0.0005)
                ours.recv()
        ours.send(None)
        self.end(process)

    def test_two_threads_share_an_end(self):
        # One sends, one receives.
        ours, theirs = Pipe()
        process = self.start('spawn', echo, theirs)
        thread = threading.Thread(target=lambda: [ours.send(number) for number in range(3000)])
        thread.start()
        self.assertEqual([ours.recv() for _ in range(3000)], list(range(3000)))
        thread.join()
        ours.send(None)
        self.end(process)

    def test_forked_by_the_program_itself(self):
        ours, theirs = Pipe()
        pid = os.fork()
        if pid == 0:
            try:
                echo(theirs)
            finally:
                os._exit(0)
        for number in range(500):
            ours.send(number)
            self.assertEqual(ours.recv(), number)
        ours.send(None)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)

    def test_forks_while_other_threads_make_pipes(self):
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        self.addCleanup(sys.setswitchinterval, interval)
        ended = threading.Event()

        def make_pipes():
            while not ended.is_set():
                [Pipe() for _ in range(5)]

        thread = threading.Thread(target=make_pipes)
        thread.start()
        try:
            for _ in range(100):
                pipes = [Pipe() for _ in range(20)]
                self.end(self.start('fork', pipes[0][1].send, 'here'))
                self.assertEqual(pipes[0][0].recv(), 'here')
        finally:
            ended.set()
            thread.join()

    def test_a_stopped_reader_gets_all_when_continued(self):
        ours, theirs = Pipe()
        read_end, write_end = os.pipe()
        process = self.start('fork', write_down, theirs, write_end)
        rng = random.Random(3)
        for number in range(2000):
            if number % 100 == 50:
                time.sleep(rng.uniform(0, 0.0003))
                os.kill(process.pid, signal.SIGSTOP)
            ours.send(number)
            if number % 100 == 60:
                os.kill(process.pid, signal.SIGCONT)
        written = b''
        while not written.endswith(b'\n1999\n'):
            self.assertTrue(select.select([read_end], [], [], SECONDS)[0])
            written += os.read(read_end, 1 << 16)
        self.assertEqual(written.split(), [b'%d' % number for number in range(2000)])
        process.kill()
        process.join(SECONDS)

    def test_an_end_goes_on_to_a_grandchild(self):
        ours, theirs = Pipe()
        process = self.start('spawn', pass_on, theirs)
        for number in range(500):
            ours.send(number)
            self.assertEqual(ours.recv(), number)
        ours.send(None)
        self.end(process)


def pass_on(conn):
    process = multiprocessing.Process(target=echo, args=(conn,))
    process.start()
    conn.close()
    process.join()


if __name__ == '__main__':
    unittest.main()
