"""Plain builtins are pickled and unpickled without a pickler: pickle itself is the oracle, object by object.

PYHOST_CODEC_ROUNDS sets how many random objects are tried; PYHOST_CODEC_SEED repeats a run.
"""

import contextlib
import enum
import io
import multiprocessing
import multiprocessing.reduction
import os
import pickle
import random
import string
import sys
import unittest

ROUNDS = int(os.environ.get('PYHOST_CODEC_ROUNDS', 1000))
SEED = int(os.environ.get('PYHOST_CODEC_SEED', random.randrange(1 << 32)))

NUMBERS = [0, 1, -1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -2**31, -2**31 - 1, 2**63 - 1, 2**63, -2**63, -2**63 - 1,
           2**200, -2**200, 0.0, -0.0, 1.5, float('inf'), -float('inf'), float('nan'), 5e-324]
TEXTS = ['', 'a', 'text', 'x' * 255, 'x' * 256, 'y' * 20_000, '\xe4', '\u20ac' * 200, '\U0001f40d', 'a\0b', '\ud800',
         b'', b'a', b'\xff' * 255, b'\0' * 256, b'z' * 20_000]


class Maker:
    """Makes random objects in which things occur more than once."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.made = []

    def make(self, depth=4):
        if self.made and self.random.random() < 0.2:
            return self.random.choice(self.made)
        if depth == 0 or self.random.random() < 0.4:
            obj = self.make_scalar()
        else:
            obj = self.make_container(depth - 1)
        self.made.append(obj)
        return obj

    def make_scalar(self):
        kind = self.random.randrange(6)
        if kind == 0:
            return self.random.choice([None, True, False])
        if kind == 1:
            return self.random.choice(NUMBERS)
        if kind == 2:
            return self.random.choice(TEXTS)
        if kind == 3:
            return self.random.randrange(-2**self.random.randrange(70), 2**self.random.randrange(70))
        if kind == 4:
            return self.random.random()
        return ''.join(self.random.choices(string.ascii_uppercase, k=self.random.randrange(12)))

    def make_container(self, depth):
        kind = self.random.choice([tuple, list, dict, set, frozenset])
        size = self.random.choice([0, 1, 1, 2, 3, 4, 5, 20])
        if kind is dict:
            return {self.make_key(depth): self.make(depth) for _ in range(size)}
        if kind in (set, frozenset):
            return kind(self.make_key(depth) for _ in range(size))
        obj = kind(self.make(depth) for _ in range(size))
        if kind is list and self.random.random() < 0.1:
            obj.append(self.random.choice([obj, [obj], {'self': obj}, (obj, obj)]))  # inside of itself
        return obj

    def make_key(self, depth):
        key = self.make(depth)
        try:
            hash(key)
        except (TypeError, RecursionError):  # the latter: a tuple inside of itself
            return self.random.random()
        return 7 if 'nan' in repr(key) else key  # see outcome()


def shape(obj):
    """Everything that can be seen of an object: types, values, order, and which parts are the same object."""
    numbers, seen, pending = {}, [], [obj]
    while pending:
        part = pending.pop()
        if part is None or isinstance(part, (bool, int, float)):
            seen.append((type(part), repr(part)))
            continue
        if id(part) in numbers:
            seen.append(numbers[id(part)])
            continue
        numbers[id(part)] = len(numbers)
        if isinstance(part, (str, bytes)):
            seen.append((type(part), part))
            continue
        seen.append((type(part), len(part)))
        pending.extend([*part, *part.values()] if isinstance(part, dict) else part)
    return seen


def outcome(load):
    """What loading gives: a shape, or the type of the exception."""
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            seen = shape(load())
            # A NaN is hashed by its address: sets with it have no order that could be compared.
            return len(seen) if (float, 'nan') in seen else seen
        except Exception as error:
            return type(error)


def can_be_pickled(obj):
    try:
        pickle.dumps(obj)
    except RecursionError:
        return False
    return True


class CodecTest(unittest.TestCase):
    def setUp(self):
        self.box = multiprocessing.Queue()._queue

    def written(self, obj):
        self.box.put(obj)
        return self.box.get_pickle()

    def read(self, data):
        self.box.put_pickle(data)
        return self.box.get()

    def assert_crosses(self, obj):
        expected = shape(pickle.loads(pickle.dumps(obj, 5)))
        written = self.written(obj)
        self.assertEqual(shape(pickle.loads(written)), expected)
        self.assertEqual(shape(self.read(written)), expected)
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            data = pickle.dumps(obj, protocol)
            self.assertEqual(shape(self.read(data)), shape(pickle.loads(data)))

    def test_scalars(self):
        for obj in [None, True, False, *NUMBERS, *TEXTS, (), [], {}, set(), frozenset()]:
            with self.subTest(repr(obj)[:30]):
                self.assert_crosses(obj)
                self.assert_crosses([obj, obj, {'again': obj}])

    def test_random_objects(self):
        for seed in range(SEED, SEED + ROUNDS):
            with self.subTest(seed=seed):
                self.assert_crosses(Maker(seed).make())

    def test_damaged_pickles_end_as_they_do_in_pickle(self):
        # Only opcodes that make builtins: others could call anything.
        opcodes = b'(.NKMJG\x8a\x88\x89\x8cXCB)t\x85\x86\x87]ae}su\x8f\x90\x91\x94hj\x80\x95\x00\x01\x02\x03'
        for seed in range(SEED, SEED + ROUNDS):
            maker = Maker(seed)
            data = bytearray(pickle.dumps([maker.make(3), maker.make(3)], 5))
            for _ in range(maker.random.randrange(1, 4)):
                place = maker.random.randrange(2, len(data))
                if maker.random.random() < 0.3:
                    del data[place:]
                    break
                data[place] = maker.random.choice(opcodes)
            with self.subTest(seed=seed, data=bytes(data[:200])):
                self.assertEqual(outcome(lambda: self.read(bytes(data))), outcome(lambda: pickle.loads(bytes(data))))

    def test_an_object_inside_of_itself(self):
        alone, pair, table = [], ([],), {}
        alone.append(alone)
        pair[0].append(pair)
        table['self'] = [table, (table,)]
        for obj in alone, pair, table, [alone, pair], (table, table):
            self.assert_crosses(obj)

    def test_many_shared_objects(self):
        names = [f'name {number}' for number in range(1000)]
        self.assert_crosses([names, {name: [name] for name in names}, tuple(names)])

    def test_deep_objects(self):
        for depth in 50, 99, 100, 101, 150:
            obj = []
            for _ in range(depth):
                obj = [obj]
            self.assert_crosses(obj)
        while can_be_pickled(obj):  # from 3.14 on that depends on the stack
            for _ in range(sys.getrecursionlimit() * 20):
                obj = [obj]
        try:
            self.box.put(obj)
        except RecursionError:
            pass
        else:  # 3.14's pickler goes as deep as there is stack, and that depends on where it begins
            self.assertIsInstance(self.box.get(), list)
        self.assert_crosses([1])

    def test_subclasses_and_other_types_are_left_to_the_pickler(self):
        for obj in Text('t'), Table(a=1), Number(3), Color.RED, bytearray(b'x'), 1j, range(3), int, [Table(), Text()]:
            self.box.put([obj, obj])
            first, second = self.box.get()
            self.assertEqual((type(first), first), (type(obj), obj))
            if pickle.loads(pickle.dumps([obj, obj]))[0] is pickle.loads(pickle.dumps([obj, obj]))[1]:
                self.assertIs(first, second)

    def test_a_pickler_that_the_program_put_in_place_is_asked(self):
        class Counting(multiprocessing.reduction.ForkingPickler):
            dumped = 0

            def dump(self, obj):
                Counting.dumped += 1
                super().dump(obj)

        own = multiprocessing.reduction.ForkingPickler
        multiprocessing.reduction.ForkingPickler = Counting
        try:
            self.box.put({'a': 1})
            self.box.put_many([1, 2])
        finally:
            multiprocessing.reduction.ForkingPickler = own
        self.assertEqual(Counting.dumped, 3)
        self.assertEqual(self.box.get_many(3), [{'a': 1}, 1, 2])

    def test_nothing_is_lost_or_kept(self):
        obj = {'list': [object.__name__ + 'x', 10**12, 1.25], 'tuple': (b'bytes' * 10, 'text' * 10), 'set': {1000001}}
        counts = [sys.getrefcount(part) for part in (obj, *obj.values())]
        for _ in range(100):
            self.box.put(obj)
            self.box.get()
            self.box.put_many([obj, obj])
            self.box.get_many(2)
        self.assertEqual([sys.getrefcount(part) for part in (obj, *obj.values())], counts)


class Text(str):
    pass


class Table(dict):
    pass


class Number(int):
    pass


class Color(enum.Enum):
    RED = 1


if __name__ == '__main__':
    unittest.main()
