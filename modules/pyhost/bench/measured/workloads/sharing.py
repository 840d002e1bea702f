"""Locks, conditions, events, barriers; shared values; managers; named shared memory."""

import multiprocessing

from multiprocessing import shared_memory

from workload import CONTEXT, Workload


class Alone(Workload):
    """One process, nobody else."""

    group = 'Locks and shared values'
    operation = 'operation'
    batch = 20000

    def prepare(self):
        self.context = multiprocessing.get_context(CONTEXT)
        self.make()


class Lock(Alone):
    name = 'lock'
    title = 'with lock, uncontended'
    factory = 'Lock'
    quick = True

    def make(self):
        self.lock = getattr(self.context, self.factory)()

    def run(self, count):
        lock = self.lock
        for _ in range(count):
            with lock:
                pass
        return count


class RLock(Lock):
    name = 'rlock'
    title = 'with rlock, uncontended'
    factory = 'RLock'
    quick = False


class Semaphore(Lock):
    name = 'semaphore'
    title = 'with semaphore, uncontended'
    factory = 'Semaphore'
    quick = False


class Value(Alone):
    name = 'value-increment'
    title = "Value('i'): increment under its lock"
    quick = True

    def make(self):
        self.value = self.context.Value('i', 0)

    def run(self, count):
        value = self.value
        value.value = 0
        for _ in range(count):
            with value.get_lock():
                value.value += 1
        return value.value


class Array(Alone):
    name = 'array-item'
    title = "Array('d'): an item read and written"

    def make(self):
        self.array = self.context.Array('d', 1000)

    def run(self, count):
        array = self.array
        array[:] = [0.0] * 1000
        for index in range(count):
            array[index % 1000] += 1.0
        return sum(array)


def lock_and_count(control, lock, counter):
    control.send('ready')
    while count := control.recv():
        for _ in range(count):
            with lock:
                counter.value += 1
        control.send('done')


def wait_and_answer(control, condition, turn):
    control.send('ready')
    while count := control.recv():
        for _ in range(count):
            with condition:
                while turn.value != 1:
                    condition.wait()
                turn.value = 0
                condition.notify()
    control.send('done')


def answer_events(control, ping, pong):
    control.send('ready')
    while count := control.recv():
        for _ in range(count):
            ping.wait()
            ping.clear()
            pong.set()


def meet(control, barrier):
    control.send('ready')
    while count := control.recv():
        for _ in range(count):
            barrier.wait()


class Together(Workload):
    """This process and one or more children with a control pipe each."""

    group = 'Locks and shared values'
    operation = 'operation'
    children = 1
    target = None

    def prepare(self):
        context = multiprocessing.get_context(CONTEXT)
        shared = self.make(context)
        self.controls, self.processes = [], []
        for _ in range(self.children):
            ours, theirs = context.Pipe()
            process = context.Process(target=self.target, args=(theirs, *shared), daemon=True)
            process.start()
            theirs.close()
            ours.recv()
            self.controls.append(ours)
            self.processes.append(process)

    def command(self, count):
        for control in self.controls:
            control.send(count)

    def finish(self):
        self.command(0)
        for process in self.processes:
            process.join()


class LockContended(Together):
    name = 'lock-contended'
    title = 'with lock, two processes at once'
    batch = 20000
    children = 2
    target = staticmethod(lock_and_count)
    quick = True

    def make(self, context):
        self.counter = context.RawValue('q', 0)
        return context.Lock(), self.counter

    def run(self, count):
        self.counter.value = 0
        self.command(count // 2)
        for control in self.controls:
            control.recv()
        return self.counter.value


class Condition(Together):
    name = 'condition'
    title = 'Condition, notify a child and wait for its notify'
    operation = 'round trip'
    batch = 500
    target = staticmethod(wait_and_answer)

    def make(self, context):
        self.condition, self.turn = context.Condition(), context.RawValue('i', 0)
        return self.condition, self.turn

    def run(self, count):
        self.command(count)
        for _ in range(count):
            with self.condition:
                self.turn.value = 1
                self.condition.notify()
                while self.turn.value != 0:
                    self.condition.wait()
        return count


class Event(Together):
    name = 'event'
    title = 'Event, set for a child and wait for its set'
    operation = 'round trip'
    batch = 500
    target = staticmethod(answer_events)

    def make(self, context):
        self.ping, self.pong = context.Event(), context.Event()
        return self.ping, self.pong

    def run(self, count):
        self.command(count)
        for _ in range(count):
            self.ping.set()
            self.pong.wait()
            self.pong.clear()
        return count


class Barrier(Together):
    name = 'barrier'
    title = 'Barrier of two processes'
    operation = 'meeting'
    batch = 300
    target = staticmethod(meet)

    def make(self, context):
        self.barrier = context.Barrier(2)
        return (self.barrier,)

    def run(self, count):
        self.command(count)
        for _ in range(count):
            self.barrier.wait()
        return count


class Manager(Workload):
    group = 'Managers and named memory'
    operation = 'call'
    batch = 500

    def prepare(self):
        self.manager = multiprocessing.get_context(CONTEXT).Manager()

    def finish(self):
        self.manager.shutdown()


class ManagerDict(Manager):
    name = 'manager-dict'
    title = 'Manager().dict(): an item set'
    quick = True

    def run(self, count):
        shared = self.manager.dict()
        for number in range(count):
            shared[number % 100] = number
        return sum(shared.values())


class ManagerList(Manager):
    name = 'manager-list'
    title = 'Manager().list(): append'

    def run(self, count):
        shared = self.manager.list()
        for number in range(count):
            shared.append(number)
        return sum(shared)


class SharedMemory(Workload):
    name = 'shared-memory'
    title = 'SharedMemory of 1 MiB: created, a byte written, unlinked'
    group = 'Managers and named memory'
    operation = 'block'
    batch = 50

    def run(self, count):
        total = 0
        for _ in range(count):
            block = shared_memory.SharedMemory(create=True, size=1 << 20)
            block.buf[0] = 7
            total += block.buf[0]
            block.close()
            block.unlink()
        return total


class SharedMemoryFilled(Workload):
    name = 'shared-memory-filled'
    title = 'SharedMemory of 1 MiB: created, filled, unlinked'
    group = 'Managers and named memory'
    operation = 'block'
    batch = 50

    def run(self, count):
        data = bytes(range(256)) * 4096
        total = 0
        for _ in range(count):
            block = shared_memory.SharedMemory(create=True, size=len(data))
            block.buf[:] = data
            total += block.buf[-1]
            block.close()
            block.unlink()
        return total
