"""Managers and proxies.  Runs under pyhost and under python3, whose standard library is the oracle."""

import collections.abc
import contextlib
import copy
import gc
import multiprocessing
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import unittest
from multiprocessing import AuthenticationError, ProcessError, managers
from multiprocessing.managers import BaseManager, RemoteError, SharedMemoryManager, SyncManager

UNDER_PYHOST = 'pyhost' in os.path.basename(sys.executable)
AS_IN_3_14 = UNDER_PYHOST or sys.version_info >= (3, 14)
SECONDS = 30
STOCK_PYTHON = '/usr/bin/python3'
KEY = b'a key for tests'


class Counter:
    def __init__(self, start=0):
        self.value = start

    def add(self, amount=1):
        self.value += amount
        return self.value

    def fail(self):
        raise KeyError('no such thing')

    def fail_badly(self):
        raise Unkind(1, 2)

    def unpicklable(self):
        return lambda: None

    def wait(self, seconds):
        time.sleep(seconds)
        return 'waited'

    def die(self):
        os._exit(9)

    def child(self):
        return Counter(self.value)

    def _hidden(self):
        return 'hidden'


class Unkind(Exception):
    """Pickles, but does not unpickle."""

    def __init__(self, first, second):
        super().__init__('only one')


class CounterManager(BaseManager):
    pass


CounterManager.register('Counter', Counter)
CounterManager.register('Parent', Counter, method_to_typeid={'child': 'Child'})
CounterManager.register('Child', create_method=False)
CounterManager.register('Hidden', Counter, exposed=('_hidden',))


class Managed(unittest.TestCase):
    manager_class = SyncManager

    def setUp(self):
        self.manager = self.manager_class(ctx=multiprocessing.get_context('spawn'))
        self.manager.start()
        self.addCleanup(self.manager.shutdown)

    def run_in_child(self, function, *args):
        process = multiprocessing.get_context('spawn').Process(target=function, args=args)
        process.start()
        process.join(SECONDS)
        self.assertEqual(process.exitcode, 0)

    def assert_objects(self, number):
        """The server's count goes down with finalizers of other processes, too: allow for that."""
        deadline = time.monotonic() + SECONDS
        while self.manager._number_of_objects() != number and time.monotonic() < deadline:
            gc.collect()
        self.assertEqual(self.manager._number_of_objects(), number, self.manager._debug_info())


def change_all(numbers, words, letters):
    numbers.append(4)
    words['four'] = 4
    assert sorted(letters) == ['a', 'b']
    letters.add('c')


def iterate(words):
    assert sorted(word for word in words) == ['one', 'two']


