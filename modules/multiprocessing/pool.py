"""Pool: worker processes that run functions for this one.

  pool.py            the public classes: how calls are submitted
  pool_results.py    what is returned for them: results to wait for, iterators
  pool_feeder.py     the threads that submit the calls of an imap()
  pool_tasks.py      what programs use of the standard library's pool that this one does not need
  pool_outcomes.py   errors, and how they travel
  pool_options.py    what a pool, and a call, may be told besides
  pool_progress.py   progress=True
  pool_seats.py      what is known of each worker
  pool_crew.py       the workers: started, replaced, ended
  pool_watch.py      ends workers whose call takes too long or is cancelled
  pool_faults.py     what a worker was doing when it ended
  pool_service.py    the thread that notices ended workers
  pool_threads.py    ThreadPool's own call path
  pool_queues.py     that of subclasses with queues of their own
  pool_worker.py     what runs in a worker process

Calls go through _pyhost.CallClient (runtime/broker/README.md): the calling thread pickles and pushes, a worker pops,
and the thread that waits for a result receives it.
"""

import os
import sys
import threading
import warnings

from . import get_context, guard, util
from .context import TimeoutError  # noqa: F401 (known here, as in the standard library)
from .pool_crew import CLOSE, RUN, TERMINATE, Crew
from .pool_feeder import Feeder, is_sliceable, start_feeding
from .pool_options import PoolOptions, QueueOptions, ThreadOptions
from .pool_outcomes import (CallCancelledError, CallTimeoutError, ExceptionWithTraceback,  # noqa: F401
                            MaybeEncodingError, PoolFailedError, RemoteCallError, RemoteTraceback, WorkerLostError,
                            exception_of, rebuild_exc)
from .pool_progress import Progress
from .pool_results import (ApplyResult, AsyncResult, IMapIterator,  # noqa: F401
                           IMapUnorderedIterator, MapResult)
from .pool_tasks import Outstanding, TaskQueue, batches_of, mapstar, starmapstar, tasks_of  # noqa: F401
from .pool_worker import worker  # noqa: F401

__all__ = ['Pool', 'ThreadPool']

# Pickles name the module of what is in them: a peer that runs the standard library looks here.
for _member in (MaybeEncodingError, RemoteTraceback, rebuild_exc):
    _member.__module__ = __name__
del _member

INIT = 'INIT'

# Argument sequences up to this length are submitted at once by imap(); longer and lazy ones by a thread.
_EAGER_ITEMS = 100_000
# Of so many calls that wait, the newest, each can be cancelled.
_CANCELLABLE = 1 << 16


