"""Managers' calls within a session: they travel on a line through shared memory, with all that connections promise."""

import gc
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
import unittest
import warnings
from multiprocessing import managers
from multiprocessing.managers import BaseManager, RemoteError, SyncManager

import _pyhost

SECONDS = 30
AT_ONCE = 1.0  # a second is the limit for telling of a death


class Worker:
    asleep = 0  # calls of sleep() in the server

    def pid(self):
        return os.getpid()

    def sleep(self, seconds):
        Worker.asleep += 1
        time.sleep(seconds)
        return 'slept'

    def sleepers(self):
        return Worker.asleep

    def echo(self, value):
        return value

    def die(self, how):
        os.kill(os.getpid(), how)
        time.sleep(SECONDS)

    def threads(self):
        return threading.active_count()

    def processor_time(self):
        return time.process_time()

    def descriptors(self):
        return len(os.listdir('/proc/self/fd'))

    def fork(self):
        """A copy of the server that does nothing and stays a while."""
        pid = os.fork()
        if pid == 0:
            time.sleep(0.3)
            os._exit(0)
        return pid


class Manager(SyncManager):
    pass


Manager.register('Worker', Worker)


def wait_until(condition, what):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


class LineTest(unittest.TestCase):
    context = multiprocessing.get_context('spawn')

    def setUp(self):
        self.manager = Manager(ctx=self.context)
        self.manager.start()
        self.addCleanup(self.manager.shutdown)
        self.worker = self.manager.Worker()

    def line_of(self, proxy):
        return proxy._tls.connection


class Sessions(LineTest):
    def test_calls_within_the_session_travel_on_a_line(self):
        self.assertEqual(self.worker.echo(1), 1)
        self.assertIs(type(self.line_of(self.worker)), _pyhost.Line)

    def test_a_thread_has_one_line_for_all_proxies_of_a_server(self):
        words = self.manager.dict()
        words['a'] = self.worker.echo(1)
        self.assertIs(self.line_of(words), self.line_of(self.worker))
        others = []
        def ask():
            self.worker.echo(2)
            others.append(self.line_of(self.worker))
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(SECONDS)
        self.assertIsNot(others[0], self.line_of(self.worker))

    def test_objects_are_made_on_the_line_which_stays_without_them(self):
        line = self.line_of(self.worker)
        self.assertIs(type(line), _pyhost.Line, 'made before any call')
        before = self.worker.threads()
        del self.worker
        gc.collect()
        self.assertEqual(self.manager._number_of_objects(), 0)
        for number in range(50):
            self.assertEqual(self.manager.list([number])[0], number)
        self.worker = self.manager.Worker()
        self.assertIs(self.line_of(self.worker), line)
        self.assertEqual(self.worker.threads(), before, 'no connection was made')

    def test_what_cannot_be_made_is_told_and_the_line_goes_on(self):
        with self.assertRaisesRegex(RemoteError, 'TypeError'):
            self.manager.list(1)
        with self.assertRaises(Exception):
            self.manager.list([lambda: None])
        self.assertEqual(self.manager.list([1])[0], 1)
        self.assertIs(type(self.line_of(self.worker)), _pyhost.Line)

    def test_the_server_thread_ends_with_the_thread_it_serves(self):
        before = self.worker.threads()
        for _ in range(20):
            thread = threading.Thread(target=self.worker.echo, args=(1,))
            thread.start()
            thread.join(SECONDS)
        wait_until(lambda: self.worker.threads() <= before, 'threads are left in the server')

    def test_lines_cost_no_descriptor(self):
        mine, servers = len(os.listdir('/proc/self/fd')), self.worker.descriptors()
        ready, go_on = threading.Barrier(11), threading.Event()
        def use():
            self.worker.echo(1)
            ready.wait(SECONDS)
            go_on.wait(SECONDS)
        threads = [threading.Thread(target=use) for _ in range(10)]
        for thread in threads:
            thread.start()
        ready.wait(SECONDS)
        self.assertLessEqual(len(os.listdir('/proc/self/fd')), mine)
        wait_until(lambda: self.worker.descriptors() <= servers, 'descriptors are left in the server')
        go_on.set()
        for thread in threads:
            thread.join(SECONDS)

    def test_an_idle_server_uses_no_processor_time(self):
        self.worker.echo(1)
        before = self.worker.processor_time()
        time.sleep(1)
        self.assertLess(self.worker.processor_time() - before, 0.05)

    def test_a_server_in_this_process(self):
        server = Manager(None, b'key').get_server()
        thread = threading.Thread(target=self.serve, args=(server,), daemon=True)
        thread.start()
        client = Manager(server.address, b'key')
        client.connect()
        words = client.dict(a=1)
        self.assertEqual(words['a'], 1)
        self.assertIs(type(self.line_of(words)), _pyhost.Line)
        del words
        server.stop_event.set()
        thread.join(SECONDS)
        del multiprocessing.current_process()._manager_server

    @staticmethod
    def serve(server):
        try:
            server.serve_forever()
        except SystemExit:
            pass

    def test_another_serializer_stays_on_its_connection(self):
        with Manager(serializer='xmlrpclib', ctx=self.context) as manager:
            numbers = manager.list([1, 2])
            self.assertEqual(numbers.pop(), 2)
            self.assertIsNot(type(self.line_of(numbers)), _pyhost.Line)

    def test_programs_that_speak_on_the_connection_themselves(self):
        class Proxy(managers.BaseProxy):
            def _callmethod(self, methodname, args=(), kwds={}):
                try:
                    conn = self._tls.connection
                except AttributeError:
                    self._connect()
                    conn = self._tls.connection
                conn.send((self._id, methodname, args, kwds))
                kind, result = conn.recv()
                if kind != '#RETURN':
                    raise managers.convert_to_error(kind, result)
                return result

        numbers = self.manager.list([1, 2])
        own = Proxy(numbers._token, 'pickle', manager=self.manager)
        self.assertEqual([own._callmethod('pop') for _ in range(2)], [2, 1])
        with self.assertRaises(IndexError):
            own._callmethod('pop')


