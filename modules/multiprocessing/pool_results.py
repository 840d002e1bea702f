"""What a pool's asynchronous methods return: results to wait for, and iterators.

`calls` is a _pyhost.Calls, or what looks like one (pool_threads.py).  The thread that waits for a result receives
and unpickles it; there is no thread in between.  Only results with callbacks are received by the pool's
callback thread, and are ready when their callback has returned.
"""

import threading
import time
import types

from .context import TimeoutError
from .pool_outcomes import CANCELLED, CallCancelledError, exception_of
from .pool_progress import LOOK_EVERY

__all__ = ['ApplyResult', 'AsyncResult', 'MapResult', 'IMapIterator', 'IMapUnorderedIterator']


class ApplyResult:
    """The result of apply_async()."""

    # Most results have none of these, and there may be very many results.
    _outcome = None  # (ok, value) once received; before `_calls` is None
    _event = _callback = _error_callback = _progress = None

    def __init__(self, pool, calls, callback=None, error_callback=None, progress=None):
        self._pool = pool  # kept running until this result is there
        self._calls = calls
        if callback or error_callback:
            self._callback = callback
            self._error_callback = error_callback
            self._event = threading.Event()
        if progress is not None:
            self._progress = progress

    def get(self, timeout=None):
        """The result, or raises what the call raised; multiprocessing.TimeoutError after `timeout` seconds."""
        if self._event is None:
            outcome = self._outcome or self._receive(timeout)
        else:
            outcome = self._event.wait(timeout) and self._outcome
        if not outcome:
            raise TimeoutError
        ok, value = outcome
        if ok:
            return value
        exception = exception_of(value)
        try:
            raise exception
        finally:
            exception = outcome = value = None  # it holds this frame

    def wait(self, timeout=None):
        """Waits until the result is there, at most `timeout` seconds if given."""
        self._settled(timeout)

    def ready(self):
        """Whether get() would return or raise at once."""
        return self._settled(0)

    def successful(self):
        """Whether the call ended without an exception; ValueError if it has not ended."""
        if not self.ready():
            raise ValueError(f'{self!r} not ready')
        return self._outcome[0]

    def cancel(self):
        """Ends the call, or the calls of a map: those that wait are not run, and workers that run one are ended, and replaced.

        get() raises CallCancelledError then.  Returns whether there was anything to end: False when all was done before.
        Of more than 65,536 calls that wait in a pool only the newest can be kept from being run.
        """
        pool, calls = self._pool, self._calls
        if pool is None or calls is None:
            return False
        cancelled = calls.cancel_all(CANCELLED)
        return cancelled + pool._crew.cancel(calls) > 0

    def cancelled(self):
        """Whether cancel() ended it: get() raises CallCancelledError."""
        return self.ready() and not self._outcome[0] and isinstance(exception_of(self._outcome[1]), CallCancelledError)

    def _settled(self, timeout):
        """Waits for the outcome; whether it is there."""
        if self._event is not None:
            return self._event.wait(timeout)
        return (self._outcome or self._receive(timeout)) is not None

    def _receive(self, timeout):
        """The outcome, None when it is not there within `timeout` seconds.  Threads that wait together get the same one."""
        calls = self._calls
        if calls is not None:
            outcome = calls.outcome(timeout)
            if outcome is None:
                return None
            self._outcome = outcome
            self._calls = self._pool = None
        return self._outcome

    def _finish(self):
        """On the callback thread: receives, runs the callback, lets the waiting threads go."""
        try:
            self._receive(None)
            ok, value = self._outcome
            if ok and self._callback:
                self._callback(value)
            elif not ok and self._error_callback:
                self._error_callback(exception_of(value))
        finally:
            self._callback = self._error_callback = None
            self._event.set()

    __class_getitem__ = classmethod(types.GenericAlias)


AsyncResult = ApplyResult


class MapResult(ApplyResult):
    """The result of map_async() and starmap_async(): a list, or the first exception that came."""

    def __init__(self, pool, calls, callback=None, error_callback=None, progress=None):
        super().__init__(pool, calls, callback, error_callback, progress)
        self._lock = threading.Lock()  # held by the thread that receives

    @property
    def _number_left(self):
        """How many of its calls (chunks) have no outcome yet."""
        calls = self._calls
        return 0 if calls is None else calls.unanswered

    def _receive(self, timeout):
        deadline = None if timeout is None else time.monotonic() + max(timeout, 0)
        if not self._lock.acquire(timeout=-1 if timeout is None else min(max(timeout, 0), threading.TIMEOUT_MAX)):
            return None
        try:
            if self._outcome is None:
                self._outcome = self._collect(None if deadline is None else max(deadline - time.monotonic(), 0))
                if self._outcome is not None:
                    self._calls = self._pool = None
            return self._outcome
        finally:
            self._lock.release()

    def _collect(self, timeout):
        if self._progress is None:
            return self._calls.collect(timeout)
        return self._collect_and_show(timeout)

    def _collect_and_show(self, timeout):
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LOOK_EVERY if deadline is None else min(LOOK_EVERY, deadline - time.monotonic())
            outcome = self._calls.collect(max(left, 0))
            self._progress.update(self._calls.placed)
            if outcome is not None:
                self._progress.close()
            if outcome is not None or left <= 0:
                return outcome


class IMapIterator:
    """The iterator of imap(): results in the order of the arguments.

    A program may make one itself, IMapIterator(pool), and have tasks run for it (pool_tasks.py).
    """

    _ordered = True

    def __init__(self, pool, calls=None, progress=None):
        self._pool = pool
        self._calls = calls if calls is not None else pool._taskqueue.open_calls(self)
        self._job = self._calls.key
        self._lock = threading.Lock()
        self._progress = progress
        self._shown = 0  # items
        self._chunked = False  # outcomes are lists of results

    def __iter__(self):
        return self

    def next(self, timeout=None):
        """The next result; raises what its call raised, StopIteration, or TimeoutError after `timeout` seconds."""
        if not self._lock.acquire(timeout=-1 if timeout is None else min(max(timeout, 0), threading.TIMEOUT_MAX)):
            raise TimeoutError from None
        try:
            item = self._calls.next(self._ordered, timeout) if self._calls is not None else ()
            if item == ():
                self._calls = self._pool = None
                if self._progress is not None:
                    self._progress.close()
                raise StopIteration from None
            if self._progress is not None and item is not None:
                self._shown += len(item[1]) if self._chunked and item[0] else 1
                self._progress.update(self._shown)
        finally:
            self._lock.release()
        if item is None:
            raise TimeoutError from None
        ok, value = item
        if ok:
            return value
        raise exception_of(value)

    __next__ = next

    def chunked(self):
        """The same iterator, over the items of its chunks."""
        self._chunked = True
        return (item for chunk in self for item in chunk)

    def _submit_task(self, function, args):
        """One more result: that of function(*args)."""
        calls = self._calls
        if calls is not None:
            calls.extend(function, True, [args], 1)

    def _set_length(self, length):
        """No more tasks come.  `length` is what there were of them."""
        calls = self._calls
        if calls is not None:
            calls.end()


class IMapUnorderedIterator(IMapIterator):
    """The iterator of imap_unordered(): results as they come."""

    _ordered = False

for _public in (ApplyResult, MapResult, IMapIterator, IMapUnorderedIterator):
    _public.__module__ = 'multiprocessing.pool'
del _public