class Pool:
    """Worker processes that run functions.

    processes     number of workers; by default that of the processors this process may use
    initializer   called with *initargs in each worker before its first call
    maxtasksperchild   calls (chunks, for the map methods) after which a worker is replaced by a new one
    context       whose processes the workers are; by default the package's

    What the standard library's pool does not have:

    timeout       seconds that a call may run, counted from when its function begins (for each item, if a call has several).
                  The worker of one that takes longer is ended, and replaced; the call raises CallTimeoutError, a
                  TimeoutError, with the worker's Python stacks: also when it was stuck in C code
    on_worker_death   what becomes of a call whose worker is killed or ends: 'fail', it raises WorkerLostError, which says
                  who, how, and running what; 'retry', it is run again, at most max_retries times.  The arguments are as
                  sent: what a first attempt did to an array is not seen by the next.  What it did elsewhere is
    max_retries   see there
    max_memory_per_worker   bytes: a worker that has more memory of its own (resident, not shared) after a call is replaced
                  by a new one; the call's result counts.  (For a limit within a call, set RLIMIT_DATA in an initializer:
                  the call then raises MemoryError.)
    max_restarts  (deaths, seconds): after so many deaths of workers in such a time, with no call answered between
                  them, the pool fails with the last one's cause instead of starting workers for ever

    timeout and on_worker_death can also be given to each call.  AsyncResult.cancel() ends a call, also one that runs.
    map(..., progress=True) shows how far it is.  stats() tells what each worker did.

    All calls but those in the hands of a worker that died complete; the worker is replaced.
    """

    @staticmethod
    def Process(ctx, *args, **kwds):
        """A worker's process, not yet started; subclasses may override it."""
        return ctx.Process(*args, **kwds)

    def __init__(self, processes=None, initializer=None, initargs=(), maxtasksperchild=None, context=None, *,
                 timeout=None, on_worker_death='fail', max_retries=2, max_memory_per_worker=None, max_restarts=None):
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
        self._options = PoolOptions(self._processes, timeout, on_worker_death, max_retries, max_memory_per_worker,
                                    max_restarts)
        self._results = {}  # key of its calls -> the result whose callback is to run
        self._results_lock = threading.Lock()
        self._callback_thread = None
        self._client, self._crew = self._make_crew()
        self._taskqueue = TaskQueue(self._crew, self._options)
        self._cache = Outstanding(self._client)
        self._crew.start()
        self._pool = self._crew.workers
        self._terminate = util.Finalize(self, self._crew.terminate, exitpriority=15)
        self._state = RUN

    def _make_crew(self):
        if getattr(self._ctx, '_name', None) != 'fork':
            guard.check()
        if self._has_own_queues():
            return self._make_queue_crew()
        import _pyhost
        client = _pyhost.CallClient(cancellable=_CANCELLABLE)
        ctx, make = self._ctx, type(self).Process
        crew = Crew(client, self._processes, lambda **kwds: make(ctx, **kwds), self._initializer, self._initargs,
                    self._maxtasksperchild, self._options)
        return client, crew

    # ---- Subclasses that bring their own queues (pool_queues.py) ------------------------------------------------

    def _setup_queues(self):
        """Makes the queues of such a pool; the others have none."""
        self._inqueue = self._ctx.SimpleQueue()
        self._outqueue = self._ctx.SimpleQueue()
        self._quick_put = self._inqueue.put
        self._quick_get = self._outqueue.get

    @classmethod
    def _has_own_queues(cls):
        return any(getattr(cls, name, None) is not getattr(Pool, name, None)
                   for name in ('_setup_queues', '_quick_put', '_quick_get'))

    def _make_queue_crew(self):
        from .pool_queues import QueueClient, QueueCrew
        self._options = QueueOptions(self._options)
        self._setup_queues()
        client = QueueClient()
        ctx, make = self._ctx, type(self).Process
        queues = self._inqueue, self._outqueue, self._quick_put, self._quick_get
        return client, QueueCrew(client, self._processes, lambda **kwds: make(ctx, **kwds), self._initializer,
                                 self._initargs, self._maxtasksperchild, self._options, queues)

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

    def apply(self, func, args=(), kwds={}, *, timeout=None, on_worker_death=None):
        """func(*args, **kwds), in a worker.  timeout and on_worker_death: see Pool."""
        self._check_running()
        limit, attempts = self._options.of_call(timeout, on_worker_death)
        if limit:
            calls = self._client.submit(func, args, kwds, limit, attempts)
            self._crew.expect(limit)
            ok, value = calls.outcome()
        else:
            ok, value = self._client.call(func, args, kwds, 0, attempts)
        if ok:
            return value
        raise exception_of(value)

    def apply_async(self, func, args=(), kwds={}, callback=None, error_callback=None, *, timeout=None,
                    on_worker_death=None):
        """apply() that does not wait: returns an AsyncResult.

        callback(result) or error_callback(exception) runs in a thread of this process; the result is ready
        when it has returned.
        """
        if self._state != RUN or self._crew.failure is not None:
            self._check_running()
        if timeout is None and on_worker_death is None:
            limit, attempts = self._options.for_calls
        else:
            limit, attempts = self._options.of_call(timeout, on_worker_death)
        if callback is None and error_callback is None and not limit:
            return ApplyResult(self, self._client.submit(func, args, kwds, 0, attempts))
        return self._submit(ApplyResult, limit, callback, error_callback,
                            lambda notify: self._client.submit(func, args, kwds, limit, attempts, notify))

    def map(self, func, iterable, chunksize=None, *, timeout=None, on_worker_death=None, progress=False):
        """[func(x) for x in iterable], in the workers.

        chunksize items make one call.  By default the chunks are big at first and small towards the end, so that
        neither many tiny nor a few long calls suffer.  Sequences (lists, ranges, numpy arrays) are sent in slices.
        progress: show how many items are done, with tqdm or rich if installed, else by a line on the terminal.
        timeout and on_worker_death: see Pool; the first call that fails is what the whole map() raises.
        """
        return self.map_async(func, iterable, chunksize, timeout=timeout, on_worker_death=on_worker_death,
                              progress=progress).get()

    def starmap(self, func, iterable, chunksize=None, *, timeout=None, on_worker_death=None, progress=False):
        """[func(*args) for args in iterable], in the workers; the rest as map()."""
        return self.starmap_async(func, iterable, chunksize, timeout=timeout, on_worker_death=on_worker_death,
                                  progress=progress).get()

    def map_async(self, func, iterable, chunksize=None, callback=None, error_callback=None, *, timeout=None,
                  on_worker_death=None, progress=False):
        """map() that does not wait: returns an AsyncResult.  progress: shown while somebody waits for it."""
        return self._map_async(func, iterable, False, chunksize, (callback, error_callback),
                               self._options.of_call(timeout, on_worker_death), progress)

    def starmap_async(self, func, iterable, chunksize=None, callback=None, error_callback=None, *, timeout=None,
                      on_worker_death=None, progress=False):
        """starmap() that does not wait: returns an AsyncResult."""
        return self._map_async(func, iterable, True, chunksize, (callback, error_callback),
                               self._options.of_call(timeout, on_worker_death), progress)

    def imap(self, func, iterable, chunksize=1, *, timeout=None, on_worker_death=None, progress=False):
        """Iterator over func(x) for x in iterable, in order; results are there as soon as they are computed.

        An item whose call fails raises; the iteration can go on.
        """
        return self._imap(IMapIterator, func, iterable, chunksize, self._options.of_call(timeout, on_worker_death),
                          progress)

    def imap_unordered(self, func, iterable, chunksize=1, *, timeout=None, on_worker_death=None, progress=False):
        """imap() whose results come in the order in which they are computed."""
        return self._imap(IMapUnorderedIterator, func, iterable, chunksize,
                          self._options.of_call(timeout, on_worker_death), progress)

    def _map_async(self, func, iterable, star, chunksize, callbacks, options, progress):
        self._check_running()
        if chunksize is not None and chunksize < 1:
            raise ValueError(f'Chunksize must be 1+, not {chunksize!r}')
        items = _sequence(iterable)
        if not len(items):
            callbacks = None, None
        limit, attempts = options
        return self._submit(MapResult, limit, *callbacks, lambda notify: self._client.submit_map(
            func, star, items, chunksize or 0, self._processes, limit, attempts, notify),
            Progress(func, len(items)) if progress else None)

    def _submit(self, result_type, limit, callback, error_callback, submit, progress=None):
        if callback is None and error_callback is None:
            result = result_type(self, submit(False), progress=progress)
        else:
            with self._results_lock:
                calls = submit(True)
                result = result_type(self, calls, callback, error_callback, progress)
                self._results[calls.key] = result
                self._start_callback_thread()
        if limit:
            self._crew.expect(limit)
        return result

    def _start_callback_thread(self):
        if self._callback_thread is None:
            self._callback_thread = threading.Thread(
                target=_run_callbacks, name='PoolCallbacks', daemon=True,
                args=(self._client, self._results, self._results_lock))
            self._callback_thread._pyhost_internal = True
            self._callback_thread.start()

    def _imap(self, iterator_type, func, iterable, chunksize, options, progress):
        self._check_running()
        if chunksize < 1:
            raise ValueError(f'Chunksize must be 1+, not {chunksize:n}')
        limit, attempts = options
        calls = self._client.open_calls(func, limit, attempts)
        total = len(iterable) if hasattr(iterable, '__len__') else None
        if is_sliceable(iterable) and len(iterable) <= _EAGER_ITEMS:
            calls.extend(func, False, iterable, chunksize)
            calls.end()
        else:
            start_feeding(self._crew, Feeder(self._client, calls, func, iterable, chunksize).run)
        if limit:
            self._crew.expect(limit)
        results = iterator_type(self, calls, Progress(func, total) if progress else None)
        return results if chunksize == 1 else results.chunked()

    # ---- Tasks of a program's own (pool_tasks.py) ------------------------------------------------------------

    _get_tasks = staticmethod(batches_of)

    def _guarded_task_generation(self, result_job, func, iterable):
        return tasks_of(result_job, func, iterable)

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
        """What each worker did: a list of dicts.

        name, pid; calls done; seconds busy in functions, pickling, waiting for calls; bytes_in of calls and bytes_out of
        results; the number of the call it runs (0: none) and for how long it has been running; how many restarts there
        were: workers in this one's place before it.
        """
        return self._crew.stats()


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


def _sequence(iterable):
    """The iterable itself if it can be sliced, else a list of its items."""
    return iterable if is_sliceable(iterable) else list(iterable)


class ThreadPool(Pool):
    """A Pool whose workers are threads of this process: nothing is pickled, and the GIL is shared.

    A thread cannot be ended, so calls have no timeout, and one that runs cannot be cancelled.
    """

    @staticmethod
    def Process(ctx, *args, **kwds):
        """A worker's thread, not yet started."""
        from .dummy import Process
        return Process(*args, **kwds)

    def __init__(self, processes=None, initializer=None, initargs=()):
        Pool.__init__(self, processes, initializer, initargs)
        self._options = ThreadOptions()

    def _make_crew(self):
        from .pool_threads import LocalClient, ThreadCrew
        client = LocalClient()
        ctx, make = self._ctx, type(self).Process
        return client, ThreadCrew(client, self._processes, lambda **kwds: make(ctx, **kwds), self._initializer,
                                  self._initargs)
