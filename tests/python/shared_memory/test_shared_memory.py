"""Shared memory by name.  Runs under pyhost and under python3, whose standard library is the oracle."""

import multiprocessing
import os
import pickle
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from multiprocessing import resource_tracker, shared_memory
from multiprocessing.shared_memory import ShareableList, SharedMemory

UNDER_PYHOST = 'pyhost' in os.path.basename(sys.executable)
HAS_TRACK = UNDER_PYHOST or sys.version_info >= (3, 13)
SECONDS = 30
STOCK_PYTHON = '/usr/bin/python3'


def path_of(block):
    return '/dev/shm/' + block.name


def run(program, *arguments, python=sys.executable):
    """Runs a program to its end, in a session of its own; returns (exit code, output, errors)."""
    done = subprocess.run([python, '-c', program, *map(str, arguments)], capture_output=True, text=True,
                          timeout=SECONDS)
    return done.returncode, done.stdout, done.stderr


class BlockCase(unittest.TestCase):
    def create(self, size=100, **kwds):
        block = SharedMemory(create=True, size=size, **kwds)
        self.addCleanup(self.remove, block)
        return block

    @staticmethod
    def remove(block):
        block.close()
        if os.path.exists(path_of(block)):
            block.unlink()

    def assert_vanishes(self, path):
        deadline = time.monotonic() + SECONDS
        while os.path.exists(path) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertFalse(os.path.exists(path))


class Blocks(BlockCase):
    def test_contents_are_shared(self):
        block = self.create(100)
        self.assertEqual(bytes(block.buf), bytes(100))
        other = SharedMemory(block.name)
        block.buf[:3] = b'abc'
        self.assertEqual((bytes(other.buf[:3]), other.size, other.name), (b'abc', 100, block.name))
        other.close()

    def test_name_and_size(self):
        block = self.create(5)
        self.assertRegex(block._name, '^/psm_[0-9a-f]+$')
        self.assertEqual(block.size, 5)
        named = self.create(5, name=f'pyhost-test-{os.getpid()}')
        self.assertEqual(named.name, f'pyhost-test-{os.getpid()}')
        self.assertIn(named.name, repr(named))
        with self.assertRaises(FileExistsError):
            SharedMemory(named.name, create=True, size=5)
        self.assertTrue(os.path.exists(path_of(named)))

    def test_closing_and_removing(self):
        block = self.create()
        block.close()
        block.close()
        self.assertIsNone(block.buf)
        other = SharedMemory(block.name)
        block.unlink()
        other.buf[0] = 7  # The memory stays for those that have it.
        other.close()
        with self.assertRaises(FileNotFoundError):
            SharedMemory(block.name)
        with self.assertRaises(FileNotFoundError):
            block.unlink()

    def test_views_in_use(self):
        block = self.create()
        view = block.buf[1:]
        with self.assertRaises(BufferError):
            block.close()
        view.release()
        block.close()

    def test_wrong_arguments(self):
        for arguments in ((None, True, 0), (None, True, -1), (None, False), (None, False, -1)):
            with self.assertRaises(ValueError):
                SharedMemory(*arguments)
        for arguments in (('x', True, 'big'), (3,)):
            with self.assertRaises(TypeError):
                SharedMemory(*arguments)
        with self.assertRaises(FileNotFoundError):
            SharedMemory('pyhost-no-such-block')

    def test_pickling(self):
        block = self.create()
        block.buf[0] = 9
        copy = pickle.loads(pickle.dumps(block))
        self.assertEqual((copy.buf[0], copy.name, copy.size), (9, block.name, 100))
        copy.close()

    def test_between_processes(self):
        block = self.create()
        process = multiprocessing.get_context('spawn').Process(target=write_byte, args=(block, block.name))
        process.start()
        process.join(SECONDS)
        self.assertEqual((process.exitcode, block.buf[0], block.buf[1]), (0, 1, 2))

    def test_another_program_attaches_by_name(self):
        block = self.create(16)
        program = ('import sys; from multiprocessing import resource_tracker, shared_memory as s;'
                   'b = s.SharedMemory(sys.argv[1]); b.buf[0] = 5; b.close();'
                   'resource_tracker.unregister(b._name, "shared_memory")')
        self.assertEqual(run(program, block.name, python=STOCK_PYTHON), (0, '', ''))
        self.assertEqual(block.buf[0], 5)
        with open(path_of(block), 'r+b') as file:
            file.write(b'\7')
        self.assertEqual(block.buf[0], 7)

    @unittest.skipUnless(UNDER_PYHOST, 'left behind by the standard library')
    def test_names_of_all_kinds(self):
        for name in ('with:colons', 'with\nlines', 'ünïcode', 'register:x:noop'):
            program = ('import sys; from multiprocessing.shared_memory import *;'
                       'SharedMemory(sys.argv[1], create=True, size=1)')
            with self.subTest(name=name):
                _, _, errors = run(program, name)
                self.assertFalse(os.path.exists('/dev/shm/' + name))
                self.assertIn('1 leaked shared_memory objects', errors)
                self.assertNotIn('Traceback', errors)
        with self.assertRaises((ValueError, OSError)):
            SharedMemory('x' * 500, create=True, size=1)
        self.assertFalse(os.path.exists('/dev/shm/' + 'x' * 500))

    @unittest.skipUnless(UNDER_PYHOST, 'SIGBUS at the first access in the standard library')
    def test_more_than_there_is(self):
        before = set(os.listdir('/dev/shm'))
        # Nothing that only fails half-way: other programs need the memory meanwhile.
        for size in (1 << 50, 1 << 62):
            with self.assertRaisesRegex(MemoryError, f'cannot allocate {size} bytes, at most [0-9]+: '):
                SharedMemory(create=True, size=size)
            with self.assertRaises(MemoryError):
                SharedMemory(f'pyhost-test-{os.getpid()}', create=True, size=size)
        self.assertEqual(set(os.listdir('/dev/shm')) - before, set())

    @unittest.skipUnless(UNDER_PYHOST, 'the standard library allocates with the first access')
    def test_memory_is_there_from_the_start(self):
        block = self.create(10 << 20)
        self.assertGreaterEqual(os.stat(path_of(block)).st_blocks * 512, 10 << 20)


