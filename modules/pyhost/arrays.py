"""Arrays of a C++ engine (pyhost::SharedArray) in Python: numpy arrays over the session's shared memory, or memoryviews
where numpy is missing.  Nothing is copied, on the way in or back.

What is sent by whom:

    the engine sends a SharedArray           attach(memory, ...): a view of the same memory
    the engine sends a std::span             copied(bytes, ...): an array of one's own
    a script returns a view it was given,    attach(memory, ...): the engine sees the same memory
    or a contiguous part of it
    a script returns any other array         numpy's own way: copied once, into shared memory when it is large

The memory lives as long as a view of it does, in whichever process.
"""

import math
import sys

__all__ = ['attach', 'copied']

# numpy's name -> the letter that memoryview has for it.  The complex ones have none.
_FORMATS = {'bool': '?', 'int8': 'b', 'int16': 'h', 'int32': 'i', 'int64': 'q', 'uint8': 'B', 'uint16': 'H', 'uint32': 'I',
            'uint64': 'Q', 'float32': 'f', 'float64': 'd'}
_NAMES = {**{letter: name for name, letter in _FORMATS.items()}, 'l': 'int64', 'L': 'uint64'}

_TYPES = {*_FORMATS, 'complex64', 'complex128'}

_numpy = None  # the module; False: there is none


def attach(memory, dtype, shape, offset, readonly):
    """An array over shared memory: `shape` elements of `dtype` (numpy's name) from byte `offset` on."""
    view = _view(memory, dtype, shape, offset)
    if not readonly:
        return view
    if isinstance(view, memoryview):
        return view.toreadonly()
    view.flags.writeable = False
    return view


def copied(data, dtype, shape):
    """An array over a bytearray."""
    return _view(data, dtype, shape, 0)


def _view(memory, dtype, shape, offset):
    numpy = _find_numpy()
    if numpy:
        return numpy.ndarray(shape, dtype, memory, offset)
    if dtype not in _FORMATS:
        raise TypeError(f'an array of {dtype} needs numpy, which cannot be imported')
    form = _FORMATS[dtype]
    size = math.prod(shape) * memoryview(b'').cast(form).itemsize
    view = memoryview(memory)[offset:offset + size]
    if 0 in shape:
        # A memoryview has no shape with a zero in it.
        return view.cast(form)
    return view.cast(form, shape) if shape else view.cast(form, ())


def _find_numpy():
    """numpy, imported with the first array; from then on views know how to travel."""
    global _numpy
    if _numpy is None:
        try:
            import numpy
        except ImportError:
            _numpy = False
            _register(memoryview, _reduce_memoryview)
        else:
            _numpy = numpy
            _register(numpy.ndarray, _reduce_array)
    return _numpy


def by_value(array):
    """How any numpy array is pickled in messages.

    A read-only one arrives writable, as it does under python3 before 3.14, whose pickles are of protocol 4: it is the
    receiver's own.
    """
    return array.__reduce_ex__(5 if array.flags.writeable or sys.version_info >= (3, 14) else 4)


def _register(kind, reduce):
    # Only where there is shared memory: python3 reads pickles with this module and no more.
    if '_pyhost' in sys.modules:
        sys.modules['_pyhost']._array_reducers[kind] = reduce


def _reduce_array(array):
    """How a numpy array is pickled: a contiguous view of shared memory by reference, any other as ever."""
    memory = _memory_of(array)
    if memory is None or not array.flags.c_contiguous or array.dtype.name not in _TYPES or not array.dtype.isnative:
        return by_value(array)
    return attach, (memory, array.dtype.name, array.shape, memory.offset_of(array), not array.flags.writeable)


def _memory_of(array):
    """The shared memory that a numpy array lies in, or None."""
    import _pyhost
    base = array.base
    while base is not None and not isinstance(base, _pyhost.Memory):
        base = base.obj if isinstance(base, memoryview) else getattr(base, 'base', None)
    return base


def _reduce_memoryview(view):
    import _pyhost
    memory = view.obj
    if not isinstance(memory, _pyhost.Memory) or not view.c_contiguous or view.format not in _NAMES:
        raise TypeError(f'cannot pickle {type(view).__name__!r} object')
    return attach, (memory, _NAMES[view.format], view.shape, memory.offset_of(view), view.readonly)
