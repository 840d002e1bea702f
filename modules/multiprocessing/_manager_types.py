"""The types of shared objects that a SyncManager's server makes, as far as no other module has them."""

import array
import threading

__all__ = ()


class Namespace:
    """An object for attributes."""

    def __init__(self, /, **kwds):
        self.__dict__.update(kwds)

    def __repr__(self):
        items = sorted(f'{name}={value!r}' for name, value in self.__dict__.items() if not name.startswith('_'))
        return f'{type(self).__name__}({", ".join(items)})'


class Value:
    """An object with one attribute, `value`."""

    def __init__(self, typecode, value, lock=True):
        self._typecode = typecode
        self._value = value

    def get(self):
        return self._value

    def set(self, value):
        self._value = value

    def __repr__(self):
        return f'{type(self).__name__}({self._typecode!r}, {self._value!r})'

    value = property(get, set)


def Array(typecode, sequence, lock=True):
    """An array.array."""
    return array.array(typecode, sequence)


if hasattr(threading.RLock(), 'locked'):
    RLock, Condition = threading.RLock, threading.Condition
else:
    # Python 3.14 has these; here is the same for older versions.

    class RLock(threading._RLock):
        """A threading.RLock with `locked()`."""

        def acquire(self, blocking=True, timeout=-1):
            return bool(super().acquire(blocking, timeout))

        __enter__ = acquire

        def locked(self):
            """Whether any thread holds the lock."""
            return self._owner is not None

    class Condition(threading.Condition):
        """A threading.Condition with `locked()`."""

        def __init__(self, lock=None):
            super().__init__(RLock() if lock is None else lock)

        def locked(self):
            """Whether any thread holds the underlying lock."""
            return self._lock.locked()
