"""The way to what cannot be pickled (multiprocessing/pickle_errors.py): pyhost's own, so it runs under pyhost alone."""

import collections
import functools
import pickle
import threading
import unittest

from script import UNDER_PYHOST

if UNDER_PYHOST:
    from multiprocessing import pickle_errors


class Box:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def method(self):
        """A method to pickle with its object."""


class Slots:
    __slots__ = ('content',)


class Deep:
    def __init__(self, below):
        self.below = below


class Stubborn(Exception):
    def __init__(self, first, second):
        super().__init__(first, second)


class RaisesStubborn:
    def __reduce__(self):
        raise Stubborn(1, 2)


@unittest.skipUnless(UNDER_PYHOST, 'python3 names no way')
class PathTest(unittest.TestCase):
    def path(self, obj):
        found = pickle_errors.find_path(obj, name='it')
        return found and found[0]

    def test_what_can_be_pickled_has_none(self):
        for obj in (1, [1, {'a': (2, {3})}], Box(x=1), Box, print, functools.partial(print, 1)):
            self.assertIsNone(self.path(obj))

    def test_containers(self):
        lock = threading.Lock()
        self.assertEqual('it', self.path(lock))
        self.assertEqual('it[1]', self.path([0, lock]))
        self.assertEqual("it['a'][0]", self.path({'a': (lock,)}))
        self.assertRegex(self.path({1, lock}), '^it item <unlocked')
        self.assertRegex(self.path({lock: 1}), '^it key <unlocked')

    def test_attributes(self):
        lock = threading.Lock()
        self.assertEqual('it.a.b[0]', self.path(Box(a=Box(b=[lock]))))
        slots = Slots()
        slots.content = lock
        self.assertEqual('it.content', self.path(slots))
        self.assertEqual('it[0]', self.path(collections.deque([lock])))
        self.assertEqual("it['a']", self.path(collections.OrderedDict(a=lock)))

    def test_callables(self):
        lock = threading.Lock()
        self.assertEqual('it.args[1]', self.path(functools.partial(print, 1, lock)))
        self.assertEqual("it.keywords['end']", self.path(functools.partial(print, end=lock)))
        self.assertEqual('it.__self__.a', self.path(Box(a=lock).method))

    def test_cycles_end(self):
        box = Box(lock=threading.Lock())
        box.again = box
        self.assertIn(self.path(box), ('it.lock', 'it.again.lock'))

    def test_first_of_several(self):
        self.assertEqual('it[0]', self.path([threading.Lock(), threading.Lock()]))

    def test_kind_of_the_error_stays(self):
        for obj, kind in (([threading.Lock()], TypeError), ([lambda: None], (AttributeError, pickle.PicklingError))):
            try:
                pickle.dumps(obj)
            except Exception as error:
                explained = pickle_errors.explain(error, obj, name='it')
                self.assertIsInstance(explained, kind)
                self.assertTrue(str(explained).startswith(f'it[0]: {error}'), explained)
                self.assertIs(error, explained.__cause__)  # with what its traceback, causes and notes tell

    def test_error_of_a_class_of_its_own_gets_a_note(self):
        obj = [RaisesStubborn()]
        try:
            pickle.dumps(obj)
        except Stubborn as error:
            explained = pickle_errors.explain(error, obj, name='it')
            self.assertIs(error, explained)
            self.assertTrue(any('it[0]' in note for note in explained.__notes__), explained.__notes__)

    def test_deep_objects_end(self):
        deep = Deep(threading.Lock())
        for _ in range(50):
            deep = Deep(deep)
        self.assertEqual('it' + '.below' * 51, self.path(deep))


if __name__ == '__main__':
    unittest.main()