def write_byte(block, name):
    block.buf[0] = 1
    other = SharedMemory(name)
    other.buf[1] = 2
    other.close()
    block.close()


CREATE_AND = '''
import os, signal, sys, time
from multiprocessing.shared_memory import SharedMemory
block = SharedMemory(create=True, size=10{arguments})
print(block.name, flush=True)
{end}
'''


class WhatIsLeftBehind(BlockCase):
    def test_nothing_after_a_killed_creator(self):
        code, output, errors = run(CREATE_AND.format(arguments='', end='os.kill(os.getpid(), signal.SIGKILL)'))
        self.assertEqual(code, -signal.SIGKILL)
        self.assert_vanishes('/dev/shm/' + output.strip())
        self.assertIn('leaked shared_memory objects to clean up at shutdown', errors)

    def test_nothing_after_the_death_of_all_processes(self):
        program = '''
import multiprocessing, os, signal, sys
from multiprocessing.shared_memory import SharedMemory
def create(pipe):
    block = SharedMemory(create=True, size=10)
    pipe.send((os.getpid(), block.name))
    signal.pause()
if __name__ == '__main__':
    block = SharedMemory(create=True, size=10)
    print(os.getpid(), block.name)
    context = multiprocessing.get_context('spawn')
    for _ in range(3):
        ours, theirs = multiprocessing.Pipe()
        context.Process(target=create, args=(theirs,), daemon=True).start()
        print(*ours.recv())
    sys.stdout.flush()
    signal.pause()
'''
        script = tempfile.NamedTemporaryFile('w', suffix='.py')
        self.enterContext(script).write(program)
        script.flush()
        with subprocess.Popen([sys.executable, script.name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True) as root:
            hosts = [root.stdout.readline().split() for _ in range(4)]
            for pid, _ in hosts:
                os.kill(int(pid), signal.SIGKILL)
        for _, name in hosts:
            self.assert_vanishes('/dev/shm/' + name)

    def test_nothing_and_a_warning_after_a_forgetful_creator(self):
        code, output, errors = run(CREATE_AND.format(arguments='', end='block.close()'))
        self.assertEqual(code, 0)
        self.assert_vanishes('/dev/shm/' + output.strip())
        self.assertIn('There appear to be 1 leaked shared_memory objects', errors)

    def test_no_warning_after_a_tidy_creator(self):
        code, output, errors = run(CREATE_AND.format(arguments='', end='block.close(); block.unlink()'))
        self.assertEqual((code, errors), (0, ''))

    def test_programs_that_replace_register_have_nothing_tracked(self):
        untracked = 'block.close(); resource_tracker.unregister = lambda *args: None'
        program = 'from multiprocessing import resource_tracker; resource_tracker.register = lambda *args: None; '
        code, output, errors = run(program + CREATE_AND.format(arguments='', end=untracked))
        self.assertEqual((code, errors), (0, ''))
        block = SharedMemory(output.strip())
        block.close()
        block.unlink()

    @unittest.skipUnless(HAS_TRACK, 'new in 3.13')
    def test_an_untracked_block_stays(self):
        code, output, errors = run(CREATE_AND.format(arguments=', track=False', end=''))
        self.assertEqual((code, errors), (0, ''))
        block = SharedMemory(output.strip(), track=False)
        block.close()
        block.unlink()

    @unittest.skipUnless(HAS_TRACK, 'new in 3.13')
    def test_attaching_untracked_from_another_program(self):
        block = self.create()
        program = 'import sys; from multiprocessing.shared_memory import *; SharedMemory(sys.argv[1], track=False)'
        self.assertEqual(run(program, block.name), (0, '', ''))
        SharedMemory(block.name).close()

    def test_a_block_outlives_its_creator_within_the_session(self):
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context('spawn').Process(target=create_and_end, args=(theirs,))
        process.start()
        name = ours.recv()
        process.join(SECONDS)
        self.assertEqual(process.exitcode, 0)
        block = SharedMemory(name)
        self.addCleanup(self.remove, block)
        self.assertEqual(bytes(block.buf[:5]), b'hello')

    @unittest.skipUnless(UNDER_PYHOST, 'two trackers in the standard library if the child comes first')
    def test_a_child_that_starts_the_tracker_keeps_it_for_the_session(self):
        program = '''
import multiprocessing, os, sys, time
from multiprocessing.shared_memory import SharedMemory
def create(pipe):
    block = SharedMemory(create=True, size=10)
    block.close()
    pipe.send(block.name)
if __name__ == '__main__':
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context('fork').Process(target=create, args=(theirs,))
    process.start()
    name = ours.recv()
    process.join()
    time.sleep(0.5)  # Time for a tracker that ends with the child to do its work.
    block = SharedMemory(name)
    block.close()
    block.unlink()
    print('still there')
'''
        self.assertEqual(run(program), (0, 'still there\n', ''))


def create_and_end(pipe):
    block = SharedMemory(create=True, size=10)
    block.buf[:5] = b'hello'
    block.close()
    pipe.send(block.name)


class Tracker(unittest.TestCase):
    def test_names_must_fit(self):
        with self.assertRaises(ValueError):
            resource_tracker.register('x' * 600, 'shared_memory')

    def test_wrong_types_are_reported_by_the_tracker(self):
        program = ('from multiprocessing import resource_tracker as r; r.register("name", "nonsense");'
                   'r.unregister("never registered", "shared_memory")')
        code, output, errors = run(program)
        self.assertEqual((code, output), (0, ''))
        self.assertIn('unknown resource type nonsense', errors)
        self.assertIn("KeyError: 'never registered'", errors)

    def test_a_killed_tracker_is_replaced(self):
        program = '''
import os, signal, warnings
from multiprocessing import resource_tracker as r
warnings.simplefilter('always')
r.ensure_running()
first = r._resource_tracker._pid
os.kill(first, signal.SIGKILL)
while r._resource_tracker._check_alive():
    pass
r.ensure_running()
print(first != r._resource_tracker._pid, r._resource_tracker._check_alive())
'''
        code, output, errors = run(program)
        self.assertEqual((code, output), (0, 'True True\n'))
        self.assertIn('process died unexpectedly', errors)

    def test_processes_that_need_one_at_the_same_moment_share_it(self):
        program = '''
import multiprocessing, os
from multiprocessing import resource_tracker as r
def work(barrier, pids):
    barrier.wait()
    r.ensure_running()
    pids.put(r._resource_tracker._pid)
if __name__ == '__main__':
    for method in ('spawn', 'fork'):
        context = multiprocessing.get_context(method)
        barrier, pids = context.Barrier(8), context.SimpleQueue()
        children = [context.Process(target=work, args=(barrier, pids)) for _ in range(8)]
        for child in children: child.start()
        started = [pid for pid in (pids.get() for _ in children) if pid is not None]
        for child in children: child.join()
        print(len(started), all(child.exitcode == 0 for child in children))
'''
        # The first eight start one; for the next eight it is there.
        self.assertEqual(run(program)[:2], (0, '1 True\n0 True\n'))

    def test_the_wait_for_its_end_can_be_limited(self):
        program = '''
import os
from multiprocessing import resource_tracker as r
r.ensure_running()
r._resource_tracker._stop(wait_timeout=60)
print(r._resource_tracker._waitpid_timed_out, r._resource_tracker._exitcode)
r.ensure_running()
reader, writer = os.pipe()
if os.fork() == 0:
    os.close(writer)
    os.read(reader, 1)  # Connected as long as its parent wants.
    os._exit(0)
r._resource_tracker._stop(wait_timeout=0.2)
print(r._resource_tracker._waitpid_timed_out, r._resource_tracker._exitcode)
'''
        self.assertEqual(run(program)[:2], (0, 'False 0\nTrue None\n'))

    def test_signals_that_a_terminal_sends_to_everybody_do_not_end_it(self):
        program = '''
import os, signal, sys
from multiprocessing import resource_tracker as r
from multiprocessing.shared_memory import SharedMemory
blocks = [SharedMemory(create=True, size=10) for _ in range(2)]
first = r._resource_tracker._pid
os.kill(first, signal.SIGINT)
os.kill(first, signal.SIGTERM)
r.ensure_running()
print(r._resource_tracker._pid == first, *(block.name for block in blocks), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
'''
        code, output, errors = run(program)
        same, *names = output.split()
        self.assertEqual((code, same), (-signal.SIGKILL, 'True'))
        self.assertIn('There appear to be 2 leaked shared_memory objects', errors)
        self.assertNotIn('died unexpectedly', errors)
        self.assertEqual([name for name in names if os.path.exists('/dev/shm/' + name)], [])

    @unittest.skipUnless(UNDER_PYHOST, 'the standard library writes into whatever has the number now')
    def test_a_program_that_closes_all_descriptors(self):
        program = '''
import os
from multiprocessing.shared_memory import SharedMemory
from multiprocessing import resource_tracker as r
block = SharedMemory(create=True, size=10)
block.close()
lost = r._resource_tracker._fd
os.closerange(3, lost + 1)
reader, writer = os.pipe()
os.dup2(writer, lost)
os.close(writer)
block.unlink()
os.close(lost)
print(os.read(reader, 100))
'''
        self.assertEqual(run(program), (0, "b''\n", ''))

    def test_it_ends_when_told(self):
        program = '''
import os
from multiprocessing import resource_tracker as r
r.ensure_running()
pid = r._resource_tracker._pid
r._resource_tracker._stop()
print(os.path.exists(f'/proc/{pid}'), r._resource_tracker._fd)
'''
        self.assertEqual(run(program), (0, 'False None\n', ''))


class Lists(unittest.TestCase):
    # Python before 3.14 has no room for all of some texts with other letters.
    ITEMS = ['howdy', b'HoWdY', -273.154, 100, None, True, 42, 'ünïcode' if UNDER_PYHOST else 'ünïcod', '', b'']

    def setUp(self):
        self.list = self.make(self.ITEMS)

    def make(self, items, **kwds):
        shareable = ShareableList(items, **kwds)
        self.addCleanup(shareable.shm.unlink)
        self.addCleanup(shareable.shm.close)
        return shareable

    def test_items(self):
        self.assertEqual(list(self.list), self.ITEMS)
        self.assertEqual(len(self.list), len(self.ITEMS))
        self.assertEqual([type(item) for item in self.list], [type(item) for item in self.ITEMS])
        self.assertEqual(self.list[-1], b'')
        self.assertEqual((self.list.count(42), self.list.index(None)), (1, 4))
        with self.assertRaises(ValueError):
            self.list.index('none of them')

    def test_changing_items(self):
        self.list[0] = 'abc'
        self.list[3] = 1.5
        self.list[5] = None
        self.list[1] = 7
        self.assertEqual(list(self.list)[:6], ['abc', 7, -273.154, 1.5, None, None])
        self.list[1] = 'text'
        self.assertEqual(self.list[1], 'text')

    def test_wrong_changes_change_nothing(self):
        with self.assertRaises(ValueError):
            self.list[0] = 'too long for its place'
        with self.assertRaises(KeyError):
            self.list[0] = object()
        if UNDER_PYHOST:  # The standard library stores a zero.
            with self.assertRaises(struct.error):
                self.list[3] = 1 << 70
        for position in (10, -11) if UNDER_PYHOST else (10,):
            with self.assertRaises(IndexError):
                self.list[position] = 1
            with self.assertRaises(IndexError):
                self.list[position]
        self.assertEqual(list(self.list), self.ITEMS)

    def test_no_items(self):
        self.assertEqual(list(self.make([])), [])
        self.assertEqual(list(self.make(None)), [])

    def test_by_name_and_pickled(self):
        for other in (ShareableList(name=self.list.shm.name), pickle.loads(pickle.dumps(self.list))):
            other[3] += 1
            self.assertEqual(self.list[3], other[3])
            self.assertEqual(other.format, self.list.format)
            other.shm.close()

    def test_a_stock_program_reads_and_writes_it(self):
        program = ('import sys; from multiprocessing import resource_tracker, shared_memory as s;'
                   'l = s.ShareableList(name=sys.argv[1]); print(list(l)); l[3] = 101; l.shm.close();'
                   'resource_tracker.unregister(l.shm._name, "shared_memory")')
        code, output, errors = run(program, self.list.shm.name, python=STOCK_PYTHON)
        self.assertEqual((code, output.strip(), errors), (0, repr(self.ITEMS), ''))
        self.assertEqual(self.list[3], 101)

    def test_a_stock_programs_list(self):
        program = ('import sys; from multiprocessing import shared_memory as s;'
                   'l = s.ShareableList([1, "two", None, 4.0]); print(l.shm.name, flush=True); sys.stdin.read();'
                   'l.shm.close(); l.shm.unlink()')
        with subprocess.Popen([STOCK_PYTHON, '-c', program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as other:
            name = other.stdout.readline().strip()
            shareable = ShareableList(name=name)
            self.assertEqual(list(shareable), [1, 'two', None, 4.0])
            shareable.shm.close()
            if UNDER_PYHOST or not HAS_TRACK:
                resource_tracker.unregister('/' + name, 'shared_memory')
            other.communicate()
        self.assertEqual(other.returncode, 0)


class PrivateNames(unittest.TestCase):
    def test_what_tests_and_other_programs_use(self):
        self.assertTrue(shared_memory._USE_POSIX)
        self.assertEqual(shared_memory._SHM_NAME_PREFIX, '/psm_')
        self.assertEqual(shared_memory._O_CREX, os.O_CREAT | os.O_EXCL)
        self.assertEqual(SharedMemory._flags, os.O_RDWR)
        self.assertLessEqual(len(shared_memory._make_filename()), 14)
        self.assertLessEqual({'noop', 'semaphore', 'shared_memory'}, set(resource_tracker._CLEANUP_FUNCS))


if __name__ == '__main__':
    unittest.main()
