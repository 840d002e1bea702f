"""Connections and wait().  Runs under pyhost and under python3, whose standard library is the oracle."""

import array
import copy
import multiprocessing
import os
import pickle
import resource
import signal
import socket
import struct
import threading
import time
import unittest
from multiprocessing import BufferTooShort
from multiprocessing.connection import Connection, Pipe, wait

from peers import SECONDS, UNDER_PYHOST


class PipeCase(unittest.TestCase):
    duplex = True

    def setUp(self):
        self.reader, self.writer = Pipe(self.duplex)
        self.addCleanup(self.reader.close)
        self.addCleanup(self.writer.close)

    def in_thread(self, function, *args):
        thread = threading.Thread(target=function, args=args, daemon=True)
        thread.start()
        self.addCleanup(thread.join, SECONDS)
        return thread


class Messages(PipeCase):
    def test_objects_arrive_in_order(self):
        sent = [1, 'two', [3, None], {'four': 4.0}, b'5' * 70000, ()]
        thread = self.in_thread(lambda: [self.writer.send(obj) for obj in sent])
        self.assertEqual([self.reader.recv() for _ in sent], sent)
        thread.join(SECONDS)

    def test_bytes_of_every_kind_of_size(self):
        for size in (0, 1, 16384, 16385, 65536, 1 << 18, (1 << 18) + 1, 3 << 20, 9 << 20):
            data = os.urandom(size)
            thread = self.in_thread(self.writer.send_bytes, data)
            self.assertEqual(self.reader.recv_bytes(), data)
            thread.join(SECONDS)

    def test_part_of_a_buffer(self):
        self.writer.send_bytes(b'0123456789', 2)
        self.writer.send_bytes(bytearray(b'0123456789'), 2, 3)
        self.writer.send_bytes(memoryview(b'0123456789'), 10)
        self.assertEqual([self.reader.recv_bytes() for _ in range(3)], [b'23456789', b'234', b''])

    def test_offsets_count_bytes_whatever_the_items(self):
        self.writer.send_bytes(array.array('i', [1, 2, 3]), 4, 4)
        self.assertEqual(self.reader.recv_bytes(), array.array('i', [2]).tobytes())

    def test_wrong_ranges_are_refused_and_nothing_is_sent(self):
        for arguments in ((-1,), (11,), (0, -1), (0, 11), (5, 6)):
            with self.assertRaises(ValueError):
                self.writer.send_bytes(b'0123456789', *arguments)
        with self.assertRaises(TypeError):
            self.writer.send_bytes('text')
        self.assertFalse(self.reader.poll())

    def test_what_does_not_pickle_leaves_the_connection_usable(self):
        with self.assertRaises((pickle.PicklingError, AttributeError)):
            self.writer.send(lambda: None)
        self.writer.send('next')
        self.assertEqual(self.reader.recv(), 'next')

    def test_into_a_buffer(self):
        buffer = array.array('i', [0] * 4)
        self.writer.send_bytes(array.array('i', [7, 8]).tobytes())
        self.assertEqual(self.reader.recv_bytes_into(buffer, 4), 8)
        self.assertEqual(buffer.tolist(), [0, 7, 8, 0])

    def test_large_message_into_a_buffer(self):
        data = os.urandom(2 << 20)
        buffer = bytearray(3 << 20)
        self.in_thread(self.writer.send_bytes, data)
        self.assertEqual(self.reader.recv_bytes_into(buffer, 5), len(data))
        self.assertEqual(buffer[5:5 + len(data)], data)

    def test_limits_and_buffers_that_cannot_be(self):
        self.writer.send_bytes(b'whole')
        with self.assertRaises(TypeError):
            self.reader.recv_bytes('5')
        if UNDER_PYHOST:  # python3 takes the message before it looks at the buffer
            with self.assertRaises(TypeError):
                self.reader.recv_bytes_into(b'read-only')
        self.assertEqual(self.reader.recv_bytes(10 ** 30), b'whole')

    def test_a_short_buffer_gets_the_message_in_the_exception(self):
        self.writer.send_bytes(b'0123456789')
        with self.assertRaises(BufferTooShort) as caught:
            self.reader.recv_bytes_into(bytearray(12), 3)
        self.assertEqual(caught.exception.args[0], b'0123456789')
        self.writer.send('next')
        self.assertEqual(self.reader.recv(), 'next')

    def test_wrong_offset_into_a_buffer(self):
        self.writer.send_bytes(b'abc')
        for offset in (-1, 4):
            with self.assertRaises(ValueError):
                self.reader.recv_bytes_into(bytearray(3), offset)
        with self.assertRaises(TypeError):
            self.reader.recv_bytes_into('text')
        self.assertEqual(self.reader.recv_bytes(), b'abc')


