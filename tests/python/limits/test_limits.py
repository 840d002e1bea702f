"""Little memory: in a container, or under the limits of a process, everything works as ever with a smaller limit, and what
does not fit is a MemoryError that names size, limit and setting, after which everything goes on.  Few descriptors: the same."""

import os
import resource
import subprocess
import sys
import tempfile
import time
import unittest

MIB = 1 << 20
CONTAINER_BYTES = 64 * MIB

# What it prints first is the same under python3; what follows is about the session's shared memory.
SCRIPT = '''
import importlib.util
import multiprocessing as mp

def fill(queue):
    for number in range(100):
        queue.put(bytes([number]) * 100_000)

def make(size):
    return bytes(size)

def main():
    queue = mp.Queue()
    filler = mp.Process(target=fill, args=(queue,))
    filler.start()
    print('queue', [queue.get() == bytes([number]) * 100_000 for number in range(100)].count(True))
    filler.join()
    with mp.Pool(2) as pool:
        print('pool', sum(map(len, pool.map(make, [50_000] * 200))))
        print('large result', len(pool.apply(make, (2 << 20,))))
        with mp.Lock(), mp.Semaphore(2):
            print('locks', pool.apply(abs, (-3,)))
        beyond(queue, pool)

def beyond(queue, pool):
    if importlib.util.find_spec('_pyhost') is None:
        return
    for what, fails in [('message', lambda: queue.put(make(33 << 20))), ('result', lambda: pool.apply(make, (33 << 20,)))]:
        try:
            fails()
            print(what, 'fits')
        except MemoryError as error:
            print(what, error)
    kept = 0
    try:
        while True:
            queue.put(bytes(1 << 20))
            kept += 1
    except MemoryError as error:
        print('full', kept, error)
    print('kept', sum(len(queue.get()) >> 20 for _ in range(kept)) == kept)
    print('afterwards', pool.apply(abs, (-4,)))

if __name__ == '__main__':
    main()
'''


# What needs little.  Prints the same under python3.
LITTLE = '''
import multiprocessing as mp
import sys

def put(queue):
    queue.put(bytes(1000))

def main():
    for method in ('spawn', 'forkserver', 'fork'):
        context = mp.get_context(method)
        queue = context.Queue()
        children = [context.Process(target=put, args=(queue,)) for _ in range(4)]
        for child in children:
            child.start()
        print(method, [len(queue.get()) for _ in children])
        for child in children:
            child.join()
        if 'pool' in sys.argv:
            with context.Pool(2) as pool, context.Lock():
                print(sum(pool.map(abs, range(1000))), len(pool.apply(bytes, (20_000,))))

if __name__ == '__main__':
    main()
'''

# Children that get descriptors.  Prints the same under python3.
DESCRIPTORS = '''
import multiprocessing as mp
import sys

def answer(ends):
    for number, end in enumerate(ends):
        end.send(number)

def main():
    for method in ('spawn', 'forkserver', 'fork'):
        context = mp.get_context(method)
        for count in map(int, sys.argv[1:]):
            pipes = [context.Pipe() for _ in range(count)]
            child = context.Process(target=answer, args=([theirs for _, theirs in pipes],))
            child.start()
            child.join()
            print(method, count, child.exitcode, [ours.recv() for ours, _ in pipes if ours.poll()])
            for pipe in pipes:
                for end in pipe:
                    end.close()
        with context.Pool(2) as pool:
            print(method, pool.map(abs, range(-9, 0)))

if __name__ == '__main__':
    main()
'''


class Container:
    """A memory cgroup (v1 or v2) of its own for one program."""

    def __init__(self, limit):
        self.folder = None
        for mount, limit_file in self.hierarchies():
            folder = os.path.join(mount, f'pyhost-test-{os.getpid()}')
            try:
                os.mkdir(folder)
                self.folder = folder
                with open(os.path.join(folder, limit_file), 'w') as file:
                    file.write(str(limit))
                return
            except OSError as error:
                self.remove()
                reason = error
        raise unittest.SkipTest(f'no memory cgroup can be made here: {reason}')

    @staticmethod
    def hierarchies():
        """(folder of the outermost group that is seen, its file with the limit)"""
        with open('/proc/self/mountinfo') as file:
            for line in file:
                mount = line.split()[4]
                kind, _, options = line.partition(' - ')[2].split(' ', 2)
                if kind == 'cgroup' and 'memory' in options.strip().split(','):
                    yield mount, 'memory.limit_in_bytes'
                elif kind == 'cgroup2':
                    yield mount, 'memory.max'
        raise unittest.SkipTest('no memory cgroups are mounted here')

    def enter(self):
        with open(os.path.join(self.folder, 'cgroup.procs'), 'w') as file:
            file.write(str(os.getpid()))

    def remove(self):
        """When the last process has left."""
        deadline = time.monotonic() + 10
        while self.folder:
            try:
                os.rmdir(self.folder)
                self.folder = None
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