class Contents(LineTest):
    def test_of_every_size(self):
        for size in (0, 100, 5_000, 20_000, 3 << 20):
            data = os.urandom(size)
            self.assertEqual(self.worker.echo(data), data)
            buffer = self.worker.echo(pickle.PickleBuffer(bytearray(data)))
            self.assertEqual(bytes(buffer), data)

    def test_objects_of_the_session(self):
        """python3 refuses these; here they are inherited by the message."""
        lock, items = self.context.Lock(), self.context.Queue()
        words = self.manager.dict()
        words.update(lock=lock, items=items)
        with words['lock']:
            self.assertFalse(lock.acquire(False))
        words['items'].put('seen')
        self.assertEqual(items.get(timeout=SECONDS), 'seen')

    def test_connections(self):
        reader, writer = self.context.Pipe(duplex=False)
        pipes = self.manager.Queue()
        pipes.put(writer)
        with pipes.get() as same:
            same.send('through the server')
        self.assertEqual(reader.recv(), 'through the server')

    def test_calls_that_cannot_be_pickled_leave_the_line_as_it_is(self):
        line = self.worker.echo(1) and self.line_of(self.worker)
        with self.assertRaises((pickle.PicklingError, AttributeError)):
            self.worker.echo(lambda: None)
        self.assertEqual(self.worker.echo(2), 2)
        self.assertIs(self.line_of(self.worker), line)

    def test_replies_that_cannot_be_unpickled_leave_the_line_as_it_is(self):
        with self.assertRaises(ZeroDivisionError):
            self.worker.echo(FailsToUnpickleHere())
        self.assertEqual(self.worker.echo(3), 3)


class FailsToUnpickleHere:
    """Reaches the server and comes back, but does not unpickle in the process with this id."""

    def __reduce__(self):
        return rebuild_elsewhere, (os.getpid(),)


class Returns(FailsToUnpickleHere):
    def __init__(self, pid):
        self.pid = pid

    def __reduce__(self):
        return rebuild_elsewhere, (self.pid,)