class Containers(Managed):
    def test_list(self):
        numbers = self.manager.list([3, 1, 2])
        numbers.sort()
        numbers += [4]
        numbers *= 2
        self.assertEqual(numbers[:], [1, 2, 3, 4] * 2)
        self.assertEqual(numbers + [5], [1, 2, 3, 4] * 2 + [5])
        self.assertEqual(2 * numbers, [1, 2, 3, 4] * 4)
        del numbers[1:]
        self.assertEqual(list(numbers), [1])
        self.assertEqual(list(reversed(numbers)), [1])
        self.assertIsInstance(numbers, managers.ListProxy)
        self.assertEqual(str(numbers), '[1]')
        self.assertEqual(copy.deepcopy(numbers), [1])
        with self.assertRaises(IndexError):
            numbers[5]
        with self.assertRaises(ValueError):
            numbers.remove(7)

    @unittest.skipUnless(AS_IN_3_14, 'new in 3.14')
    def test_list_of_3_14(self):
        numbers = self.manager.list([1, 2])
        self.assertEqual(numbers.copy(), [1, 2])
        numbers.clear()
        self.assertEqual(len(numbers), 0)

    def test_dict(self):
        words = self.manager.dict(one=1)
        words.update(two=2)
        self.assertEqual(sorted(words), ['one', 'two'])
        self.assertEqual(words.setdefault('three', 3), 3)
        self.assertEqual(words.pop('one'), 1)
        self.assertEqual(words.items(), [('two', 2), ('three', 3)])
        self.assertEqual(words.copy(), {'two': 2, 'three': 3})
        with self.assertRaises(KeyError):
            words['none']

    @unittest.skipUnless(AS_IN_3_14, 'new in 3.14')
    def test_dict_of_3_14(self):
        words = self.manager.dict(one=1)
        same = words
        words |= {'two': 2}
        self.assertIs(words, same)
        self.assertEqual(words | {'three': 3}, {'one': 1, 'two': 2, 'three': 3})
        self.assertEqual({'zero': 0} | words, {'zero': 0, 'one': 1, 'two': 2})
        self.assertEqual(list(reversed(words)), ['two', 'one'])
        self.assertEqual(words.fromkeys('ab', 0), {'a': 0, 'b': 0})

    @unittest.skipUnless(AS_IN_3_14, 'new in 3.14')
    def test_set_of_3_14(self):
        letters = same = self.manager.set('abc')
        self.assertIsInstance(letters, managers.SetProxy)
        self.assertIn('a', letters)
        self.assertEqual(sorted(letters), ['a', 'b', 'c'])
        letters |= {'d'}
        letters &= set('abd')
        letters -= {'a'}
        letters ^= {'x'}
        self.assertIs(letters, same)
        self.assertEqual(letters._getvalue(), set('bdx'))
        self.assertEqual(letters | {'y'}, set('bdxy'))
        self.assertEqual({'b', 'c'} & letters, {'b'})
        self.assertEqual({'b', 'c'} - letters, {'c'})
        self.assertTrue(letters >= {'b'})
        self.assertFalse(letters < {'b'})
        self.assertTrue(letters.isdisjoint({'c'}))
        letters.discard('none')
        with self.assertRaises(KeyError):
            letters.remove('none')
        letters.clear()
        self.assertEqual(len(letters), 0)

    def test_other_types(self):
        value = self.manager.Value('i', 3)
        value.value += 1
        self.assertEqual((value.value, value.get()), (4, 4))
        array = self.manager.Array('i', [1, 2])
        array[1] = 5
        self.assertEqual((len(array), list(array)), (2, [1, 5]))
        space = self.manager.Namespace(x=1)
        space.y = 2
        space._own = 'in this process'
        del space.x
        self.assertEqual(str(space), 'Namespace(y=2)')
        with self.assertRaises(AttributeError):
            space.x
        barrier = self.manager.Barrier(1)
        self.assertEqual((barrier.wait(1), barrier.parties, barrier.broken), (0, 1, False))
        event = self.manager.Event()
        self.assertFalse(event.wait(0.01))
        event.set()
        self.assertTrue(event.is_set())
        items = self.manager.Queue(1)
        items.put(1)
        with self.assertRaises(queue.Full):
            items.put_nowait(2)
        self.assertEqual(items.get(), 1)
        with self.assertRaises(queue.Empty):
            items.get(timeout=0.01)

    def test_locks(self):
        for kind in ('Lock', 'RLock', 'Semaphore', 'BoundedSemaphore', 'Condition'):
            lock = getattr(self.manager, kind)()
            with self.subTest(kind=kind), lock:
                pass
        condition = self.manager.Condition()
        with condition:
            self.assertFalse(condition.wait_for(lambda: False, 0.05))
            self.assertEqual(condition.wait_for(lambda: 'now'), 'now')
            condition.notify_all()
        with self.assertRaises(RuntimeError):
            self.manager.Lock().release()

    def test_an_rlock_belongs_to_a_thread(self):
        lock = self.manager.RLock()
        self.assertEqual([lock.acquire(), lock.acquire(), lock.release(), lock.release()], [True, True, None, None])
        self.assertEqual([type(result) for result in (lock.acquire(), lock.acquire(False))], [bool, bool])
        lock.release()
        lock.release()
        others = []
        with lock, lock:
            thread = threading.Thread(target=lambda: others.append(lock.acquire(False)))
            thread.start()
            thread.join(SECONDS)
        self.assertEqual(others, [False])

    @unittest.skipUnless(AS_IN_3_14, 'new in 3.14')
    def test_abstract_types(self):
        self.assertIsInstance(self.manager.list(), collections.abc.MutableSequence)
        self.assertIsInstance(self.manager.dict(), collections.abc.MutableMapping)

    @unittest.skipUnless(AS_IN_3_14, 'new in 3.14')
    def test_locked(self):
        for kind in ('Lock', 'RLock', 'Condition'):
            lock = getattr(self.manager, kind)()
            with self.subTest(kind=kind):
                self.assertFalse(lock.locked())
                with lock:
                    self.assertTrue(lock.locked())
                self.assertFalse(lock.locked())

    def test_pool(self):
        with self.manager.Pool(2) as pool:
            self.assertEqual(pool.map(abs, [-1, -2]), [1, 2])
            self.assertEqual(pool.apply_async(abs, (-3,)).get(SECONDS), 3)
            self.assertEqual(list(pool.imap(abs, [-4, -5])), [4, 5])

    @unittest.skipUnless(AS_IN_3_14, 'new in 3.14')
    def test_in_a_child(self):
        numbers, words, letters = self.manager.list([1]), self.manager.dict(), self.manager.set('ab')
        self.run_in_child(change_all, numbers, words, letters)
        self.assertEqual((numbers[:], words.copy(), letters.copy()), ([1, 4], {'four': 4}, set('abc')))

    @unittest.skipUnless(UNDER_PYHOST, "AttributeError: 'NoneType' object has no attribute '_registry'")
    def test_iteration_in_a_child(self):
        self.run_in_child(iterate, self.manager.dict(one=1, two=2))


