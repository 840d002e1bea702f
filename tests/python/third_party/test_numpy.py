"""numpy arrays through every channel.  Runs under pyhost and under python3, which is the oracle."""

import concurrent.futures
import importlib.util
import unittest
from multiprocessing import shared_memory

from context_cases import SECONDS, ContextCases, bind
from requirement import needs

if importlib.util.find_spec('numpy'):
    import numpy


def some_arrays():
    """Small and large, plain and not."""
    large = numpy.arange(300_000, dtype=numpy.float64).reshape(300, 1000)
    record = numpy.zeros(5, dtype=[('name', 'U5'), ('score', 'f4')])
    record['name'] = 'abc'
    return [
        numpy.arange(10), large, large.T, large[::3, ::7], numpy.asfortranarray(large), large.astype(numpy.complex64),
        numpy.array(3.5), numpy.zeros((0, 4)), record, numpy.array(['x', None, {'a': 1}], dtype=object),
        numpy.array([True, False]), numpy.arange('2024-01', '2025-01', dtype='datetime64[M]'),
        numpy.frombuffer(b'read only bytes, as many as that', dtype=numpy.uint8),
    ]


def echo(inbox, outbox):
    while (obj := inbox.get()) is not None:
        outbox.put(obj)


def echo_connection(connection):
    while (obj := connection.recv()) is not None:
        connection.send(obj)


def same(array):
    return array


def double_in_place(array, shape):
    view = numpy.frombuffer(array.get_obj(), dtype=numpy.float64).reshape(shape)
    with array.get_lock():
        view *= 2


def double_block(name, shape):
    block = shared_memory.SharedMemory(name)
    view = numpy.ndarray(shape, dtype=numpy.float64, buffer=block.buf)
    view *= 2
    del view
    block.close()


def double_value(value):
    numpy.frombuffer(value.get_obj(), dtype=numpy.int64)[0] *= 2


@needs('numpy')
class ArrayCases(ContextCases):
    def assert_same(self, result, array):
        self.assertEqual((result.dtype, result.shape), (array.dtype, array.shape))
        numpy.testing.assert_array_equal(result, array)

    def assert_arrays_pass(self, send, receive):
        for array in some_arrays():
            send(array)
            result = receive()
            self.assert_same(result, array)
            if result.dtype != object and result.size:
                self.assertTrue(result.flags.aligned)
        nested = {'a': [numpy.ones(50_000), (numpy.zeros(3), 'text')], 'again': None}
        nested['again'] = nested['a'][0]
        send(nested)
        result = receive()
        self.assertIs(result['again'], result['a'][0])
        self.assert_same(result['a'][0], nested['a'][0])

    def test_queues(self):
        for make in self.context.Queue, self.context.SimpleQueue, self.context.JoinableQueue:
            with self.subTest(make.__name__):
                there, back = make(), make()
                self.start(echo, there, back)
                self.assert_arrays_pass(there.put, back.get)
                there.put(None)

    def test_a_pipe(self):
        here, there = self.context.Pipe()
        self.start(echo_connection, there)
        self.assert_arrays_pass(here.send, here.recv)
        here.send(None)

    def test_what_was_received_can_be_written_and_is_ones_own(self):
        box = self.context.SimpleQueue()
        array = numpy.arange(100_000)
        box.put(array[:4000])  # less than a pipe holds
        result = box.get()
        result[0] = 99
        self.assertEqual(array[0], 0)

    def test_a_pool(self):
        with self.context.Pool(2) as pool:
            arrays = some_arrays()
            for result, array in zip(pool.map(same, arrays), arrays):
                self.assert_same(result, array)
            for result, array in zip(pool.imap(same, arrays), arrays):
                self.assert_same(result, array)

    def test_an_executor(self):
        arrays = some_arrays()
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=self.context) as executor:
            for result, array in zip(executor.map(same, arrays), arrays):
                self.assert_same(result, array)

    def test_a_manager(self):
        with self.context.Manager() as manager:
            inside, box = manager.list(), manager.Queue()
            arrays = some_arrays()
            for array in arrays:
                inside.append(array)
                box.put(array)
            for index, array in enumerate(arrays):
                self.assert_same(inside[index], array)
                self.assert_same(box.get(timeout=SECONDS), array)

    def test_views_of_array_and_value(self):
        array, value = self.context.Array('d', range(12)), self.context.Value('q', 21)
        self.start(double_in_place, array, (3, 4))
        self.start(double_value, value)
        self.join_children()
        self.assertEqual(list(array), [2.0 * i for i in range(12)])
        self.assertEqual(value.value, 42)

    def test_views_of_shared_memory(self):
        shape = 100, 1000
        block = shared_memory.SharedMemory(create=True, size=8 * 100 * 1000)
        self.addCleanup(block.unlink)
        self.addCleanup(block.close)
        view = numpy.ndarray(shape, dtype=numpy.float64, buffer=block.buf)
        view[:] = 1.5
        self.start(double_block, block.name, shape)
        self.join_children()
        self.assertTrue((view == 3).all())
        del view

    def test_arrays_are_arguments_of_a_process(self):
        box = self.context.SimpleQueue()
        array = numpy.arange(5000)
        self.start(box.put, array)
        self.assert_same(box.get(), array)


bind(globals(), 'ArrayTest', ArrayCases)

if __name__ == '__main__':
    unittest.main()
