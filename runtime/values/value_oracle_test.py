"""What C++ makes of Python's pickles, and Python of C++'s: random values through the program value_echo and back.

usage: value_oracle_test.py VALUE_ECHO [unittest's arguments]

PYHOST_VALUES_ROUNDS: how many random values (default 200); PYHOST_VALUES_SEED: another choice of them.
"""

import array
import collections
import datetime
import fractions
import math
import os
import pickle
import random
import struct
import subprocess
import sys
import unittest

try:
    import numpy
except ImportError:
    numpy = None

ROUNDS = int(os.environ.get('PYHOST_VALUES_ROUNDS', '200'))
SEED = int(os.environ.get('PYHOST_VALUES_SEED', '1'))
PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)
PICKLERS = {'C': pickle.dumps, 'Python': pickle._dumps}


class Echo:
    """The C++ program, as a function from bytes to bytes."""

    def __init__(self, program):
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, data):
        self._process.stdin.write(struct.pack('<Q', len(data)) + data)
        self._process.stdin.flush()
        size, = struct.unpack('<Q', self._process.stdout.read(8))
        return self._process.stdout.read(size)

    def close(self):
        self._process.stdin.close()
        code = self._process.wait()
        self._process.stdout.close()
        return code


def random_text(choice):
    alphabet = choice.choice(['ab', 'aé', 'x🌍\0', '\x7f\x80߿ࠀ￿\U00010000\U0010ffff'])
    return ''.join(choice.choices(alphabet, k=choice.choice([0, 1, 5, 255, 256, 300])))


def random_atom(choice):
    return choice.choice([
        lambda: None,
        lambda: choice.random() < 0.5,
        lambda: choice.randrange(-300, 300),
        lambda: choice.choice([-1, 1]) * (1 << choice.randrange(0, 130)) + choice.randrange(-1, 2),
        lambda: choice.getrandbits(choice.choice([2040, 2050, 9000])) - (1 << 2039),
        lambda: choice.choice([0.0, -0.0, 1.5, math.inf, -math.inf, 5e-324, 1.7e308]),
        lambda: choice.random(),
        lambda: complex(choice.random(), -0.0),
        lambda: random_text(choice),
        lambda: choice.randbytes(choice.choice([0, 1, 255, 256, 1000])),
        lambda: bytearray(choice.randbytes(choice.choice([0, 3, 300]))),
    ])()


def random_key(choice):
    """Something with a hash."""
    return random_atom(choice) if choice.random() < 0.8 else tuple(random_key(choice) for _ in range(2))


def random_hashable(choice):
    while True:
        value = random_key(choice)
        try:
            hash(value)
        except TypeError:
            continue
        return value


def random_value(choice, depth):
    if depth == 0 or choice.random() < 0.3:
        return random_atom(choice)
    count = choice.choice([0, 1, 2, 3, 4, 20])
    shared = random_value(choice, depth - 1)
    part = lambda: shared if choice.random() < 0.3 else random_value(choice, depth - 1)
    return choice.choice([
        lambda: [part() for _ in range(count)],
        lambda: tuple(part() for _ in range(count)),
        lambda: {random_hashable(choice): part() for _ in range(count)},
        lambda: {random_hashable(choice) for _ in range(count)},
        lambda: frozenset(random_hashable(choice) for _ in range(count)),
    ])()


def shape(value):
    """The value with the types of all its parts, comparable."""
    if isinstance(value, (list, tuple)):
        return type(value), [shape(part) for part in value]
    if isinstance(value, dict):
        return type(value), [(shape(key), shape(part)) for key, part in value.items()]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(map(repr, map(shape, value)))
    # Not str(): Python refuses to write out very large integers in decimal.
    return type(value), hex(value) if type(value) is int else repr(value)


