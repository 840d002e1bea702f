"""Arrays over shared memory (pyhost.arrays) as scripts have them: by reference between processes of a session, alive as long
as a view is, plain numpy in everything else.  What a C++ engine sees of them is in runtime/values.
"""

import gc
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import unittest

import _pyhost
from pyhost import arrays

try:
    import numpy
except ImportError:
    numpy = None

LIMIT = 30


def new_array(dtype='float32', shape=(4, 5), offset=0, readonly=False):
    size = 64 + offset + math.prod(shape) * 16
    return arrays.attach(_pyhost.Memory(size), dtype, shape, offset, readonly)


def fill(queue_in, queue_out):
    array = queue_in.get()
    array[...] = 7
    queue_out.put(array)


def part_of(array):
    return array[1:3]


def with_gaps(array):
    return array[:, ::2]


def doubled(array):
    return array * 2


def flags_of(array):
    return array.flags.writeable, array.dtype.name, array.shape


def die_with(array):
    array[0, 0] = 5
    os.kill(os.getpid(), signal.SIGKILL)


@unittest.skipIf(numpy is None, 'numpy is not installed')
class Numpy(unittest.TestCase):
    def setUp(self):
        self.pool = multiprocessing.Pool(1)
        self.addCleanup(self.pool.join)
        self.addCleanup(self.pool.terminate)

    def assertSameMemory(self, first, second):
        second[...] = 0
        first.flat[0] = 42
        self.assertEqual(second.flat[0], 42)

    def test_an_array_comes_back_as_the_same_memory(self):
        array = new_array()
        queues = multiprocessing.Queue(), multiprocessing.Queue()
        child = multiprocessing.Process(target=fill, args=queues)
        child.start()
        queues[0].put(array)
        back = queues[1].get(timeout=LIMIT)
        child.join()
        self.assertTrue((array == 7).all())
        self.assertEqual((back.dtype, back.shape), (array.dtype, array.shape))
        self.assertSameMemory(array, back)

    def test_every_type_and_shape_is_kept(self):
        for dtype in sorted(arrays._TYPES):
            for shape in [(), (0,), (3,), (2, 0, 4), (2, 3, 4)]:
                array = new_array(dtype, shape, offset=16)
                self.assertEqual(self.pool.apply(flags_of, (array,)), (True, dtype, shape))

    def test_a_contiguous_part_is_part_of_the_same_memory(self):
        array = new_array()
        part = self.pool.apply(part_of, (array,))
        self.assertSameMemory(array[1:3], part)

    def test_what_is_no_view_is_copied(self):
        array = new_array()
        array[...] = 1
        for function in with_gaps, doubled:
            back = self.pool.apply(function, (array,))
            self.assertTrue((back == function(array)).all())
            back[...] = 9
            self.assertTrue((array == 1).all())

    def test_a_read_only_view_stays_one(self):
        array = new_array(readonly=True)
        with self.assertRaisesRegex(ValueError, 'read-only'):
            array[0, 0] = 1
        self.assertEqual(self.pool.apply(flags_of, (array,))[0], False)

    def test_the_memory_lives_as_long_as_a_view(self):
        array = new_array()
        array[...] = 3
        part = array[2]
        del array
        gc.collect()
        self.assertEqual(part.tolist(), [3] * 5)
        self.assertEqual(self.pool.apply(numpy.sum, (part,)), 15)

    def test_a_worker_that_dies_leaves_the_array_to_the_others(self):
        array = new_array()
        with self.assertRaisesRegex(Exception, 'SIGKILL'):
            self.pool.apply(die_with, (array,))
        self.assertEqual(array[0, 0], 5)
        self.assertEqual(self.pool.apply(flags_of, (array,)), (True, 'float32', (4, 5)))

    def test_plain_arrays_are_pickled_as_ever(self):
        array = numpy.arange(10.0)
        self.assertEqual(self.pool.apply(doubled, (array,)).tolist(), (array * 2).tolist())
        new_array()  # From here on numpy's arrays have a reducer.
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            self.assertEqual(pickle.loads(pickle.dumps(array, protocol)).tolist(), array.tolist())
        for plain in array, array[::2], numpy.asfortranarray(numpy.ones((3, 4))), numpy.array(['text', None]):
            self.assertEqual(self.pool.apply(numpy.ndarray.tolist, (plain,)), plain.tolist())


WITHOUT_NUMPY = """
import sys
sys.modules['numpy'] = None
import _pyhost, multiprocessing
from pyhost import arrays

def answer(view):
    view[0, 1] = 2.5
    return view

if __name__ == '__main__':
    view = arrays.attach(_pyhost.Memory(100), 'float64', (2, 3), 8, False)
    assert type(view) is memoryview and view.shape == (2, 3) and view.format == 'd', view
    frozen = arrays.attach(view.obj, 'int16', (4,), 0, True)
    assert frozen.readonly
    with multiprocessing.Pool(1) as pool:
        back = pool.apply(answer, (view,))
        assert view[0, 1] == 2.5 and back.shape == (2, 3), back.shape
        back[1, 2] = 7
        assert view[1, 2] == 7
        assert pool.apply(len, (frozen,)) == 4
        try:
            pool.apply(len, (memoryview(b'abc'),))
        except TypeError as error:
            assert "cannot pickle 'memoryview' object" in str(error), error
        else:
            raise AssertionError('a memoryview of private memory was pickled')
    try:
        arrays.attach(_pyhost.Memory(100), 'complex64', (2,), 0, False)
    except TypeError as error:
        assert 'needs numpy' in str(error)
    print('fine')
"""


class Memoryviews(unittest.TestCase):
    def test_without_numpy_an_array_is_a_memoryview(self):
        done = subprocess.run([sys.executable, '-c', WITHOUT_NUMPY], capture_output=True, text=True, timeout=LIMIT)
        self.assertEqual((done.stdout, done.stderr, done.returncode), ('fine\n', '', 0))


class Offsets(unittest.TestCase):
    def test_a_memory_knows_what_lies_in_it(self):
        memory, other = _pyhost.Memory(100), _pyhost.Memory(100)
        view = memoryview(memory)
        self.assertEqual(memory.offset_of(view[7:20]), 7)
        self.assertEqual(memory.offset_of(view[7:20].toreadonly()), 7)
        self.assertEqual(memory.offset_of(memory), 0)
        self.assertIsNone(other.offset_of(view))
        self.assertIsNone(memory.offset_of(b'abc'))
        with self.assertRaises(TypeError):
            memory.offset_of(3)


if __name__ == '__main__':
    unittest.main()
