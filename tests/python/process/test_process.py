"""Process objects.  Runs under pyhost and under python3, whose standard library is the oracle."""

import atexit
import fcntl
import gc
import importlib.metadata
import importlib.util
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
import weakref
from multiprocessing import connection

from script import SECONDS, UNDER_PYHOST


def send(conn, obj):
    conn.send(obj)


def describe_self(conn):
    me = multiprocessing.current_process()
    parent = multiprocessing.parent_process()
    conn.send({
        'name': me.name, 'pid': me.pid, 'real pid': os.getpid(), 'daemon': me.daemon, 'authkey': bytes(me.authkey),
        'alive': me.is_alive(), 'parent pid': parent.pid, 'parent name': parent.name, 'parent alive': parent.is_alive(),
        'method': multiprocessing.get_start_method(), 'children': multiprocessing.active_children(),
        'folder': os.getcwd(), 'argv': sys.argv, 'path': sys.path, 'stdin': sys.stdin.read(),
        'main thread': threading.main_thread().native_id, 'threads': threading.active_count(),
    })


def send_name(conn):
    conn.send(multiprocessing.current_process().name)


def call_with(conn, *args, **kwargs):
    conn.send((args, kwargs))


def exit_with(code):
    sys.exit(code)


def hold(path):
    """Until the end of the process."""
    file = os.open(path, os.O_WRONLY)
    fcntl.flock(file, fcntl.LOCK_EX)
    fcntl.lockf(file, fcntl.LOCK_EX)


def return_something():
    return 5


def raise_error():
    sys.stderr = open(os.devnull, 'w')
    raise ValueError('on purpose')


def say_on_stderr(code, conn):
    read, write = os.pipe()
    os.dup2(write, 2)
    sys.stderr = open(2, 'w', buffering=1, closefd=False)
    os.close(write)
    threading.Thread(target=lambda: conn.send(os.read(read, 1000).decode())).start()
    sys.exit(code)


def kill_self(signum):
    os.kill(os.getpid(), signum)
    time.sleep(SECONDS)


def become(*command):
    os.execv('/bin/sh', ['sh', '-c', *command])


def sleep_ready(conn):
    conn.send('ready')
    time.sleep(SECONDS)


def sleep_quietly(conn):
    sys.stderr = open(os.devnull, 'w')
    sleep_ready(conn)


def wait_for_word(conn):
    conn.recv()


def start_child_of_daemon(conn):
    try:
        multiprocessing.Process(target=return_something).start()
    except AssertionError as error:
        conn.send(str(error))


def start_grandchild(conn, depth):
    if depth:
        child = multiprocessing.Process(target=start_grandchild, args=(conn, depth - 1))
        child.start()
        child.join()
        conn.send((depth, child.exitcode, multiprocessing.current_process()._identity))
    sys.exit(depth)


def report_parents_end(conn):
    parent = multiprocessing.parent_process()
    conn.send((os.getpid(), parent.is_alive()))
    parent.join(SECONDS)
    conn.send(parent.is_alive())


def start_reporter(conn):
    multiprocessing.Process(target=report_parents_end, args=(conn,)).start()
    time.sleep(SECONDS)


def end_with_thread(conn):
    def speak():
        time.sleep(0.2)
        conn.send('the thread has ended')
    threading.Thread(target=speak).start()


def register_exit_function(conn):
    atexit.register(conn.send, 'at exit')


def send_random(conn):
    conn.send(random.random())


def send_numpy_random(conn):
    import numpy
    conn.send(float(numpy.random.random()))


class Shouter(multiprocessing.Process):
    """A subclass with a run() of its own."""

    def __init__(self, conn, text):
        super().__init__(name='the shouter')
        self.conn = conn
        self.text = text

    def run(self):
        self.conn.send(self.text.upper())


class Callable:
    """A target that is an object."""

    def __call__(self, conn):
        conn.send('called')


class Unpicklable:
    def __init__(self):
        self.callback = {'list': [1, threading.Lock()]}


