"""Descriptors, sockets and connections on their way to other processes.  Runs under pyhost and under python3."""

import multiprocessing
import os
import socket
import threading
import unittest
from multiprocessing import resource_sharer
from multiprocessing.connection import Pipe

from peers import SECONDS, UNDER_PYHOST


def write_into(inbox):
    """Receives things with a descriptor and writes its pid into each."""
    while (passed := inbox.recv()) is not None:
        with passed:
            if isinstance(passed, socket.socket):
                passed.sendall(str(os.getpid()).encode())
            else:
                passed.send(os.getpid())
    inbox.send('done')


def use_ticket(inbox):
    """Fetches a descriptor by its ticket, twice; reports what happened."""
    ticket = inbox.recv()
    os.write(ticket.detach(), b'from the child')
    try:
        ticket.detach()
    except Exception as error:
        inbox.send((type(error).__name__, str(error)))
    else:
        inbox.send('it worked twice')


def sharer_threads():
    return [thread for thread in threading.enumerate() if thread is resource_sharer._resource_sharer._thread]


class PassingCase(unittest.TestCase):
    def start(self, function):
        ours, theirs = Pipe()
        process = multiprocessing.get_context('spawn').Process(target=function, args=(theirs,))
        process.start()
        theirs.close()
        self.addCleanup(self.end, process, ours)
        return process, ours

    def end(self, process, connection):
        connection.close()
        process.join(SECONDS)
        self.assertEqual(process.exitcode, 0)

    def tearDown(self):
        resource_sharer.stop(SECONDS)
        self.assertEqual(sharer_threads(), [])


class RunningProcess(PassingCase):
    def test_connections_and_sockets(self):
        process, child = self.start(write_into)
        for _ in range(5):
            reader, writer = Pipe(False)
            left, right = socket.socketpair()
            with reader, left:
                with writer, right:
                    child.send(writer)
                    child.send(right)
                    self.assertEqual(reader.recv(), process.pid)
                    self.assertEqual(left.recv(100), str(process.pid).encode())
                # The child has closed its duplicates: this is the end.
                with self.assertRaises(EOFError):
                    reader.recv()
        child.send(None)
        self.assertEqual(child.recv(), 'done')

    def test_one_thread_serves_all(self):
        self.assertEqual(sharer_threads(), [])
        process, child = self.start(write_into)
        pipes = [Pipe(False) for _ in range(20)]
        for _, writer in pipes:
            child.send(writer)
            writer.close()
        for reader, _ in pipes:
            with reader:
                self.assertEqual(reader.recv(), process.pid)
        self.assertEqual(len(sharer_threads()), 1)
        child.send(None)
        self.assertEqual(child.recv(), 'done')

    def test_a_ticket_works_once(self):
        _, child = self.start(use_ticket)
        reader, writer = os.pipe()
        ticket = resource_sharer.DupFd(writer)
        os.close(writer)
        child.send(ticket)
        with open(reader, 'rb') as file:
            self.assertEqual(file.read(), b'from the child')
        kind, text = child.recv()
        self.assertIn(kind, ('EOFError', 'ConnectionResetError', 'BrokenPipeError', 'RuntimeError'))
        if UNDER_PYHOST:
            self.assertIn('is gone', text)

    def test_stop_withdraws_what_is_on_offer(self):
        reader, writer = os.pipe()
        with open(reader, 'rb') as file:
            ticket = resource_sharer.DupFd(writer)
            os.close(writer)
            resource_sharer.stop(SECONDS)
            self.assertEqual(file.read(), b'')
        with self.assertRaises(OSError):
            ticket.detach()
        resource_sharer.stop()

    @unittest.skipUnless(UNDER_PYHOST, 'the standard library has it on Windows only')
    def test_socket_ticket(self):
        left, right = socket.socketpair()
        with left, right, resource_sharer.DupSocket(right).detach() as duplicate:
            duplicate.sendall(b'x')
            self.assertEqual(left.recv(1), b'x')


if __name__ == '__main__':
    unittest.main()
