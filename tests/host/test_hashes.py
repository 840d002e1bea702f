"""hashlib's algorithms: pyhost has them all, and their digests, attributes and errors are python3's.

Some of Debian's static libpythons lack modules behind hashlib; host/missing_builtins.py has the list, and what stands in
for them (host/blake2_module.cc, host/hash_modules.cc) is compared here parameter by parameter.
"""

import textwrap
import unittest

import oracle

# Data of all lengths around the blocks of every algorithm (64 to 168 bytes), and some that is hashed without the GIL.
DATA = """\
data = [bytes(i % 251 for i in range(size)) for size in (*range(4), *range(62, 68), *range(126, 138), 168, 4096, 100_001)]
"""

GUARANTEED = DATA + """\
import hashlib, hmac
for name in sorted(hashlib.algorithms_guaranteed):
    size = (20,) if name.startswith('shake') else ()
    for make in getattr(hashlib, name), lambda data=b'': hashlib.new(name, data, usedforsecurity=False):
        whole, pieces = [make(item).hexdigest(*size) for item in data], make()
        for item in data:
            pieces.update(memoryview(item))
        print(name, whole, pieces.copy().hexdigest(*size), pieces.digest_size, pieces.block_size, pieces.name)
    if not size:
        print(hmac.new(b'key', data[-1], name).hexdigest())
"""

# The modules behind hashlib, which it uses where OpenSSL may not.
MODULES = DATA + """\
import importlib.util, threading

def refusal(call, *args, **options):
    try:
        return call(*args, **options)
    except (TypeError, ValueError, OverflowError) as error:
        return type(error).__name__

for module in '_md5', '_sha1', '_sha2', '_sha3':
    if importlib.util.find_spec(module) is None:
        continue
    module = importlib.import_module(module)
    for name in sorted(vars(module)):
        make = getattr(module, name)
        if name.startswith('_') or not callable(make) or name.endswith('Type'):
            continue
        size = (70,) if name.startswith('shake') else ()
        whole, pieces = [make(item).hexdigest(*size) for item in data], make(usedforsecurity=False)
        for item in data:
            pieces.update(memoryview(item))
        print(module.__name__, name, type(pieces), whole, pieces.copy().digest(*size), pieces.digest(*size))
        print(pieces.digest_size, pieces.block_size, pieces.name)
        print([getattr(pieces, extra, None) for extra in ('_capacity_bits', '_rate_bits', '_suffix')])
        print(refusal(make, 'text'), refusal(make, 7), refusal(make, b'', b''), refusal(pieces.update, 'text'))
        print(refusal(setattr, type(pieces), 'name', 1), refusal(lambda: type(type(pieces)()) is type(pieces)))
        if size:
            print([refusal(pieces.hexdigest, length) for length in (0, 1, 1000, -1, 2**29, 2**70)], refusal(pieces.digest))
        whole = make()
        threads = [threading.Thread(target=lambda: [whole.update(data[-1]) for _ in range(20)]) for _ in range(4)]
        [thread.start() for thread in threads], [thread.join() for thread in threads]
        print(whole.hexdigest(*size))
"""

BLAKE2 = DATA + """\
import _blake2

def show(*args, **options):
    try:
        made = make(*args, **options)
        print(options, made.hexdigest(), made.digest_size, made.block_size, made.name)
    except (ValueError, OverflowError, TypeError) as error:
        print(options, type(error).__name__, error)

for make in _blake2.blake2b, _blake2.blake2s:
    largest = make.MAX_DIGEST_SIZE
    print(make.__name__, make.SALT_SIZE, make.PERSON_SIZE, make.MAX_KEY_SIZE, largest)
"""


class Hashes(oracle.OracleTestCase):

    def compare(self, program):
        outcome = self.assert_same("-c", program)
        self.assertEqual(0, outcome.code, outcome)
        self.assertTrue(outcome.stdout)

    def compare_blake2(self, code):
        """Runs code that has `make`, `largest`, `data` and `show`, for both variants."""
        self.compare(BLAKE2 + textwrap.indent(textwrap.dedent(code), "    "))

    def test_every_guaranteed_algorithm(self):
        self.compare(GUARANTEED)

    def test_modules_behind_hashlib(self):
        self.compare(MODULES)

    def test_blake2_of_all_lengths(self):
        self.compare_blake2("""\
            for item in data:
                show(item)
                show(item, key=b'a key')
            """)

    def test_blake2_digest_and_key_sizes(self):
        self.compare_blake2("""\
            for size in 1, 2, 20, largest - 1, largest:
                show(data[-1], digest_size=size)
                show(data[-1], key=bytes(range(size)))
            """)

    def test_blake2_parameters_of_a_tree(self):
        self.compare_blake2("""\
            show(b'leaf', salt=b's' * make.SALT_SIZE, person=b'p' * make.PERSON_SIZE)
            show(b'leaf', salt=b's', person=b'p')
            for fanout, depth, leaf, offset, node, inner, last in (
                    (0, 1, 0, 0, 0, 0, False), (2, 2, 4096, 1, 0, largest, True),
                    (255, 255, 2**32 - 1, 2**48 - 1, 255, 1, True), (1, 3, 1, 2**32, 7, 32, False)):
                show(data[-1], fanout=fanout, depth=depth, leaf_size=leaf, node_offset=offset, node_depth=node,
                     inner_size=inner, last_node=last)
            """)

    def test_blake2_values_out_of_range(self):
        self.compare_blake2("""\
            for name, values in {
                    'digest_size': (0, -1, largest + 1), 'key': (b'k' * (largest + 1),), 'salt': (b's' * 17,),
                    'person': (b'p' * 17,), 'fanout': (-1, 256), 'depth': (0, 256), 'leaf_size': (-1, 2**32),
                    'node_offset': (-1, 2**64), 'node_depth': (-1, 256), 'inner_size': (-1, largest + 1)}.items():
                for value in values:
                    show(b'', **{name: value})
            show('text')
            show(7)
            """)

    def test_blake2_copies_go_their_own_ways(self):
        self.compare_blake2("""\
            one = make(b'begin', key=b'secret')
            other = one.copy()
            other.update(b'more')
            print(one.hexdigest(), other.hexdigest(), one.digest() == one.digest())
            """)


if __name__ == "__main__":
    unittest.main()