def rebuild_elsewhere(pid):
    if os.getpid() == pid:
        raise ZeroDivisionError
    return Returns(pid)


class Interrupted(Exception):
    pass


class Signals(LineTest):
    def on_alarm(self, handler, seconds=0.1):
        old = signal.signal(signal.SIGALRM, handler)
        self.addCleanup(signal.signal, signal.SIGALRM, old)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def test_a_handler_that_raises_ends_the_call_and_its_session(self):
        def handler(signum, frame):
            raise Interrupted
        self.on_alarm(handler)
        start = time.monotonic()
        with self.assertRaises(Interrupted):
            self.worker.sleep(SECONDS)
        self.assertLess(time.monotonic() - start, 5)
        self.assertEqual(self.worker.echo('next'), 'next')

    def test_a_handler_may_call_the_same_server(self):
        answers = []
        self.on_alarm(lambda signum, frame: answers.append(self.worker.echo('inner')))
        self.assertEqual(self.worker.sleep(0.5), 'slept')
        self.assertEqual(answers, ['inner'])

    def test_a_handler_may_drop_and_make_proxies(self):
        proxies = [self.manager.list()]
        def handler(signum, frame):
            proxies.pop()
            proxies.append(self.manager.list(['made']))
        self.on_alarm(handler)
        self.assertEqual(self.worker.sleep(0.5), 'slept')
        self.assertEqual(proxies[0][:], ['made'])

    def test_proxies_collected_in_the_middle_of_calls(self):
        """The garbage collector drops references to the server's objects while others are pickled."""
        holder = self.manager.list()
        for _ in range(30):
            cycle = [self.manager.dict()]
            cycle.append(cycle)
            del cycle
            self.assertEqual(self.worker.echo(CollectsWhenPickled()), 'collected')
        del holder
        gc.collect()
        wait_until(lambda: self.manager._number_of_objects() == 1, 'objects are left in the server')


class CollectsWhenPickled:
    def __reduce__(self):
        gc.collect()
        return str, ('collected',)


def call_for_ever(worker):
    worker.sleep(SECONDS)


def use_in_fork(worker, outcomes):
    line = _pyhost.Line
    had_line = type(worker._tls.__dict__.get('connection')) is line
    outcomes.put((had_line, worker.echo('forked'), type(worker._tls.connection) is line))


class Deaths(LineTest):
    def test_of_the_server_in_a_call(self):
        for how in (signal.SIGKILL, signal.SIGTERM):
            with Manager(ctx=self.context) as manager:
                worker = manager.Worker()
                pid = worker.pid()
                start = time.monotonic()
                with self.assertRaisesRegex(EOFError, rf'\(pid {pid}\), has ended: killed by {how.name}'):
                    worker.die(how)
                self.assertLess(time.monotonic() - start, AT_ONCE)
                with self.assertRaises(OSError):
                    worker.pid()

    def test_of_an_idle_server(self):
        pid = self.worker.pid()
        os.kill(pid, signal.SIGKILL)
        self.manager._process.join(SECONDS)
        with self.assertRaises((BrokenPipeError, EOFError)):
            self.worker.pid()
        with self.assertRaises(ConnectionRefusedError):
            self.worker.pid()

    def test_of_a_server_that_has_forked(self):
        """A copy of the server's process keeps nobody waiting for it."""
        pid, copy = self.worker.pid(), self.worker.fork()
        start = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        with self.assertRaises((BrokenPipeError, EOFError)):
            self.worker.pid()
        self.assertLess(time.monotonic() - start, AT_ONCE)
        wait_until(lambda: not os.path.exists(f'/proc/{copy}'), 'the copy is still there')

    def test_of_a_client_in_a_call(self):
        worker = self.manager.Worker()  # kept: a start hands the proxy over, not what it refers to
        client = self.context.Process(target=call_for_ever, args=(worker,))
        client.start()
        wait_until(lambda: self.worker.sleepers() == 1, 'the call has not come')
        client.kill()
        client.join(SECONDS)
        self.assertEqual(self.worker.echo('others are served'), 'others are served')

    def test_of_an_idle_client(self):
        before = self.worker.threads()
        client = self.context.Process(target=die_after_a_call, args=(self.worker,))
        client.start()
        client.join(SECONDS)
        self.assertEqual(client.exitcode, -signal.SIGKILL)
        wait_until(lambda: self.worker.threads() <= before, 'the thread of a dead client is left')


