"""Pool: worker processes that run functions for this one.

  pool.py            the public classes: how calls are submitted
  pool_results.py    what is returned for them: results to wait for, iterators
  pool_outcomes.py   errors, and how they travel
  pool_crew.py       the workers: started, replaced, ended
  pool_service.py    the thread that notices ended workers
  pool_threads.py    ThreadPool's own call path
  pool_worker.py     what runs in a worker process

Calls go through _pyhost.CallClient (runtime/broker/README.md): the calling thread pickles and pushes, a worker pops,
and the thread that waits for a result receives it.
"""

import itertools
import os
import sys
import threading
import warnings

from . import get_context, guard, util
from .context import TimeoutError  # noqa: F401 (known here, as in the standard library)
from .pool_crew import CLOSE, RUN, TERMINATE, Crew
from .pool_outcomes import (ExceptionWithTraceback, MaybeEncodingError, PoolFailedError,  # noqa: F401
                            RemoteCallError, RemoteTraceback, WorkerLostError, exception_of,
                            rebuild_exc)
from .pool_results import (ApplyResult, AsyncResult, IMapIterator,  # noqa: F401
                           IMapUnorderedIterator, MapResult)
from .pool_worker import worker  # noqa: F401

__all__ = ['Pool', 'ThreadPool']

# Pickles name the module of what is in them: a peer that runs the standard library looks here.
for _member in (MaybeEncodingError, RemoteTraceback, rebuild_exc):
    _member.__module__ = __name__
del _member

INIT = 'INIT'

# Argument sequences up to this length are submitted at once by imap(); longer and lazy ones by a thread.
_EAGER_ITEMS = 100_000
# That thread keeps at most this many calls waiting for a worker.
_QUEUED_CALLS = 10_000
_FEED_AT_ONCE = 64

# Slices of these give what iterating over them gives, so they can be sent instead of their items.
_SLICEABLE = (list, tuple, range, str, bytes, bytearray)


