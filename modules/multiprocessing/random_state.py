"""Random numbers in children that begin as copies: children differ, and a seeded program stays reproducible.

The standard library reseeds `random` in every fork by itself.  numpy's global generator is derived from the
state that the child inherited and the child's number.
"""

import sys

__all__ = ['derive_numpy', 'prepare']

_WORDS = 624  # of the state of MT19937


def prepare():
    """Before a fork after which derive_numpy() is called.

    That imports nothing: a thread that the fork does not take along may hold the lock of an import.
    """
    if 'numpy' in sys.modules:  # which imports numpy.random when it is first used, maybe in the child
        import hashlib  # noqa: F401


def derive_numpy(identity):
    """Derives numpy's legacy global generator for the child `identity` (numbers from the root down)."""
    numpy_random = sys.modules.get('numpy.random')
    get_state = getattr(numpy_random, 'get_state', None)
    shake = getattr(sys.modules.get('hashlib'), 'shake_256', None)
    if get_state is None or shake is None:
        return  # numpy is not there, or the fork came in the middle of its import
    state = get_state(legacy=False)
    if state['bit_generator'] != 'MT19937':
        return  # the program installed a generator of its own, which it must look after
    # Not numpy's SeedSequence: in a new child each page of code and data that is touched costs, and it touches most.
    key = state['state']['key']  # a copy
    derivation = shake(key)
    derivation.update(repr((state['state']['pos'], tuple(identity))).encode())
    memoryview(key).cast('B')[:] = derivation.digest(4 * _WORDS)
    numpy_random.set_state(('MT19937', key, _WORDS))