def die_after_a_call(worker):
    worker.echo(1)
    os.kill(os.getpid(), signal.SIGKILL)


class Forks(LineTest):
    def setUp(self):
        super().setUp()
        # Other tests leave a thread that serves descriptors; it holds no lock that matters here.
        stack = warnings.catch_warnings()
        stack.__enter__()
        self.addCleanup(stack.__exit__, None, None, None)
        warnings.simplefilter('ignore')

    def test_a_forked_child_gets_a_line_of_its_own(self):
        self.worker.echo(1)
        context = multiprocessing.get_context('fork')
        outcomes = context.SimpleQueue()
        child = context.Process(target=use_in_fork, args=(self.worker, outcomes))
        child.start()
        self.assertEqual(outcomes.get(), (False, 'forked', True))
        child.join(SECONDS)
        self.assertEqual(self.worker.echo('still there'), 'still there')

    def test_a_child_that_the_program_forked_itself_gets_a_line_of_its_own(self):
        self.worker.echo(1)
        pid = os.fork()
        if pid == 0:
            os._exit(7 if self.worker.echo('forked') == 'forked' else 8)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 7)
        self.assertEqual(self.worker.echo('still there'), 'still there')

    def test_a_line_is_of_no_use_in_a_forked_copy(self):
        self.worker.echo(1)
        line = self.line_of(self.worker)
        pid = os.fork()
        if pid == 0:
            try:
                line.exchange((None, 'get_methods', (), {}))
            except OSError as error:
                os._exit(7 if 'forked from' in str(error) else 8)
            os._exit(9)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 7)
        self.assertEqual(self.worker.echo('still there'), 'still there')


class Refusals(LineTest):
    def test_bad_addresses(self):
        for address, error in ((None, TypeError), ((), TypeError), ((1, 2), TypeError), (('a', 2, 3), TypeError),
                               ((1, 2, 3), ValueError), ((_pyhost.session_id(), 1, 2), ValueError),
                               ((_pyhost.session_id(), 3 << 56 | 77, 3 << 56 | 78), OSError)):
            with self.subTest(address), self.assertRaises(error):
                _pyhost.Line.attach(address)

    def test_bad_requests_in_a_session(self):
        self.worker.echo(1)
        line = self.line_of(self.worker)
        for request in ((None, '#LINE', ((1, 2, 3),), {}), (None, 'shutdown', (), {}), (None, '__init__', (), {}),
                        (None, 'decref', ('unknown',), {}), 'nonsense', None, (1, 2)):
            with self.subTest(request):
                kind, text = line.exchange(request)
                self.assertEqual(kind, '#TRACEBACK')
                self.assertIn('Traceback', text)
        self.assertEqual(self.worker.echo('healthy'), 'healthy')

    def test_use_after_close(self):
        line = _pyhost.Line()
        line.close()
        line.close()
        self.assertTrue(line.closed)
        for use in (line.recv, lambda: line.send(1), lambda: line.exchange(1)):
            with self.assertRaisesRegex(OSError, 'closed'):
                use()

    def test_a_closed_line_says_who_closed_it(self):
        line = _pyhost.Line()
        other = _pyhost.Line.attach(line.address)
        line.send('last words')
        line.close()
        self.assertEqual(other.recv(), 'last words')
        with self.assertRaisesRegex(EOFError, 'closed the line'):
            other.recv()
        with self.assertRaisesRegex(BrokenPipeError, 'closed the line'):
            other.send(1)

    def test_a_line_has_two_ends(self):
        line = _pyhost.Line()
        other = _pyhost.Line.attach(line.address)
        with self.assertRaises(ValueError):
            _pyhost.Line.attach(line.address)
        line.send(1)
        self.assertEqual(other.recv(), 1)


if __name__ == '__main__':
    unittest.main()