class Pool:
    """Worker processes that run functions.

    processes     number of workers; by default that of the processors this process may use
    initializer   called with *initargs in each worker before its first call
    maxtasksperchild   calls (chunks, for the map methods) after which a worker is replaced by a new one
    context       whose processes the workers are; by default the package's
    max_restarts  (deaths, seconds): after so many deaths of workers in such a time, with no call answered between
                  them, the pool fails with the last one's cause instead of starting workers for ever

    A worker that is killed, or ends in the middle of a call, is replaced; its call raises WorkerLostError, which says
    how it ended.  All other calls complete.
    """

    @staticmethod
    def Process(ctx, *args, **kwds):
        """A worker's process, not yet started; subclasses may override it."""
        return ctx.Process(*args, **kwds)

    def __init__(self, processes=None, initializer=None, initargs=(),
                 maxtasksperchild=None, context=None, *, max_restarts=None):
        self._pool = []
        self._state = INIT
        self._ctx = context or get_context()
        self._processes = _check_processes(processes)
        self._initializer = initializer
        self._initargs = initargs
        self._maxtasksperchild = maxtasksperchild
        if maxtasksperchild is not None and (not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0):
            raise ValueError('maxtasksperchild must be a positive int or None')
        if initializer is not None and not callable(initializer):
            raise TypeError('initializer must be a callable')
        self._results = {}  # key of its calls -> the result whose callback is to run
        self._results_lock = threading.Lock()
        self._callback_thread = None
        self._client, self._crew = self._make_crew(max_restarts or (max(20, 5 * self._processes), 10.0))
        self._crew.start()
        self._pool = self._crew.workers
        self._terminate = util.Finalize(self, self._crew.terminate, exitpriority=15)
        self._state = RUN

    def _make_crew(self, max_restarts):
        if getattr(self._ctx, '_name', None) != 'fork':
            guard.check()
        import _pyhost
        client = _pyhost.CallClient()
        ctx, make = self._ctx, type(self).Process
        crew = Crew(client, self._processes, lambda **kwds: make(ctx, **kwds), self._initializer, self._initargs,
                    self._maxtasksperchild, max_restarts)
        return client, crew

    def __del__(self, _warn=warnings.warn, RUN=RUN):
        if self._state == RUN:
            _warn(f'unclosed running multiprocessing pool {self!r}', ResourceWarning, source=self)

    def __repr__(self):
        cls = type(self)
        return f'<{cls.__module__}.{cls.__qualname__} state={self._state} pool_size={len(self._pool)}>'

    def __reduce__(self):
        raise NotImplementedError('pool objects cannot be passed between processes or pickled')

    def __enter__(self):
        self._check_running()
        return self

    def __exit__(self, exc_type, exc_val, exc_tb):
        self.terminate()

    # ---- Calls ---------------------------------------------------------------------------------------------

    def apply(self, func, args=(), kwds={}):
        """func(*args, **kwds), in a worker."""
        self._check_running()
        ok, value = self._client.call(func, args, kwds)
        if ok:
            return value
        raise exception_of(value)

    def apply_async(self, func, args=(), kwds={}, callback=None, error_callback=None):
        """apply() that does not wait: returns an AsyncResult.

        callback(result) or error_callback(exception) runs in a thread of this process; the result is ready
        when it has returned.
        """
        self._check_running()
        if callback is None and error_callback is None:
            return ApplyResult(self, self._client.submit(func, args, kwds))
        return self._submit(ApplyResult, callback, error_callback,
                            lambda notify: self._client.submit(func, args, kwds, notify))

    def map(self, func, iterable, chunksize=None):
        """[func(x) for x in iterable], in the workers.

        chunksize items make one call.  By default the chunks are big at first and small towards the end, so that
        neither many tiny nor a few long calls suffer.  Sequences (lists, ranges, numpy arrays) are sent in slices.
        """
        return self._map_async(func, iterable, False, chunksize).get()

    def starmap(self, func, iterable, chunksize=None):
        """[func(*args) for args in iterable], in the workers."""
        return self._map_async(func, iterable, True, chunksize).get()

    def map_async(self, func, iterable, chunksize=None, callback=None, error_callback=None):
        """map() that does not wait: returns an AsyncResult."""
        return self._map_async(func, iterable, False, chunksize, callback, error_callback)

    def starmap_async(self, func, iterable, chunksize=None, callback=None, error_callback=None):
        """starmap() that does not wait: returns an AsyncResult."""
        return self._map_async(func, iterable, True, chunksize, callback, error_callback)

    def imap(self, func, iterable, chunksize=1):
        """Iterator over func(x) for x in iterable, in order; results are there as soon as they are computed."""
        return self._imap(IMapIterator, func, iterable, chunksize)

    def imap_unordered(self, func, iterable, chunksize=1):
        """imap() whose results come in the order in which they are computed."""
        return self._imap(IMapUnorderedIterator, func, iterable, chunksize)

    def _map_async(self, func, iterable, star, chunksize, callback=None, error_callback=None):
        self._check_running()
        if chunksize is not None and chunksize < 1:
            raise ValueError(f'Chunksize must be 1+, not {chunksize!r}')
        items = _sequence(iterable)
        if not len(items):
            callback = error_callback = None
        return self._submit(MapResult, callback, error_callback, lambda notify: self._client.submit_map(
            func, star, items, chunksize or 0, self._processes, notify))

    def _submit(self, result_type, callback, error_callback, submit):
        if callback is None and error_callback is None:
            return result_type(self, submit(False))
        with self._results_lock:
            calls = submit(True)
            result = result_type(self, calls, callback, error_callback)
            self._results[calls.key] = result
            self._start_callback_thread()
        return result

    def _start_callback_thread(self):
        if self._callback_thread is None:
            self._callback_thread = threading.Thread(
                target=_run_callbacks, name='PoolCallbacks', daemon=True,
                args=(self._client, self._results, self._results_lock))
            self._callback_thread._pyhost_internal = True
            self._callback_thread.start()

    def _imap(self, iterator_type, func, iterable, chunksize):
        self._check_running()
        if chunksize < 1:
            raise ValueError(f'Chunksize must be 1+, not {chunksize:n}')
        calls = self._client.open_calls(func)
        if _is_sliceable(iterable) and len(iterable) <= _EAGER_ITEMS:
            calls.extend(func, False, iterable, chunksize)
            calls.end()
        else:
            feeder = _Feeder(self._crew, calls, func, iterable, chunksize)
            threading.Thread(target=feeder.run, name='PoolFeeder', daemon=True).start()
        results = iterator_type(self, calls)
        if chunksize == 1:
            return results
        return (item for chunk in results for item in chunk)

    # ---- The end -------------------------------------------------------------------------------------------

    def _check_running(self):
        if self._state != RUN:
            raise ValueError('Pool not running')
        if self._crew.failure is not None:
            raise PoolFailedError(self._crew.failure)

    def close(self):
        """No more calls; the workers end when all are done."""
        util.debug('closing pool')
        if self._state == RUN:
            self._state = CLOSE
            self._crew.close()

    def terminate(self):
        """Ends the workers at once."""
        util.debug('terminating pool')
        self._state = TERMINATE
        self._terminate()

    def join(self):
        """Waits until the workers have ended; close() or terminate() must have been called."""
        util.debug('joining pool')
        if self._state == RUN:
            raise ValueError('Pool is still running')
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError('In unknown state')
        self._crew.join()
        thread = self._callback_thread
        if thread is not None and thread is not threading.current_thread():
            self._client.stop_waiting()
            thread.join()

    def _repopulate_pool(self):
        self._crew.maintain()
        self._crew.repopulate()

    def stats(self):
        """A dict for each worker: calls done, seconds busy and waiting, bytes in and out, seconds in the call it runs."""
        return self._client.stats()