class MessagesOverAPipe(Messages):
    duplex = False

    def test_ends_know_their_direction(self):
        with self.assertRaisesRegex(OSError, 'read-only'):
            self.reader.send(1)
        with self.assertRaisesRegex(OSError, 'write-only'):
            self.writer.recv()
        with self.assertRaisesRegex(OSError, 'write-only'):
            self.writer.poll()


class WireFormat(PipeCase):
    def test_length_and_payload(self):
        self.writer.send_bytes(b'abc')
        self.assertEqual(os.read(self.reader.fileno(), 100), b'\0\0\0\3abc')

    def test_long_form_of_the_length(self):
        os.write(self.writer.fileno(), struct.pack('!iQ', -1, 3) + b'abc')
        self.assertEqual(self.reader.recv_bytes(), b'abc')

    def test_nothing_is_read_ahead(self):
        self.writer.send_bytes(b'mine')
        os.write(self.writer.fileno(), b'somebody else\'s')
        self.assertEqual(self.reader.recv_bytes(), b'mine')
        self.assertEqual(os.read(self.reader.fileno(), 100), b'somebody else\'s')

    def test_message_in_crumbs(self):
        def dribble():
            for byte in struct.pack('!i', 5) + b'hello':
                os.write(self.writer.fileno(), bytes([byte]))
        self.in_thread(dribble)
        self.assertEqual(self.reader.recv_bytes(), b'hello')


class Ends(PipeCase):
    def test_end_of_the_other_side(self):
        self.writer.send('last')
        self.writer.close()
        self.assertEqual(self.reader.recv(), 'last')
        self.assertTrue(self.reader.poll())
        with self.assertRaises(EOFError):
            self.reader.recv()
        with self.assertRaises(EOFError):
            self.reader.recv_bytes()

    def test_end_in_the_middle_of_a_message(self):
        os.write(self.writer.fileno(), struct.pack('!i', 10) + b'half')
        self.writer.close()
        with self.assertRaisesRegex(OSError, 'end of file during message'):
            self.reader.recv_bytes()

    def test_sending_to_nobody(self):
        self.reader.close()
        with self.assertRaises(BrokenPipeError):
            self.writer.send(1)

    def test_closed_connection(self):
        self.writer.close()
        self.writer.close()
        self.assertTrue(self.writer.closed)
        for use in (self.writer.fileno, self.writer.recv, self.writer.recv_bytes, self.writer.poll,
                    lambda: self.writer.send(1), lambda: self.writer.send_bytes(b''),
                    lambda: self.writer.recv_bytes_into(bytearray(1))):
            with self.assertRaisesRegex(OSError, 'closed'):
                use()

    def test_context_manager_closes(self):
        with self.reader as entered:
            self.assertIs(entered, self.reader)
        self.assertTrue(self.reader.closed)

    def test_message_longer_than_allowed_ends_reading(self):
        self.writer.send_bytes(b'0123456789')
        with self.assertRaises(ValueError):
            self.reader.recv_bytes(-1)
        with self.assertRaisesRegex(OSError, 'bad message length'):
            self.reader.recv_bytes(9)
        self.assertFalse(self.reader.readable)
        with self.assertRaises(OSError):
            self.reader.recv_bytes()
        self.reader.send('still writable')
        self.assertEqual(self.writer.recv(), 'still writable')

    def test_wrong_descriptors(self):
        with self.assertRaises(ValueError):
            Connection(-1)
        with self.assertRaises((TypeError, AttributeError)):
            Connection('1')
        with self.assertRaises(ValueError):
            Connection(1, readable=False, writable=False)

    @unittest.skipUnless(UNDER_PYHOST, 'the standard library allocates what the prefix says')
    def test_announced_size_is_not_allocated(self):
        limit = resource.getrlimit(resource.RLIMIT_AS)
        with open('/proc/self/statm') as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + (256 << 20), limit[1]))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_AS, limit)
        os.write(self.writer.fileno(), struct.pack('!iQ', -1, 1 << 40) + b'x' * 1000)
        self.writer.close()
        with self.assertRaisesRegex(OSError, 'end of file during message'):
            self.reader.recv_bytes()

    @unittest.skipUnless(UNDER_PYHOST, 'the standard library returns an empty message')
    def test_impossible_lengths(self):
        for prefix in (struct.pack('!i', -2), struct.pack('!iQ', -1, (1 << 64) - 1)):
            reader, writer = Pipe(False)
            with reader, writer:
                os.write(writer.fileno(), prefix)
                with self.assertRaisesRegex(OSError, 'bad message length'):
                    reader.recv_bytes()

    @unittest.skipUnless(UNDER_PYHOST, 'the standard library leaves half a message behind')
    def test_non_blocking_descriptor_keeps_messages_whole(self):
        data = os.urandom(4 << 20)
        os.set_blocking(self.writer.fileno(), False)
        os.set_blocking(self.reader.fileno(), False)
        with self.assertRaises(BlockingIOError):
            self.reader.recv_bytes()
        self.in_thread(self.writer.send_bytes, data)
        self.assertTrue(self.reader.poll(SECONDS))
        self.assertEqual(self.reader.recv_bytes(), data)

    def test_full_non_blocking_descriptor_takes_nothing_of_a_message(self):
        os.set_blocking(self.writer.fileno(), False)
        data = bytes(1000)
        sent = 0
        with self.assertRaises(BlockingIOError):
            while True:
                self.writer.send_bytes(data)
                sent += 1
        for _ in range(sent):
            self.assertEqual(self.reader.recv_bytes(), data)
        self.assertFalse(self.reader.poll())


