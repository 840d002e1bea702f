"""Queues and pipes between processes."""

import multiprocessing

from workload import CONTEXT, Workload

SMALL = {'id': 123, 'name': 'worker', 'position': [1.5, 2.5], 'alive': True, 'tags': ('a', 'b')}


def make_payload(kind):
    """(message, what stands for it in a result)."""
    if kind == 'dict':
        return SMALL
    if kind == 'int':
        return 12345
    if kind == 'numpy':
        import numpy
        return numpy.arange(8 << 20, dtype=numpy.int64)
    return bytes(kind)


def weigh(message):
    """A number that shows that a message has arrived whole, cheap beside sending it."""
    if isinstance(message, dict):
        return message['id'] + len(message)
    if isinstance(message, int):
        return message
    return len(message) + int(message[-1])


def produce(control, queue, kind):
    payload = make_payload(kind)
    put = queue.put
    control.send('ready')
    while count := control.recv():
        for _ in range(count):
            put(payload)


def produce_many(control, queue, kind):
    payload = [make_payload(kind)] * 100
    control.send('ready')
    while count := control.recv():
        for _ in range(count // 100):
            queue.put_many(payload)


def consume(control, queue, acknowledge):
    get = queue.get
    control.send('ready')
    while count := control.recv():
        total = 0
        for _ in range(count):
            total += weigh(get())
            if acknowledge:
                queue.task_done()
        control.send(total)


class Queue(Workload):
    group = 'Queues'
    operation = 'message'
    batch = 10000
    kind = 'dict'
    producers = consumers = 1
    factory = 'Queue'
    produce = staticmethod(produce)

    def prepare(self):
        context = multiprocessing.get_context(CONTEXT)
        queue = getattr(context, self.factory)()
        acknowledge = self.factory == 'JoinableQueue'
        self.producing = [self.start(context, self.produce, queue, self.kind) for _ in range(self.producers)]
        self.consuming = [self.start(context, consume, queue, acknowledge) for _ in range(self.consumers)]
        self.queue = queue

    @staticmethod
    def start(context, target, *arguments):
        ours, theirs = context.Pipe()
        process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
        process.start()
        theirs.close()
        ours.recv()
        return ours, process

    def run(self, count):
        count = max(400, count // 400 * 400) if count >= 400 else count * self.producers * self.consumers
        for control, _ in self.consuming:
            control.send(count // self.consumers)
        for control, _ in self.producing:
            control.send(count // self.producers)
        return sum(control.recv() for control, _ in self.consuming)

    def finish(self):
        for control, process in self.producing + self.consuming:
            control.send(0)
            process.join()


class QueueDict(Queue):
    name = 'queue-dict'
    title = 'Queue, small dict'
    quick = True


class QueueInt(Queue):
    name = 'queue-int'
    title = 'Queue, int'
    kind = 'int'


class QueueKilobyte(Queue):
    name = 'queue-1k'
    title = 'Queue, 1 KiB of bytes'
    kind = 1 << 10


class Queue64K(Queue):
    name = 'queue-64k'
    title = 'Queue, 64 KiB of bytes'
    kind = 64 << 10
    batch = 2000


class QueueNumpy(Queue):
    name = 'queue-numpy'
    title = 'Queue, 64 MiB numpy array'
    kind = 'numpy'
    batch = 2
    needs = ('numpy',)


class SimpleQueueDict(Queue):
    name = 'simplequeue-dict'
    title = 'SimpleQueue, small dict'
    factory = 'SimpleQueue'
    quick = True


class JoinableQueueDict(Queue):
    name = 'joinablequeue-dict'
    title = 'JoinableQueue with task_done, small dict'
    factory = 'JoinableQueue'


class Queue4To1(Queue):
    name = 'queue-4to1'
    title = 'Queue, small dict, 4 producers, 1 consumer'
    producers = 4


class Queue1To4(Queue):
    name = 'queue-1to4'
    title = 'Queue, small dict, 1 producer, 4 consumers'
    consumers = 4


class Queue4To4(Queue):
    name = 'queue-4to4'
    title = 'Queue, small dict, 4 producers, 4 consumers'
    producers = consumers = 4
    quick = True


class PutMany(Queue):
    name = 'queue-put-many'
    title = "put_many of 100 small dicts (python3 has none: put)"

    def prepare(self):
        self.produce = produce_many if hasattr(multiprocessing.get_context(CONTEXT).Queue(), 'put_many') else produce
        super().prepare()


class FasterFifo(Queue):
    name = 'queue-dict'
    peer = 'faster_fifo'
    needs = ('faster_fifo',)

    def prepare(self):
        import faster_fifo
        context = multiprocessing.get_context(CONTEXT)
        queue = faster_fifo.Queue()
        self.producing = [self.start(context, produce, queue, self.kind)]
        self.consuming = [self.start(context, consume, queue, False)]


def echo(connection):
    try:
        while True:
            connection.send(connection.recv())
    except EOFError:
        pass


def swallow(connection):
    try:
        while True:
            connection.send(weigh(connection.recv_bytes()))
    except EOFError:
        pass


class PipeRoundTrip(Workload):
    name = 'pipe-round-trip'
    title = 'Pipe, an int to a child and back'
    group = 'Pipes'
    operation = 'round trip'
    batch = 1000
    quick = True
    target = staticmethod(echo)

    def prepare(self):
        context = multiprocessing.get_context(CONTEXT)
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=self.target, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def run(self, count):
        connection = self.connection
        total = 0
        for number in range(count):
            connection.send(number)
            total += connection.recv()
        return total

    def finish(self):
        self.connection.close()
        self.process.join()


class PipeBandwidth(PipeRoundTrip):
    name = 'pipe-1m'
    title = 'Pipe, 1 MiB by send_bytes'
    operation = 'message'
    batch = 100
    quick = False
    target = staticmethod(swallow)

    def run(self, count):
        data = bytes(1 << 20)
        total = 0
        for _ in range(count):
            self.connection.send_bytes(data)
            total += self.connection.recv()
        return total