class _Feeder:
    """Submits the calls of an imap() over something long or lazy, on a thread of its own."""

    def __init__(self, crew, calls, func, iterable, chunksize):
        self._crew = crew
        self._client = crew.client
        self._calls = calls
        self._func = func
        self._iterable = iterable
        self._chunksize = chunksize
        crew.begin_feeding()

    def run(self):
        """Submits until the iterable is exhausted, raises, or the pool takes no more calls."""
        try:
            self._feed(iter(self._iterable))
        except Exception as error:
            self._refuse(error)
        finally:
            self._calls.end()
            self._crew.end_feeding()

    def _refuse(self, error):
        try:
            self._calls.refuse(error)
        except ValueError:
            util.debug('imap: the pool ended while its arguments were read')

    def _feed(self, items):
        at_once = self._chunksize * max(1, _FEED_AT_ONCE // self._chunksize)
        while True:
            self._client.wait_for_room(_QUEUED_CALLS)
            batch, error = _take(items, at_once)
            if error is not None:
                del batch[len(batch) - len(batch) % self._chunksize:]  # an unfinished chunk goes with the error
            if batch:
                self._calls.extend(self._func, False, batch, self._chunksize)
            if error is not None:
                raise error
            if len(batch) < at_once:
                return


def _take(items, count):
    """(up to `count` items, None), or (those before it, the exception that ended them)."""
    batch = []
    try:
        for item in itertools.islice(items, count):
            batch.append(item)
    except Exception as error:
        return batch, error
    return batch, None


def _run_callbacks(client, results, lock):
    """The callback thread: finishes results in the order in which they come."""
    while True:
        keys = client.wait_finished()
        if keys is None:
            return
        for key in keys:
            with lock:
                result = results.pop(key, None)
            if result is None:
                continue
            try:
                result._finish()
            except Exception:
                threading.excepthook(threading.ExceptHookArgs([*sys.exc_info(), threading.current_thread()]))
            del result


def _check_processes(processes):
    if processes is None:
        return _default_processes()
    if processes < 1:
        raise ValueError('Number of processes must be at least 1')
    return processes


def _default_processes():
    if hasattr(os, 'process_cpu_count'):
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0))  # what process_cpu_count() says, before Python 3.13


def _is_sliceable(iterable):
    kind = type(iterable)
    if kind in _SLICEABLE:
        return True
    numpy = sys.modules.get('numpy')
    return numpy is not None and kind is numpy.ndarray and iterable.ndim > 0


def _sequence(iterable):
    """The iterable itself if it can be sliced, else a list of its items."""
    return iterable if _is_sliceable(iterable) else list(iterable)


class ThreadPool(Pool):
    """A Pool whose workers are threads of this process: nothing is pickled, and the GIL is shared."""

    @staticmethod
    def Process(ctx, *args, **kwds):
        """A worker's thread, not yet started."""
        from .dummy import Process
        return Process(*args, **kwds)

    def __init__(self, processes=None, initializer=None, initargs=()):
        Pool.__init__(self, processes, initializer, initargs)

    def _make_crew(self, max_restarts):
        from .pool_threads import LocalClient, ThreadCrew
        client = LocalClient()
        ctx, make = self._ctx, type(self).Process
        return client, ThreadCrew(client, self._processes, lambda **kwds: make(ctx, **kwds), self._initializer,
                                  self._initargs)