class Signals(PipeCase):
    def setUp(self):
        super().setUp()
        self.ticks = 0
        old = signal.signal(signal.SIGALRM, self.tick)
        self.addCleanup(signal.signal, signal.SIGALRM, old)
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)

    def tick(self, signum, frame):
        self.ticks += 1

    def test_handlers_run_and_messages_stay_whole(self):
        data = os.urandom(8 << 20)
        def slowly():
            sent = memoryview(struct.pack('!i', len(data)) + data)
            while sent:
                sent = sent[os.write(self.writer.fileno(), sent[:100_000]):]
        self.in_thread(slowly)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        self.assertEqual(self.reader.recv_bytes(), data)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.assertGreater(self.ticks, 0)

    def test_handlers_run_while_a_message_is_sent(self):
        data = os.urandom(8 << 20)
        received = []
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        def slowly():
            while self.ticks < 5:
                time.sleep(0.001)
            received.append(self.reader.recv_bytes())
        thread = self.in_thread(slowly)
        self.writer.send_bytes(data)  # Waits for a reader that waits for the handler.
        signal.setitimer(signal.ITIMER_REAL, 0)
        thread.join(SECONDS)
        self.assertEqual(received, [data])

    def test_a_handler_that_raises_ends_a_send(self):
        class Stop(Exception):
            pass
        def stop(signum, frame):
            raise Stop
        signal.signal(signal.SIGALRM, stop)
        for duplex in False, True:
            reader, writer = Pipe(duplex)
            with reader, writer:
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                with self.assertRaises(Stop):
                    writer.send_bytes(bytes(8 << 20))

    def test_signals_do_not_restart_the_clock(self):
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        start = time.monotonic()
        self.assertFalse(self.reader.poll(0.3))
        self.assertEqual(wait([self.reader], 0.3), [])
        self.assertLess(time.monotonic() - start, 2)
        self.assertGreater(self.ticks, 10)

    def test_a_handler_that_raises_ends_the_wait(self):
        class Stop(Exception):
            pass
        def stop(signum, frame):
            raise Stop
        signal.signal(signal.SIGALRM, stop)
        for waiting in (self.reader.recv, lambda: self.reader.poll(None), lambda: wait([self.reader])):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with self.assertRaises(Stop):
                waiting()
        self.writer.send('nothing was lost')
        self.assertEqual(self.reader.recv(), 'nothing was lost')


