"""ctypes objects in the session's shared memory: `RawValue`, `RawArray`, and `Value`, `Array` with a lock."""

import ctypes
import weakref

import _pyhost

from . import get_context
from . import heap
from .context import reduction

__all__ = ['RawValue', 'RawArray', 'Value', 'Array', 'copy', 'synchronized']

_ForkingPickler = reduction.ForkingPickler

# The one-letter codes of the array module, and c for a character.
typecode_to_type = {
    'c': ctypes.c_char, 'u': ctypes.c_wchar,
    'b': ctypes.c_byte, 'B': ctypes.c_ubyte,
    'h': ctypes.c_short, 'H': ctypes.c_ushort,
    'i': ctypes.c_int, 'I': ctypes.c_uint,
    'l': ctypes.c_long, 'L': ctypes.c_ulong,
    'q': ctypes.c_longlong, 'Q': ctypes.c_ulonglong,
    'f': ctypes.c_float, 'd': ctypes.c_double,
}


def _new_value(type_):
    return rebuild_ctype(type_, heap.BufferWrapper(ctypes.sizeof(type_)), None)


def _new_zeroed(type_):
    obj = _new_value(type_)
    ctypes.memset(ctypes.addressof(obj), 0, ctypes.sizeof(obj))
    return obj


def RawValue(typecode_or_type, *args):
    """A ctypes object in shared memory, without a lock."""
    obj = _new_zeroed(typecode_to_type.get(typecode_or_type, typecode_or_type))
    obj.__init__(*args)
    return obj


def RawArray(typecode_or_type, size_or_initializer):
    """A ctypes array in shared memory, without a lock: zeroed, of a given length, or a copy of a sequence."""
    element = typecode_to_type.get(typecode_or_type, typecode_or_type)
    if isinstance(size_or_initializer, int):
        return _new_zeroed(element * size_or_initializer)
    array = _new_value(element * len(size_or_initializer))
    array.__init__(*size_or_initializer)
    return array


def _with_lock(obj, lock, ctx):
    if lock is False:
        return obj
    if lock in (True, None):
        ctx = ctx or get_context()
        lock = ctx.RLock()
    if not hasattr(lock, 'acquire'):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return synchronized(obj, lock, ctx=ctx)


def Value(typecode_or_type, *args, lock=True, ctx=None):
    """A ctypes object in shared memory with a lock of its own (True), a given one, or none (False)."""
    return _with_lock(RawValue(typecode_or_type, *args), lock, ctx)


def Array(typecode_or_type, size_or_initializer, *, lock=True, ctx=None):
    """A ctypes array in shared memory with a lock of its own (True), a given one, or none (False)."""
    return _with_lock(RawArray(typecode_or_type, size_or_initializer), lock, ctx)


def copy(obj):
    """A new ctypes object in shared memory with the contents of `obj`."""
    duplicate = _new_value(type(obj))
    ctypes.pointer(duplicate)[0] = obj
    return duplicate


def synchronized(obj, lock=None, ctx=None):
    """Wrap a ctypes object so that each access takes `lock` (by default a new RLock)."""
    assert not isinstance(obj, SynchronizedBase), 'object already synchronized'
    ctx = ctx or get_context()
    if isinstance(obj, ctypes._SimpleCData):
        return Synchronized(obj, lock, ctx)
    if isinstance(obj, ctypes.Array):
        if obj._type_ is ctypes.c_char:
            return SynchronizedString(obj, lock, ctx)
        return SynchronizedArray(obj, lock, ctx)
    return _structure_wrapper(type(obj))(obj, lock, ctx)


# ---- pickling -----------------------------------------------------------------------------------------------------


def reduce_ctype(obj):
    _pyhost.check_travels(obj)
    if isinstance(obj, ctypes.Array):
        return rebuild_ctype, (obj._type_, obj._wrapper, obj._length_)
    return rebuild_ctype, (type(obj), obj._wrapper, None)


def rebuild_ctype(type_, wrapper, length):
    if length is not None:
        type_ = type_ * length
    _ForkingPickler.register(type_, reduce_ctype)
    obj = type_.from_buffer(wrapper.create_memoryview())
    obj._wrapper = wrapper
    return obj


# ---- wrappers -----------------------------------------------------------------------------------------------------

prop_cache = {}
class_cache = weakref.WeakKeyDictionary()


def make_property(name):
    """A property that reads and writes attribute `name` of the wrapped object under the lock."""
    if name not in prop_cache:
        prop_cache[name] = _pyhost.SynchronizedAttribute(name)
    return prop_cache[name]


def _structure_wrapper(structure):
    """The wrapper class of a ctypes structure: one property a field."""
    wrapper = class_cache.get(structure)
    if wrapper is None:
        properties = {field[0]: make_property(field[0]) for field in structure._fields_}
        wrapper = type('Synchronized' + structure.__name__, (SynchronizedBase,), properties)
        class_cache[structure] = wrapper
    return wrapper


class SynchronizedBase(_pyhost.Synchronized):
    """A ctypes object with a lock.  `with` takes the lock; `get_obj()` and `get_lock()` give the two."""

    def __init__(self, obj, lock=None, ctx=None):
        self._obj = obj
        self._lock = lock or (ctx or get_context(force=True)).RLock()
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __reduce__(self):
        _pyhost.check_travels(self)
        return synchronized, (self._obj, self._lock)

    def __repr__(self):
        return f'<{type(self).__name__} wrapper for {self._obj}>'


class Synchronized(SynchronizedBase):
    value = make_property('value')


class SynchronizedArray(_pyhost.SynchronizedArray, SynchronizedBase):

    def __getslice__(self, start, stop):
        return self[start:stop]

    def __setslice__(self, start, stop, values):
        self[start:stop] = values


class SynchronizedString(SynchronizedArray):
    value = make_property('value')
    raw = make_property('raw')
