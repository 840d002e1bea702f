"""Random numbers in children that begin as copies: children differ, and a seeded program stays reproducible.

The standard library reseeds `random` in every fork by itself.  numpy's global generator is derived from the
state that the child inherited and the child's number.
"""

import sys

__all__ = ['derive_numpy']


def derive_numpy(identity):
    """Derives numpy's legacy global generator for the child `identity` (numbers from the root down)."""
    numpy_random = sys.modules.get('numpy.random')
    if numpy_random is None:
        return
    name, key, position = numpy_random.get_state(legacy=True)[:3]
    if name != 'MT19937':
        return  # the program installed a generator of its own, which it must look after
    seeds = numpy_random.SeedSequence([int(word) for word in key] + [position], spawn_key=tuple(identity))
    numpy_random.set_state((name, seeds.generate_state(624), 624))