class Waiting(PipeCase):
    def test_nothing_ready(self):
        for timeout in (0, -1, 0.05):
            self.assertEqual(wait([self.reader, self.writer], timeout), [])
            self.assertFalse(self.reader.poll(timeout))
        self.assertEqual(wait([], 0), [])

    def test_poll_sees_a_message_and_does_not_take_it(self):
        self.writer.send(1)
        for timeout in (0, 0.0, -3, 5, None):
            self.assertTrue(self.reader.poll(timeout))
        self.assertEqual(self.reader.recv(), 1)

    def test_objects_of_all_kinds(self):
        ours, theirs = socket.socketpair()
        plain_reader, plain_writer = os.pipe()
        with ours, theirs, open(plain_reader, 'rb'), open(plain_writer, 'wb', buffering=0) as plain:
            process = multiprocessing.get_context('spawn').Process(target=print, args=('',), kwargs={'end': ''})
            process.start()
            objects = [self.reader, ours, plain_reader, process.sentinel]
            theirs.send(b'x')
            self.writer.send(1)
            plain.write(b'x')
            process.join(SECONDS)
            self.assertEqual(wait(objects, SECONDS), objects)
            ours.recv(1)
            self.reader.recv()
            os.read(plain_reader, 1)
            self.assertEqual(wait(objects, SECONDS), [process.sentinel])

    def test_a_long_wait_ends_with_the_message(self):
        timer = threading.Timer(0.1, self.writer.send, ['late'])
        timer.start()
        self.addCleanup(timer.join, SECONDS)
        self.assertEqual(wait([self.reader], 3600), [self.reader])
        self.assertEqual(self.reader.recv(), 'late')

    def test_wrong_objects(self):
        for wrong in ('text', 1.5, None, -1):
            with self.assertRaises((ValueError, TypeError)):
                wait([wrong], 0)
        self.writer.close()
        with self.assertRaises((ValueError, OSError)):
            wait([self.writer], 0)
        with self.assertRaises(TypeError):
            wait([self.reader], 'soon')
        with self.assertRaises(TypeError):
            self.reader.poll('soon')

    @unittest.skipUnless(UNDER_PYHOST, 'KeyError in the standard library')
    def test_the_same_object_twice(self):
        self.writer.send(1)
        self.assertEqual(wait([self.reader, self.reader], 0), [self.reader, self.reader])

    @unittest.skipUnless(UNDER_PYHOST, 'OverflowError in the standard library')
    def test_very_long_waits(self):
        self.writer.send(1)
        for timeout in (1e9, 1e300, float('inf')):
            self.assertTrue(self.reader.poll(timeout))

    def test_object_with_attributes_of_its_own(self):
        class Anything:
            def __getattr__(self, name):
                return Anything()

        thing = Anything()
        thing.fileno = self.reader.fileno
        self.assertEqual(wait([thing], 0), [])
        self.writer.send(1)
        self.assertEqual(wait([thing], SECONDS), [thing])


def answer(connection):
    connection.send(('got', connection.recv()))


def answer_through_passed_connection(connection):
    with connection.recv() as passed:
        passed.send(os.getpid())


class Passing(PipeCase):
    def test_to_a_new_process(self):
        process = multiprocessing.get_context('spawn').Process(target=answer, args=(self.writer,))
        process.start()
        self.writer.close()
        self.reader.send('hello')
        self.assertEqual(self.reader.recv(), ('got', 'hello'))
        process.join(SECONDS)
        self.assertEqual(process.exitcode, 0)

    def test_to_a_running_process(self):
        ours, passed = Pipe()
        process = multiprocessing.get_context('spawn').Process(target=answer_through_passed_connection,
                                                               args=(self.writer,))
        process.start()
        with ours:
            with passed:
                self.reader.send(passed)
                self.assertEqual(ours.recv(), process.pid)
        process.join(SECONDS)
        self.assertEqual(process.exitcode, 0)

    @unittest.skipUnless(UNDER_PYHOST, 'the standard library makes a second owner of the descriptor')
    def test_plain_pickle_and_copy_are_refused(self):
        for duplicate in (pickle.dumps, copy.copy):
            with self.assertRaisesRegex(TypeError, 'cannot pickle or copy Connection'):
                duplicate(self.writer)


if __name__ == '__main__':
    unittest.main()