class LimitsTest(unittest.TestCase):

    def run_confined(self, confine, program=sys.executable):
        """The lines that SCRIPT prints, by their first word."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'script.py')
            with open(path, 'w') as file:
                file.write(SCRIPT)
            done = subprocess.run([program, path], preexec_fn=confine, capture_output=True, text=True, timeout=100)
        self.assertEqual((done.returncode, done.stderr), (0, ''))
        return {line.split(' ', 1)[0]: line for line in done.stdout.splitlines()}

    def check(self, lines, limit):
        same = self.run_confined(None, os.environ['PYHOST_ORACLE'])
        self.assertEqual({word: lines[word] for word in same}, same)
        for word, size in [('message', '33.0 MiB'), ('result', '33.0 MiB'), ('full', '1.0 MiB')]:
            self.assertRegex(lines[word], f'no room for {size} of shared memory: .* in use, the limit is {limit} '
                                          r'\(set by the environment variable PYHOST_MEMORY_LIMIT')
        self.assertEqual(lines['kept'], 'kept True')
        self.assertEqual(lines['afterwards'], 'afterwards 4')

    def test_container_of_64_mib_gets_half_of_it(self):
        container = Container(CONTAINER_BYTES)
        try:
            lines = self.run_confined(container.enter)
        finally:
            container.remove()
        self.check(lines, '32 MiB')
        self.assertGreaterEqual(int(lines['full'].split()[1]), 28)

    def test_file_size_limit_is_the_limit(self):
        lines = self.run_confined(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (32 * MIB, 32 * MIB)))
        self.check(lines, r'[\d.]+ MiB')
        self.assertGreaterEqual(int(lines['full'].split()[1]), 20)

    def check_little(self, limit, *arguments):
        done = []
        for program in (sys.executable, os.environ['PYHOST_ORACLE']):
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, 'script.py')
                with open(path, 'w') as file:
                    file.write(LITTLE)
                done.append(subprocess.run([program, path, *arguments], capture_output=True, text=True, timeout=100,
                                           preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))))
        self.assertEqual((done[0].stdout, done[0].stderr, done[0].returncode), (done[1].stdout, done[1].stderr, 0))

    def test_file_size_limit_of_256_kib_suffices_for_processes_and_queues(self):
        self.check_little(256 << 10)

    def test_file_size_limit_of_512_kib_suffices_for_pools(self):
        # How much is in use depends on how fast each of them is, and pools of two start methods live at once.
        self.check_little(512 << 10, 'pool')

    def test_address_space_limit_leaves_a_quarter(self):
        lines = self.run_confined(lambda: resource.setrlimit(resource.RLIMIT_AS, (128 * MIB, 128 * MIB)))
        self.check(lines, r'[\d.]+ MiB')
        self.assertGreaterEqual(int(lines['full'].split()[1]), 20)


class DescriptorsTest(unittest.TestCase):
    """Whatever numbers a child's descriptors have, the same files lie there as in its starter."""

    def check(self, limit, *counts):
        def confine():
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'script.py')
            with open(path, 'w') as file:
                file.write(DESCRIPTORS)
            ours, theirs = [
                subprocess.run([program, path, *map(str, counts)], preexec_fn=confine, capture_output=True, text=True, timeout=100)
                for program in (sys.executable, os.environ['PYHOST_ORACLE'])]
        self.assertEqual((ours.stdout, ours.stderr, ours.returncode), (theirs.stdout, theirs.stderr, 0))
        self.assertNotIn('[]', ours.stdout)

    def test_limit_of_48(self):
        self.check(48, 1, 4, 7)

    def test_limit_of_64(self):
        self.check(64, 1, 5, 10, 5)

    def test_more_than_pyhosts_own_numbers_leave_below(self):
        self.check(1024, 100, 120, 110)


if __name__ == '__main__':
    unittest.main()