def grow(outer):
    outer[0].append('from the child')


class Inside:
    """Tells how many objects the server keeps for proxies inside other objects."""

    def count(self):
        return len(multiprocessing.current_process()._manager_server.id_to_local_proxy_obj)


class InsideManager(SyncManager):
    pass


InsideManager.register('Inside', Inside)


class References(Managed):
    manager_class = InsideManager

    def test_objects_go_with_their_last_proxy(self):
        numbers = self.manager.list()
        again = pickle.loads(pickle.dumps(numbers))
        self.assertEqual(self.manager._number_of_objects(), 1)
        del numbers
        again.append(1)
        self.assertEqual(again[:], [1])
        del again
        self.assert_objects(0)

    def test_nested_proxies(self):
        inner = self.manager.list([1])
        outer = self.manager.list([inner, self.manager.dict(a=1)])
        del inner
        self.assertIsInstance(outer[0], managers.ListProxy)
        self.assertEqual(outer[1]['a'], 1)
        outer[0].append(2)
        self.run_in_child(grow, outer)
        self.assertEqual(outer[0][:], [1, 2, 'from the child'])
        taken = outer.pop(0)
        del outer
        self.assertEqual(taken[:], [1, 2, 'from the child'])
        del taken
        self.assert_objects(0)

    @unittest.skipUnless(UNDER_PYHOST, 'the standard library keeps what was once inside another object')
    def test_the_server_forgets_what_was_inside_another_object(self):
        outer = self.manager.list()
        inside = self.manager.Inside()
        for number in range(20):
            outer.append(self.manager.list([number]))
        self.assertEqual(inside.count(), 20)
        while outer:
            outer.pop()
        outer.append(1)  # The server keeps the last reply until the next call.
        self.assertEqual(inside.count(), 0)

    def test_many_threads(self):
        numbers = self.manager.list()
        def append():
            for number in range(50):
                numbers.append(number)
        threads = [threading.Thread(target=append) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        self.assertEqual(sorted(numbers[:]), sorted(list(range(50)) * 4))


class Calls(Managed):
    manager_class = CounterManager

    def test_exposed_methods(self):
        counter = self.manager.Counter(5)
        self.assertEqual(counter.add(amount=2), 7)
        self.assertFalse(hasattr(counter, '_hidden'))
        with self.assertRaises(RemoteError):
            counter._callmethod('_hidden')
        hidden = self.manager.Hidden()
        self.assertEqual(hidden._hidden(), 'hidden')
        with self.assertRaises(RemoteError):
            hidden._callmethod('add')

    def test_results_that_stay_in_the_server(self):
        child = self.manager.Parent(3).child()
        self.assertEqual(child.add(), 4)
        self.assertIn('AutoProxy[Child]', repr(child))

    def test_errors_of_methods(self):
        counter = self.manager.Counter()
        with self.assertRaises(KeyError) as caught:
            counter.fail()
        self.assertEqual(caught.exception.args, ('no such thing',))
        if UNDER_PYHOST:
            text = ''.join(traceback.format_exception(caught.exception))
            self.assertIn("raise KeyError('no such thing')", text)

    def test_exceptions_that_do_not_unpickle(self):
        counter = self.manager.Counter()
        with self.assertRaises(RemoteError if UNDER_PYHOST else TypeError) as caught:
            counter.fail_badly()
        if UNDER_PYHOST:
            self.assertIn('raise Unkind(1, 2)', str(caught.exception))
        self.assertEqual(counter.add(), 1)

    def test_results_that_do_not_pickle(self):
        counter = self.manager.Counter()
        with self.assertRaises(RemoteError) as caught:
            counter.unpicklable()
        self.assertIn('lambda', str(caught.exception))
        self.assertEqual(counter.add(), 1)

    def test_arguments_that_do_not_pickle(self):
        counter = self.manager.Counter()
        with self.assertRaises((pickle.PicklingError, AttributeError)):
            counter.add(lambda: None)
        self.assertEqual(counter.add(), 1)

    def test_wrong_arguments(self):
        with self.assertRaises(RemoteError):
            self.manager.Counter(1, 2, 3)
        with self.assertRaises(TypeError):
            self.manager.Counter().add(1, 2)

    @unittest.skipUnless(UNDER_PYHOST, 'in the standard library the next call gets the reply to the interrupted one')
    def test_interrupted_call_does_not_leave_its_reply_to_the_next(self):
        class Interrupt(Exception):
            pass
        def interrupt(signum, frame):
            raise Interrupt
        old = signal.signal(signal.SIGALRM, interrupt)
        self.addCleanup(signal.signal, signal.SIGALRM, old)
        counter = self.manager.Counter()
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with self.assertRaises(Interrupt):
            counter.wait(0.5)
        self.assertEqual(counter.add(), 1)

    def test_dead_server(self):
        counter = self.manager.Counter()
        with self.assertRaises((EOFError, OSError)):
            counter.die()
        self.manager._process.join(SECONDS)
        with self.assertRaises((EOFError, OSError)):
            counter.add()
        self.manager.shutdown()


class Lives(unittest.TestCase):
    """Start and end of servers."""

    def manager(self, **kwds):
        return CounterManager(ctx=multiprocessing.get_context('spawn'), **kwds)

    def test_states(self):
        manager = self.manager()
        with self.assertRaises(AssertionError):
            manager.Counter()
        manager.start()
        for again in (manager.start, manager.get_server):
            with self.assertRaisesRegex(ProcessError, 'Already started'):
                again()
        with manager:
            self.assertEqual(manager.Counter().add(), 1)
        self.assertEqual(manager._process.exitcode, 0)
        for again in (manager.start, manager.get_server, manager.__enter__):
            with self.assertRaisesRegex(ProcessError, 'shut down'):
                again()
        with self.assertRaises(AssertionError if UNDER_PYHOST else Exception):
            manager.Counter()
        manager.shutdown()

    def test_connecting_to_what_is_started(self):
        with self.manager() as manager:
            manager.connect()
            self.assertEqual(manager.Counter().add(), 1)

    def test_initializer(self):
        with self.assertRaises(TypeError):
            self.manager().start(initializer=3)
        manager = self.manager()
        manager.start(os.putenv, ('NAME', 'value'))
        self.addCleanup(manager.shutdown)
        self.assertEqual(manager.Counter().add(), 1)

    @unittest.skipUnless(UNDER_PYHOST, 'EOFError in the standard library')
    def test_server_that_cannot_listen(self):
        with socket.create_server(('127.0.0.1', 0)) as taken:
            manager = self.manager(address=taken.getsockname())
            with self.assertRaises(OSError) as caught:
                manager.start()
        self.assertIn(str(taken.getsockname()[1]) if taken.fileno() >= 0 else "'127.0.0.1'", str(caught.exception))

    @unittest.skipUnless(UNDER_PYHOST, 'an empty EOFError in the standard library')
    def test_server_that_dies_at_its_start(self):
        with self.assertRaisesRegex(EOFError, 'exit code 7'):
            self.manager().start(os._exit, (7,))

    def test_serving_in_this_process(self):
        server = CounterManager(('127.0.0.1', 0), KEY).get_server()
        ended = []
        def serve():
            try:
                server.serve_forever()
            except SystemExit as end:
                ended.append(end.code)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with self.assertRaises(AuthenticationError):
            CounterManager(server.address, b'a wrong key').connect()
        client = CounterManager(server.address, KEY)
        client.connect()
        self.assertEqual(client.Counter(1).add(), 2)
        conn = client._Client(server.address, authkey=KEY)
        managers.dispatch(conn, None, 'shutdown')
        thread.join(SECONDS)
        self.assertEqual(ended, [0])
        del multiprocessing.current_process()._manager_server

    @unittest.skipUnless(UNDER_PYHOST, 'in the standard library nobody else is served before the silent peer speaks')
    def test_silent_and_babbling_peers_keep_nobody_waiting(self):
        with self.manager(address=('127.0.0.1', 0)) as manager, contextlib.ExitStack() as stack:
            peers = [stack.enter_context(socket.create_connection(manager.address)) for _ in range(20)]
            for number, peer in enumerate(peers):
                if number % 2:
                    peer.sendall(os.urandom(300))
            start = time.monotonic()
            self.assertEqual(manager.Counter().add(), 1)
            self.assertLess(time.monotonic() - start, 5)

    def test_unknown_requests(self):
        with self.manager() as manager:
            for request in ((None, '__init__', (), {}), (None, 'create', ('Nonsense',), {}), 'nonsense', None):
                conn = manager._Client(manager.address, authkey=manager._authkey)
                conn.send(request)
                kind, text = conn.recv()
                self.assertEqual(kind, '#TRACEBACK')
                self.assertIn('Traceback', text)
                conn.close()
            self.assertEqual(manager.Counter().add(), 1)

    def test_registered_types_must_be_named_by_text(self):
        class Local(BaseManager):
            pass
        with self.assertRaises(AssertionError):
            Local.register('x', Counter, method_to_typeid={'child': 3})
        self.assertNotIn('Counter', Local._registry)


class RemotePeers(unittest.TestCase):
    """Another program at the other end of a remote manager: the standard library's, and our own."""

    PROGRAM_CLIENT = '''
import sys
from multiprocessing import current_process
from multiprocessing.managers import SyncManager
current_process().authkey = sys.argv[3].encode()  # For proxies inside other objects.
manager = SyncManager((sys.argv[1], int(sys.argv[2])), sys.argv[3].encode())
manager.connect()
words = manager.dict(a=1)
words['b'] = manager.list([1, 2])
words['b'].append(3)
print(sorted(words.keys()), words['b'][:])
numbers = manager.list([5])
try:
    numbers[9]
except IndexError as error:
    print(error)
'''

    PROGRAM_SERVER = '''
import sys, threading
from multiprocessing import current_process
from multiprocessing.managers import SyncManager
current_process().authkey = sys.argv[1].encode()
server = SyncManager(("127.0.0.1", 0), sys.argv[1].encode()).get_server()
print(server.address[1], flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), server.stop_event.set()), daemon=True).start()
server.serve_forever()
'''

    def setUp(self):
        current = multiprocessing.current_process()
        self.addCleanup(setattr, current, 'authkey', current.authkey)
        current.authkey = KEY  # For proxies inside other objects.

    def program(self, python, program, *arguments):
        process = subprocess.Popen([python, '-I', '-c', program, *map(str, arguments)], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.communicate)
        return process

    def test_two_programs_that_have_started_nothing(self):
        server = self.program(sys.executable, self.PROGRAM_SERVER, KEY.decode())
        client = self.program(sys.executable, self.PROGRAM_CLIENT, '127.0.0.1', int(server.stdout.readline()), KEY.decode())
        output, errors = client.communicate(timeout=SECONDS)
        self.assertEqual((errors, output), ('', "['a', 'b'] [1, 2, 3]\nlist index out of range\n"))
        _, errors = server.communicate(timeout=SECONDS)
        self.assertEqual((server.returncode, errors), (0, ''))

    def test_stock_client(self):
        with SyncManager(('127.0.0.1', 0), KEY, ctx=multiprocessing.get_context('spawn')) as manager:
            client = self.program(STOCK_PYTHON, self.PROGRAM_CLIENT, *manager.address, KEY.decode())
            output, errors = client.communicate(timeout=SECONDS)
        self.assertEqual((errors, output), ('', "['a', 'b'] [1, 2, 3]\nlist index out of range\n"))

    def test_stock_server(self):
        server = self.program(STOCK_PYTHON, self.PROGRAM_SERVER, KEY.decode())
        manager = SyncManager(('127.0.0.1', int(server.stdout.readline())), KEY)
        manager.connect()
        words = manager.dict(a=1)
        words['b'] = manager.list([1, 2])
        words['b'].append(3)
        self.assertEqual((sorted(words), words['b'][:]), (['a', 'b'], [1, 2, 3]))
        with self.assertRaises(IndexError):
            manager.list()[0]
        lock = manager.RLock()
        with lock:
            pass
        del words, lock
        gc.collect()
        _, errors = server.communicate(timeout=SECONDS)
        self.assertEqual((server.returncode, errors), (0, ''))


class SharedMemory(unittest.TestCase):
    def test_blocks_go_with_the_manager(self):
        with SharedMemoryManager(ctx=multiprocessing.get_context('spawn')) as manager:
            block = manager.SharedMemory(size=100)
            numbers = manager.ShareableList([1, 2, 'three'])
            block.buf[:3] = b'abc'
            self.assertEqual(list(numbers), [1, 2, 'three'])
            names = [block.name, numbers.shm.name]
            for name in names:
                self.assertTrue(os.path.exists('/dev/shm/' + name))
        for name in names:
            self.assertFalse(os.path.exists('/dev/shm/' + name))
        block.close()
        numbers.shm.close()

    def test_a_failing_server_leaves_no_block(self):
        manager = SharedMemoryManager(ctx=multiprocessing.get_context('spawn'))
        manager.start()
        before = set(os.listdir('/dev/shm'))
        manager._process.kill()
        manager._process.join(SECONDS)
        with self.assertRaises(OSError):
            manager.SharedMemory(size=100)
        self.assertEqual({name for name in set(os.listdir('/dev/shm')) - before if name.startswith('psm_')}, set())
        manager.shutdown()


if __name__ == '__main__':
    unittest.main()
