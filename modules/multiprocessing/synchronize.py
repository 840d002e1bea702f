"""Locks between processes: `Lock`, `RLock`, `Semaphore`, `BoundedSemaphore`, `Condition`, `Event`, `Barrier`.

Each is a thin class over its `_pyhost` base, which lies in the session's shared memory.  A lock whose holder is killed
raises `OwnerDiedError` once, at the next acquire, and is free from then on.

Process and thread safety: every method may be called from any thread of any process that has the object.
"""

import sys
import threading
import time

import _pyhost
from _pyhost import OwnerDiedError

from . import process
from .context import MadeByContext

__all__ = ['Lock', 'RLock', 'Semaphore', 'BoundedSemaphore', 'Condition', 'Event', 'Barrier', 'OwnerDiedError']

RECURSIVE_MUTEX, SEMAPHORE = range(2)
SEM_VALUE_MAX = _pyhost.SEM_VALUE_MAX


class _OfContext(MadeByContext):
    """The same for objects of native classes, whose arguments are those of __new__."""

    @classmethod
    def _made(cls, ctx, *args):
        """A new object of `ctx`, from the arguments of the native class."""
        made = super().__new__(cls, *args)
        made._note_context(ctx)
        return made

    def __reduce__(self):
        self._check_child()
        return super().__reduce__()


class SemLock:
    """What locks and semaphores have in common; `_semlock` is the name under which the standard library keeps it."""

    kind = SEMAPHORE
    maxvalue = 1
    name = None

    @property
    def _semlock(self):
        return self

    def _is_zero(self):
        return self._get_value() == 0


def _thread_label():
    label = process.current_process().name
    if threading.current_thread().name != 'MainThread':
        label += '|' + threading.current_thread().name
    return label


class Lock(_OfContext, _pyhost.Lock, SemLock):
    """A lock that is not recursive; any process may release it."""

    def __new__(cls, *, ctx=None):
        return cls._made(ctx, False)

    def _owner_label(self):
        if self._is_mine():
            return _thread_label()
        if not self.locked():
            return 'None'
        if self._count() > 0:
            return 'SomeOtherThread'
        return 'SomeOtherProcess'

    def __repr__(self):
        try:
            owner = self._owner_label()
        except Exception:
            owner = 'unknown'
        return f'<{type(self).__name__}(owner={owner})>'


class RLock(_OfContext, _pyhost.Lock, SemLock):
    """A recursive lock: its owner may acquire it again, and must release it as often."""

    kind = RECURSIVE_MUTEX

    def __new__(cls, *, ctx=None):
        return cls._made(ctx, True)

    _owner_label = Lock._owner_label

    def __repr__(self):
        try:
            owner = self._owner_label()
            count = self._count() if owner != 'SomeOtherProcess' else 'nonzero'
            if owner == 'SomeOtherThread':
                count = 'nonzero'
        except Exception:
            owner, count = 'unknown', 'unknown'
        return f'<{type(self).__name__}({owner}, {count})>'


class Semaphore(_OfContext, _pyhost.Semaphore, SemLock):
    """A counter that `acquire` takes from, waiting while it is zero, and `release` adds to."""

    def __new__(cls, value=1, *, ctx=None):
        return cls._made(ctx, value)

    def get_value(self):
        return self._get_value()

    def locked(self):
        """Would `acquire` have to wait?"""
        return self._get_value() == 0

    def _value_label(self):
        try:
            return self._get_value()
        except Exception:
            return 'unknown'

    def __repr__(self):
        return f'<{type(self).__name__}(value={self._value_label()})>'


class BoundedSemaphore(Semaphore):
    """A Semaphore that never exceeds its first value: releasing more raises ValueError."""

    def __new__(cls, value=1, *, ctx=None):
        return cls._made(ctx, value, value)

    def __repr__(self):
        return f'<{type(self).__name__}(value={self._value_label()}, maxvalue={self.maxvalue})>'


class _Count:
    """Read-only stand-in for a semaphore that the standard library's Condition keeps as a counter."""

    def __init__(self, get_value):
        self.get_value = self._get_value = get_value

    @property
    def _semlock(self):
        return self


def _zero():
    return 0


class Condition:
    """A condition variable; `lock` is one of this module's Lock or RLock, by default a new RLock."""

    def __init__(self, lock=None, *, ctx):
        self._set_up(lock or ctx.RLock(), _pyhost.Condition())

    def _set_up(self, lock, waiters):
        if not isinstance(lock, _pyhost.Lock):
            raise TypeError(f'a Condition needs a multiprocessing Lock or RLock, not {type(lock).__name__}')
        self._lock = lock
        self._waiters = waiters
        self.acquire = lock.acquire
        self.release = lock.release
        self.locked = lock.locked

    def __getstate__(self):
        _pyhost.check_travels(self)
        return self._lock, self._waiters

    def __setstate__(self, state):
        self._set_up(*state)

    # The counters of the standard library's implementation, for programs that read them.
    @property
    def _sleeping_count(self):
        return _Count(self._waiters.waiting)

    @property
    def _woken_count(self):
        return _Count(_zero)

    @property
    def _wait_semaphore(self):
        return _Count(_zero)

    def __enter__(self):
        return self._lock.__enter__()

    def __exit__(self, *args):
        return self._lock.__exit__(*args)

    def __repr__(self):
        try:
            waiting = self._waiters.waiting()
        except Exception:
            waiting = 'unknown'
        return f'<{type(self).__name__}({self._lock}, {waiting})>'

    def wait(self, timeout=None):
        """Release the lock, wait for a notification, take the lock again.  False: `timeout` seconds passed first."""
        assert self._lock._is_mine(), 'must acquire() condition before using wait()'
        return self._waiters.wait_on(self._lock, timeout)

    def notify(self, n=1):
        """Wake up to `n` waiters, the oldest first."""
        assert self._lock._is_mine(), 'lock is not owned'
        self._waiters.notify(min(n, 0xffffffff))

    def notify_all(self):
        self.notify(sys.maxsize)

    def wait_for(self, predicate, timeout=None):
        """Wait until `predicate()` is true, at most `timeout` seconds; returns its last value."""
        end = None if timeout is None else time.monotonic() + timeout
        while not (result := predicate()):
            remaining = None if end is None else end - time.monotonic()
            if remaining is not None and remaining <= 0:
                break
            self.wait(remaining)
        return result


class Event(_OfContext, _pyhost.Event):
    """A flag that processes wait for."""

    def __new__(cls, *, ctx=None):
        return cls._made(ctx)

    def __repr__(self):
        state = 'set' if self.is_set() else 'unset'
        return f'<{type(self).__qualname__} at {id(self):#x} {state}>'


class Barrier(_OfContext, _pyhost.Barrier, threading.Barrier):
    """`parties` threads of any processes wait for each other; the last to arrive calls `action`."""

    def __new__(cls, parties, action=None, timeout=None, *, ctx=None):
        return cls._made(ctx, parties)

    def __init__(self, parties, action=None, timeout=None, *, ctx=None):
        self._action = action
        self._timeout = timeout

    def wait(self, timeout=None):
        """Wait for the others; returns the order of arrival.  A timeout, and the death of a waiting process, break it."""
        return self.arrive(self._timeout if timeout is None else timeout, self._action)

    def __repr__(self):
        state = 'broken' if self.broken else f'waiters={self.n_waiting}/{self.parties}'
        return f'<{type(self).__module__}.{type(self).__qualname__} at {id(self):#x}: {state}>'
