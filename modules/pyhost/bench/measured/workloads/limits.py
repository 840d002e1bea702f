"""What the machine and the interpreter allow anybody: no contest, but what the other figures are to be read beside."""

import ctypes
import itertools
import mmap
import os
import pickle
import subprocess
import sys

from workload import Workload
from workloads.calls import burn
from workloads.channels import SMALL, weigh


class Limit(Workload):
    group = 'Limits'
    limit = True


class ForkExit(Limit):
    name = 'limit-fork'
    title = 'os.fork, os._exit, os.waitpid'
    operation = 'fork'
    batch = 20
    quick = True

    def run(self, count):
        codes = set()
        for _ in range(count):
            pid = os.fork()
            if not pid:
                os._exit(3)
            codes.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return sorted(codes)


class Launch(Limit):
    name = 'limit-interpreter'
    title = 'subprocess.run([sys.executable, "-c", "pass"])'
    operation = 'launch'
    batch = 2

    def run(self, count):
        return sorted({subprocess.run([sys.executable, '-c', 'pass']).returncode for _ in range(count)})


class Pickle(Limit):
    name = 'limit-pickle'
    title = 'pickle.dumps and loads of the small dict'
    operation = 'message'
    batch = 20000
    quick = True

    def run(self, count):
        dumps, loads = pickle.dumps, pickle.loads
        total = 0
        for _ in range(count):
            total += weigh(loads(dumps(SMALL)))
        return total


class Memcpy(Limit):
    name = 'limit-memcpy'
    title = 'copying 64 MiB that both sides have touched'
    operation = 'copy'
    batch = 5

    def prepare(self):
        self.source = memoryview(bytearray(64 << 20))
        self.target = memoryview(bytearray(64 << 20))

    def run(self, count):
        for _ in range(count):
            self.target[:] = self.source
        return len(self.target)

    def finish(self):
        self.source.release()
        self.target.release()


class PipePingPong(Limit):
    name = 'limit-pipe'
    title = 'one byte to a forked child and back, os.pipe'
    operation = 'round trip'
    batch = 500
    quick = True

    def prepare(self):
        (there, self.out), (self.back, here) = os.pipe(), os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self.out)
            while byte := os.read(there, 1):
                os.write(here, byte)
            os._exit(0)
        os.close(there)
        os.close(here)

    def run(self, count):
        for _ in range(count):
            os.write(self.out, b'x')
            os.read(self.back, 1)
        return count

    def finish(self):
        os.close(self.out)
        os.close(self.back)
        os.waitpid(self.pid, 0)


class FutexPingPong(Limit):
    name = 'limit-futex'
    title = 'a word to a forked child and back, futex (both sleep)'
    operation = 'round trip'
    batch = 500
    FUTEX = {'x86_64': 202, 'aarch64': 98}.get(os.uname().machine)
    WAIT, WAKE = 0, 1

    def prepare(self):
        self.memory = mmap.mmap(-1, 4096)
        self.words = (ctypes.c_uint32 * 2).from_buffer(self.memory)
        self.syscall = ctypes.CDLL(None, use_errno=True).syscall
        self.address = [ctypes.c_void_p(ctypes.addressof(self.words) + 4 * index) for index in (0, 1)]
        self.pid = os.fork()
        if not self.pid:
            for turn in itertools.count(1):
                self.wait(0, turn - 1)
                if self.words[0] == 0xffffffff:
                    os._exit(0)
                self.store(1, turn)
        self.turn = 0

    def wait(self, index, old):
        while self.words[index] == old:
            self.syscall(self.FUTEX, self.address[index], self.WAIT, old, None, None, 0)

    def store(self, index, value):
        self.words[index] = value & 0xffffffff
        self.syscall(self.FUTEX, self.address[index], self.WAKE, 1, None, None, 0)

    def run(self, count):
        for _ in range(count):
            self.turn += 1
            self.store(0, self.turn)
            self.wait(1, self.turn - 1)
        return count

    def finish(self):
        self.store(0, 0xffffffff)
        os.waitpid(self.pid, 0)


class OneProcess(Limit):
    name = 'limit-cpu'
    title = 'the same computations in one process'
    batch = 20

    def run(self, count):
        return sum(map(burn, range(count)))