class Oracle(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.echo = Echo(PROGRAM)

    @classmethod
    def tearDownClass(cls):
        code = cls.echo.close()
        assert code == 0, f'value_echo ended with {code}'

    def through(self, data):
        answer = self.echo(data)
        self.assertFalse(answer.startswith(b'error: '), answer[:500])
        return pickle.loads(answer)

    def assertComesBack(self, value, expected=None):
        expected = value if expected is None else expected
        for protocol in PROTOCOLS:
            for name, dumps in PICKLERS.items():
                with self.subTest(protocol=protocol, pickler=name):
                    self.assertEqual(shape(self.through(dumps(value, protocol))), shape(expected))

    def assertRefused(self, value, reason):
        for protocol in PROTOCOLS:
            answer = self.echo(pickle.dumps(value, protocol)).decode()
            self.assertTrue(answer.startswith('error: '), (protocol, answer[:500]))
            self.assertRegex(answer, reason)

    def test_random_values_come_back_as_they_were(self):
        for round in range(ROUNDS):
            choice = random.Random(f'{SEED}.{round}')
            with self.subTest(round=round, seed=SEED):
                self.assertComesBack(random_value(choice, depth=4))

    def test_large_values(self):
        self.assertComesBack(list(range(-5000, 5000)))
        self.assertComesBack({number: str(number) for number in range(3000)})
        self.assertComesBack(['x' * 70000, b'y' * 70000, bytearray(70000), 1 << 100_000, -(1 << 2047)])
        self.assertComesBack(set(range(5000)))

    def test_what_stands_in_a_value_twice_stands_there_twice(self):
        part = ['shared']
        self.assertComesBack([part, {'again': part}, (part, part), [part] * 300])

    def test_dictionaries_of_collections_are_dictionaries(self):
        self.assertComesBack(collections.OrderedDict(a=1, b=[2]), {'a': 1, 'b': [2]})
        self.assertComesBack(collections.Counter('hello'), dict(collections.Counter('hello')))
        self.assertComesBack(collections.defaultdict(list, {'a': [1]}), {'a': [1]})
        self.assertComesBack(collections.deque([1, 2, 3], maxlen=5), [1, 2, 3])

    def test_framing_and_optimized_pickles(self):
        import pickletools
        value = [['x' * 100] * 3, {'key': ('x' * 70000, 5)}]
        for protocol in PROTOCOLS:
            self.assertEqual(self.through(pickletools.optimize(pickle.dumps(value, protocol))), value)

    def test_other_objects_are_errors_that_name_their_type(self):
        self.assertRefused([1, datetime.timedelta(1)], r'\[1\]: expected a plain value, got an object of type datetime.timedelta')
        self.assertRefused({'a': fractions.Fraction(1, 3)}, r'\["a"\]: .* an object of type fractions.Fraction')
        self.assertRefused(Point(1, 2), r'object of type .*\.Point')
        self.assertRefused(len, r'the function or class len')
        self.assertRefused(range(3), r'object of type range|object of type xrange')
        self.assertRefused(Subclass([1, 2]), r'object of type .*Subclass')
        self.assertRefused(array.array('d', [1]), r'object of type array')

    def test_a_str_that_utf8_cannot_hold_is_an_error(self):
        self.assertRefused(['ok', 'a\ud800'], r'\[1\]: .*lone surrogate at byte 1')

    def test_recursive_values_are_errors(self):
        loop = []
        loop.append(loop)
        self.assertRefused(loop, 'contains itself')
        knot = ([],)
        knot[0].append(knot)
        self.assertRefused(knot, 'contains itself')
        ring = {}
        ring['self'] = ring
        self.assertRefused(ring, 'contains itself')

    @unittest.skipIf(numpy is None, 'numpy is not installed')
    def test_numpys_numbers_are_plain_numbers(self):
        self.assertComesBack([numpy.float64(0.5), numpy.float32(0.25), numpy.bool_(True), numpy.complex64(1 + 2j)],
                             [0.5, 0.25, True, 1 + 2j])
        for dtype in 'int8 int16 int32 int64 uint8 uint16 uint32 uint64'.split():
            info = numpy.iinfo(dtype)
            self.assertComesBack([info.dtype.type(info.min), info.dtype.type(info.max)], [int(info.min), int(info.max)])
        self.assertRefused(numpy.datetime64('2026-01-01'), 'a numpy number of a type that only Python has')

    @unittest.skipIf(numpy is None, 'numpy is not installed')
    def test_numpys_arrays_keep_type_and_shape(self):
        for dtype in 'bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 complex64 complex128'.split():
            for shape in [(), (0,), (3,), (2, 3), (2, 0, 4), (2, 3, 4)]:
                sent = (numpy.arange(math.prod(shape)) % 7).reshape(shape).astype(dtype)
                for protocol in PROTOCOLS:
                    back = self.through(pickle.dumps(sent, protocol))
                    self.assertEqual((back.dtype, back.shape), (sent.dtype, sent.shape))
                    self.assertTrue((back == sent).all())

    @unittest.skipIf(numpy is None, 'numpy is not installed')
    def test_arrays_that_cpp_cannot_have_are_errors(self):
        for sent in (numpy.asfortranarray(numpy.ones((3, 4))), numpy.array(['a', 'b']), numpy.array([None, 1]),
                     numpy.ones(3, '>f8'), numpy.ones(3, 'f2')):
            self.assertRefused(sent, 'a numpy array of an order or an element type that only Python has')
        # Slices with gaps are copied by pickle itself.
        self.assertEqual(self.through(pickle.dumps(numpy.arange(10.0)[::2], 5)).tolist(), [0, 2, 4, 6, 8])

class Subclass(list):
    pass


Point = collections.namedtuple('Point', 'x y')


def load_arrays():
    """pyhost.arrays without the package's own start: python3 has no _pyhost."""
    import importlib.util
    folder = os.path.join(os.path.dirname(__file__), '..', '..', 'modules', 'pyhost')
    for name in ('pyhost', 'pyhost.arrays'):
        spec = importlib.util.spec_from_file_location(name, os.path.join(folder, ('__init__' if name == 'pyhost' else 'arrays') + '.py'))
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])


if __name__ == '__main__':
    PROGRAM = sys.argv.pop(1)
    load_arrays()
    unittest.main()