class ProcessCases:
    method = None

    def setUp(self):
        self.context = multiprocessing.get_context(self.method)
        self.here, self.there = self.context.Pipe()
        self.addCleanup(self.here.close)
        self.addCleanup(self.there.close)

    def start(self, target, *args, **kwargs):
        child = self.context.Process(target=target, args=args, **kwargs)
        child.start()
        self.addCleanup(self.end, child)
        return child

    def end(self, child):
        if child._closed:
            return
        child.join(SECONDS)
        if child.is_alive():
            child.kill()
            child.join(SECONDS)
            self.fail(f'{child!r} had not ended')

    def receive(self):
        self.assertTrue(self.here.poll(SECONDS), 'the child says nothing')
        return self.here.recv()

    def finish(self, child):
        child.join(SECONDS)
        return child.exitcode

    # ---- How it ends ----

    def test_code_of_a_function_that_returns(self):
        self.assertEqual(0, self.finish(self.start(return_something)))

    def test_codes_of_sys_exit(self):
        for argument, code in ((0, 0), (7, 7), (255, 255), (None, 0), (True, 1), (False, 0)):
            with self.subTest(argument=argument):
                self.assertEqual(code, self.finish(self.start(exit_with, argument)))

    def test_code_is_cut_to_eight_bits(self):
        self.assertEqual(1, self.finish(self.start(exit_with, 257)))
        self.assertEqual(255, self.finish(self.start(exit_with, -1)))

    def test_text_of_sys_exit(self):
        child = self.start(say_on_stderr, 'a text', self.there)
        self.assertEqual('a text\n', self.receive())
        self.assertEqual(1, self.finish(child))

    def test_code_of_an_exception(self):
        self.assertEqual(1, self.finish(self.start(raise_error)))

    def test_signals(self):
        for signum in (signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGUSR1):
            with self.subTest(signal=signum):
                self.assertEqual(-signum, self.finish(self.start(kill_self, signum)))

    def test_terminate_and_kill(self):
        for end, signum in (('terminate', signal.SIGTERM), ('kill', signal.SIGKILL)):
            child = self.start(sleep_ready, self.there)
            self.receive()
            getattr(child, end)()
            self.assertEqual(-signum, self.finish(child))
            getattr(child, end)()  # is no error

    def test_end_of_a_program_that_the_child_becomes(self):
        for command, code in (('sleep 0.2', 0), ('sleep 0.2; exit 6', 6), ('sleep 0.2; kill -9 $$', -signal.SIGKILL)):
            with self.subTest(command=command):
                self.assertEqual(code, self.finish(self.start(become, command)))

    def test_program_that_the_child_becomes_lives_until_it_is_ended(self):
        read, write = os.pipe()
        child = self.start(become, f'echo > /proc/{os.getpid()}/fd/{write}; exec sleep {SECONDS}')
        os.read(read, 1)
        os.close(read)
        os.close(write)
        time.sleep(0.3)  # the supervisor learns of it
        self.assertTrue(child.is_alive())
        self.assertIsNone(child.exitcode)
        if UNDER_PYHOST:  # python3's sentinel may be a pipe that exec closes
            child.join(0.01)
            self.assertTrue(child.is_alive())
            self.assertEqual([], connection.wait([child.sentinel], 0))
        child.terminate()
        self.assertEqual(-signal.SIGTERM, self.finish(child))
        self.assertFalse(child.is_alive())

    @unittest.skipUnless(UNDER_PYHOST or sys.version_info >= (3, 14), 'new in Python 3.14')
    def test_interrupt(self):
        child = self.start(sleep_quietly, self.there)
        self.receive()
        child.interrupt()
        self.assertEqual(1, self.finish(child))

    def test_threads_are_waited_for(self):
        child = self.start(end_with_thread, self.there)
        self.assertEqual(0, self.finish(child))
        self.assertEqual('the thread has ended', self.receive())

    @unittest.skipUnless(UNDER_PYHOST or sys.version_info >= (3, 14), 'python3 does so for spawn alone')
    def test_exit_functions_run(self):
        child = self.start(register_exit_function, self.there)
        self.assertEqual('at exit', self.receive())
        self.assertEqual(0, self.finish(child))

    # ---- What the child is ----

    def test_name_may_be_any_text(self):
        for name in ('a\0b', '\ud800', 'ü' * 100, 'two\nlines'):
            with self.subTest(name=ascii(name)):
                child = self.start(send_name, self.there, name=name)
                self.assertEqual((name, 0), (self.receive(), self.finish(child)))

    def test_name_that_is_no_text(self):
        child = self.context.Process(target=send_name, args=(self.there,), name=5)
        self.assertEqual((5, True), (child.name, 'name=5' in repr(child)))
        if self.method == 'fork':
            child.start()
            self.assertEqual((5, 0), (self.receive(), self.finish(child)))

    def test_child_knows_itself_and_its_parent(self):
        child = self.start(describe_self, self.there, name='somebody')
        found = self.receive()
        self.assertEqual(0, self.finish(child))
        self.assertEqual('somebody', found['name'])
        self.assertEqual(child.pid, found['pid'])
        self.assertEqual(child.pid, found['real pid'])
        self.assertEqual(child.ident, child.pid)
        self.assertTrue(found['alive'])
        self.assertFalse(found['daemon'])
        self.assertEqual(bytes(multiprocessing.current_process().authkey), found['authkey'])
        self.assertEqual(os.getpid(), found['parent pid'])
        self.assertEqual(multiprocessing.current_process().name, found['parent name'])
        self.assertTrue(found['parent alive'])
        self.assertEqual(self.method, found['method'])
        self.assertEqual([], found['children'])
        self.assertEqual(child.pid, found['main thread'])
        self.assertEqual(1, found['threads'])

    def test_child_has_the_parents_surroundings(self):
        self.start(describe_self, self.there)
        found = self.receive()
        self.assertEqual(os.getcwd(), found['folder'])
        self.assertEqual(sys.argv, found['argv'])
        self.assertEqual(sys.path, found['path'])
        self.assertEqual('', found['stdin'])

    def test_arguments(self):
        self.start(call_with, self.there, 1, [2], kwargs={'three': {4}})
        self.assertEqual(((1, [2]), {'three': {4}}), self.receive())

    def test_arguments_may_be_a_list(self):
        child = self.context.Process(target=call_with, args=[self.there, 1])
        child.start()
        self.assertEqual(((1,), {}), self.receive())
        self.finish(child)

    def test_large_arguments(self):
        self.start(send, self.there, b'x' * 5_000_000)
        self.assertEqual(5_000_000, len(self.receive()))

    def test_callable_object_as_target(self):
        self.start(Callable(), self.there)
        self.assertEqual('called', self.receive())

    def test_names(self):
        child = self.context.Process()
        self.assertRegex(child.name, r'^\w*Process-\d+$')
        child.name = 'another'
        self.assertEqual('another', child.name)
        with self.assertRaises(AssertionError):
            child.name = 5

    def test_grandchildren(self):
        child = self.start(start_grandchild, self.there, 2)
        inner, outer = self.receive(), self.receive()
        self.assertEqual(2, self.finish(child))
        self.assertEqual((1, 0), inner[:2])
        self.assertEqual((2, 1), outer[:2])
        self.assertEqual(outer[2] + (1,), inner[2])

    def test_daemon_is_inherited_and_has_no_children(self):
        child = self.start(start_child_of_daemon, self.there, daemon=True)
        self.assertIn('daemonic processes are not allowed to have children', self.receive())
        self.finish(child)
        with self.assertRaises(AssertionError):
            child.daemon = False

    def test_standard_random_differs(self):
        self.assertEqual(2, len({self.random_of(send_random) for _ in range(2)}))

    def random_of(self, target):
        self.finish(self.start(target, self.there))
        return self.receive()

    # ---- Seen from the parent ----

    def test_life_of_a_process_object(self):
        child = self.context.Process(target=wait_for_word, args=(self.there,))
        self.assertFalse(child.is_alive())
        self.assertIsNone(child.pid)
        self.assertIsNone(child.exitcode)
        self.assertIn('initial', repr(child))
        with self.assertRaises(ValueError):
            child.sentinel
        with self.assertRaises(AssertionError):
            child.join()
        child.start()
        self.assertTrue(child.is_alive())
        self.assertIsNone(child.exitcode)
        self.assertIn(child, multiprocessing.active_children())
        self.assertIn('started', repr(child))
        with self.assertRaises(AssertionError):
            child.start()
        with self.assertRaisesRegex(ValueError, 'still running'):
            child.close()
        child.join(0)
        child.join(0.01)
        self.assertTrue(child.is_alive())
        self.here.send('end')
        child.join()
        self.assertEqual(0, child.exitcode)
        self.assertFalse(child.is_alive())
        self.assertNotIn(child, multiprocessing.active_children())
        self.assertIn('stopped exitcode=0>', repr(child))
        child.close()
        child.close()
        for use in (child.start, child.join, child.is_alive, child.terminate, child.kill):
            with self.assertRaisesRegex(ValueError, 'process object is closed'):
                use()
        with self.assertRaises(ValueError):
            child.exitcode
        self.assertIn('closed', repr(child))

    def test_repr_names_the_signal(self):
        child = self.start(kill_self, signal.SIGKILL)
        self.finish(child)
        self.assertRegex(repr(child), r"^<\w*Process name='\w+-[\d:]+' pid=\d+ parent=\d+ stopped exitcode=-SIGKILL")
        if UNDER_PYHOST:
            self.assertIn('(killed by SIGKILL', repr(child))

    def test_sentinel(self):
        child = self.start(wait_for_word, self.there)
        self.assertIsInstance(child.sentinel, int)
        self.assertEqual([], connection.wait([child.sentinel], 0))
        self.here.send('end')
        self.assertEqual([child.sentinel], connection.wait([child.sentinel], SECONDS))
        self.assertEqual(0, self.finish(child))

    def test_object_goes_when_nobody_wants_it(self):
        child = self.start(return_something)
        self.finish(child)
        self._cleanups = [item for item in self._cleanups if item[0] != self.end]
        ghost = weakref.ref(child)
        del child
        gc.collect()
        self.assertIsNone(ghost())

    def test_target_is_dropped_after_the_start(self):
        target = Callable()
        ghost = weakref.ref(target)
        child = self.start(target, self.there)
        del target
        self.receive()
        self.finish(child)
        gc.collect()
        self.assertIsNone(ghost())

    def test_many_at_once(self):
        children = [self.start(exit_with, number) for number in range(20)]
        self.assertEqual(list(range(20)), [self.finish(child) for child in children])
        self.assertRaises(ChildProcessError, os.waitpid, children[0].pid, os.WNOHANG)

    def test_what_it_held_is_free_when_it_was_joined(self):
        with tempfile.NamedTemporaryFile() as file:
            for _ in range(100):
                self.assertEqual(0, self.finish(self.start(hold, file.name)))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(file, fcntl.LOCK_UN)
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.lockf(file, fcntl.LOCK_UN)

    @unittest.skipUnless(UNDER_PYHOST, 'python3 loses the exit code to one of the threads')
    def test_concurrent_joins(self):
        child = self.start(wait_for_word, self.there)
        codes = []
        threads = [threading.Thread(target=lambda: (child.join(), codes.append(child.exitcode))) for _ in range(4)]
        for thread in threads:
            thread.start()
        self.here.send('end')
        for thread in threads:
            thread.join(SECONDS)
        self.assertEqual([0] * 4, codes)

    def test_join_is_interrupted_by_handlers(self):
        class Interrupted(Exception):
            pass

        def handler(signum, frame):
            raise Interrupted

        child = self.start(sleep_ready, self.there)
        self.receive()
        old = signal.signal(signal.SIGALRM, handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            self.assertRaises(Interrupted, child.join)
        finally:
            signal.signal(signal.SIGALRM, old)
        child.kill()
        self.finish(child)

    def test_parents_end_is_seen_and_survived(self):
        child = self.start(start_reporter, self.there)
        reporter, alive = self.receive()
        self.assertTrue(alive)
        child.kill()
        self.finish(child)
        self.assertFalse(self.receive())
        self.there.close()
        with self.assertRaises((EOFError, ConnectionResetError)):  # the reporter has ended, too
            self.here.recv()

    def test_subclass_with_run(self):
        child = Shouter(self.there, 'hello')
        with self.of_method():
            child.start()
        self.assertEqual('HELLO', self.receive())
        self.assertEqual('the shouter', child.name)
        self.assertEqual(0, self.finish(child))

    def of_method(self):
        return _StartMethod(self.method)


class _StartMethod:
    """multiprocessing.Process uses this start method in the body."""

    def __init__(self, method):
        self.method = method

    def __enter__(self):
        self.before = multiprocessing.get_start_method(allow_none=True)
        multiprocessing.set_start_method(self.method, force=True)

    def __exit__(self, *exception):
        multiprocessing.set_start_method(self.before, force=True)


class PicklingCases:
    """What a start does that has to pickle and cannot."""

    def test_unpicklable_argument(self):
        for args, way in (((1, Unpicklable()), r"args\[1\]\.callback\['list'\]\[1\]: "),
                          (({'a': threading.Lock()},), r"args\[0\]\['a'\]: ")):
            child = self.context.Process(target=return_something, args=args)
            with self.assertRaisesRegex(TypeError, (way if UNDER_PYHOST else '') + "cannot pickle '_thread.lock' object"):
                child.start()
            self.nothing_is_left(child)

    def test_lambda_and_local_function(self):
        def local():
            pass
        for target, name in ((lambda: None, 'the lambda at .*test_process.py:'),
                             (local, 'the local function .*<locals>.local')):
            child = self.context.Process(target=target)
            with self.assertRaises((AttributeError, __import__('pickle').PicklingError)) as caught:
                child.start()
            self.nothing_is_left(child)
            if UNDER_PYHOST:
                self.assertRegex(str(caught.exception), f'^target: .*{name}.*set_start_method\\("fork", force=True\\)')

    def nothing_is_left(self, child):
        self.assertIsNone(child.pid)
        self.assertNotIn(child, multiprocessing.active_children())
        self.assertEqual(0, self.finish(self.start(return_something)))


class SpawnTest(ProcessCases, PicklingCases, unittest.TestCase):
    method = 'spawn'


class ForkServerTest(ProcessCases, PicklingCases, unittest.TestCase):
    method = 'forkserver'


class ForkTest(ProcessCases, unittest.TestCase):
    method = 'fork'

    def test_numpy_is_derived(self):
        try:
            import numpy
        except ImportError:
            self.skipTest('needs numpy')
        numpy.random.seed(5)
        first, second = self.random_of(send_numpy_random), self.random_of(send_numpy_random)
        if not UNDER_PYHOST:
            self.assertEqual(first, second)  # what hurts
            return
        self.assertNotEqual(first, second)
        before = numpy.random.random()
        numpy.random.seed(5)
        self.assertEqual(before, numpy.random.random())

    def test_what_the_program_makes_of_numpy_in_a_fork_counts(self):
        script = textwrap.dedent('''
            import os, multiprocessing, warnings
            import numpy
            warnings.simplefilter('error')
            os.register_at_fork(after_in_child=lambda: numpy.random.seed(int(os.environ['SEED'])))
            def number(conn): conn.send(float(numpy.random.random()))
            context = multiprocessing.get_context('fork')
            for os.environ['SEED'] in '112':
                conn, end = context.Pipe()
                child = context.Process(target=number, args=(end,))
                child.start()
                print(conn.recv())
                child.join()
            numpy.random.set_bit_generator(numpy.random.PCG64(3))
            os.environ['SEED'] = ''  # fails in the child, and is told on stderr
            child = context.Process(target=number, args=(end,))
            child.start()
            print(conn.recv() == numpy.random.random())
            ''')
        try:
            import numpy
            numpy.random.set_bit_generator
        except (ImportError, AttributeError):
            self.skipTest('needs numpy 1.24')
        lines = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=True).stdout.split()
        self.assertEqual(4, len(lines))
        if UNDER_PYHOST:  # each child differs, and reseeding decides how
            self.assertEqual(3, len(set(lines[:3])))
        self.assertNotEqual(lines[1], lines[2])
        self.assertEqual('True', lines[3])  # a generator of the program's own is its own business

    def test_forks_in_the_middle_of_the_import_of_numpy(self):
        if importlib.util.find_spec('numpy') is None:
            self.skipTest('needs numpy')
        script = textwrap.dedent('''
            import importlib.util, multiprocessing, sys, threading, warnings
            warnings.simplefilter('ignore')
            entered, go = threading.Event(), threading.Event()
            class Slow:
                def find_spec(self, name, path=None, target=None):
                    return importlib.util.spec_from_loader(name, self) if name == sys.argv[1] else None
                def create_module(self, spec):
                    return None
                def exec_module(self, module):
                    entered.set()
                    go.wait()
            sys.meta_path.insert(0, Slow())
            thread = threading.Thread(target=__import__, args=('numpy.random',))
            thread.start()
            entered.wait()
            child = multiprocessing.get_context('fork').Process(target=print, args=('forked',))
            child.start()
            child.join()
            go.set()
            thread.join()
            ''')
        modules = ['numpy.random._pickle']
        if importlib.metadata.version('numpy').startswith('1.'):
            modules.append('numpy.ma')  # later numpy's import it when it is first used
        for module in modules:
            ended = subprocess.run([sys.executable, '-c', script, module], capture_output=True, text=True, timeout=SECONDS)
            self.assertEqual(ended.stdout, 'forked\n', ended)

    @unittest.skipUnless(UNDER_PYHOST, 'python3 derives nothing')
    def test_what_numpy_is_derived_from(self):
        try:
            import numpy
        except ImportError:
            self.skipTest('needs numpy')
        from multiprocessing.random_state import derive_numpy

        def derived(seed, drawn, identity):
            numpy.random.seed(seed)
            numpy.random.random(drawn)
            derive_numpy(identity)
            return numpy.random.random()
        variants = [(5, 0, (1,)), (6, 0, (1,)), (5, 1, (1,)), (5, 2, (1,)), (5, 400, (1,)), (5, 0, (2,)), (5, 0, (1, 1))]
        numbers = [derived(*variant) for variant in variants]
        self.assertEqual(len(variants), len(set(numbers)))
        self.assertEqual(numbers, [derived(*variant) for variant in variants])


class AuthenticationStringTest(unittest.TestCase):
    def test_is_not_pickled(self):
        import pickle
        with self.assertRaises(TypeError):
            pickle.dumps(multiprocessing.current_process().authkey)


if __name__ == '__main__':
    unittest.main()
