"""Random numbers in children that begin as copies: children differ, and a seeded program stays reproducible.

The standard library reseeds `random` in every fork by itself.  numpy's global generator is derived from the
state that the child inherited and the child's number.
"""

import sys

__all__ = ['derive_numpy']

_WORDS = 624  # of the state of MT19937


def derive_numpy(identity):
    """Derives numpy's legacy global generator for the child `identity` (numbers from the root down)."""
    numpy_random = sys.modules.get('numpy.random')
    get_state = getattr(numpy_random, 'get_state', None)  # there is none in the middle of numpy's import, which a fork may hit
    if get_state is None:
        return
    state = get_state(legacy=False)
    if state['bit_generator'] != 'MT19937':
        return  # the program installed a generator of its own, which it must look after
    import hashlib

    import numpy
    # Not numpy's SeedSequence: in a new child each page of code and data that is touched costs, and it touches most.
    derivation = hashlib.shake_256(state['state']['key'])
    derivation.update(repr((state['state']['pos'], tuple(identity))).encode())
    key = numpy.frombuffer(derivation.digest(4 * _WORDS), numpy.uint32)
    numpy_random.set_state(('MT19937', key, _WORDS))
