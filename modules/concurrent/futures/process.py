"""ProcessPoolExecutor: an executor whose calls run in worker processes.

  process.py           the public classes
  _process_future.py   the futures, and how outcomes get to them
  _process_crew.py     the workers
  _process_errors.py   what futures raise besides what their calls raised
  multiprocessing/executor_worker.py   what runs in a worker

Calls go through _pyhost.CallClient, as Pool's do (runtime/broker/README.md): submit() pickles and pushes, a worker
pops, and who asks a future for its result receives it.
"""

import collections
import itertools
import os
import threading
import time
import weakref
from concurrent.futures import _base

import multiprocessing
from multiprocessing import guard
from multiprocessing.executor_worker import process_chunk as _process_chunk
from multiprocessing.executor_worker import worker as _process_worker
from multiprocessing.pool_options import ExecutorOptions

from ._process_crew import Crew
from ._process_errors import (BrokenProcessPool, CallUnreadableError, _ExceptionWithTraceback,  # noqa: F401
                              _rebuild_exc, _RemoteTraceback)
from ._process_future import Desk

__all__ = ['BrokenProcessPool', 'CallUnreadableError', 'ProcessPoolExecutor']

# Of the standard library's executor, for who reads them: here every call that no worker has taken can be cancelled,
# and there is no limit of workers but that of the session.
EXTRA_QUEUED_CALLS = 1
_MAX_WINDOWS_WORKERS = 63 - 2

# Of so many outstanding calls, the newest, each can be cancelled by itself; all at once always can.
_CANCELLABLE = 1 << 16

_TERMINATE = 'terminate'
_KILL = 'kill'

_global_shutdown = False
# Of this process's executors.  The pool service keeps a crew until it has ended, and who waits for a future its desk.
_crews = weakref.WeakSet()
_desks = weakref.WeakSet()


def _python_exit():
    """The interpreter ends: all calls are finished first."""
    global _global_shutdown
    _global_shutdown = True
    crews, desks = list(_crews), list(_desks)
    for one in crews + desks:
        one.close()
    for one in crews + desks:
        one.join()


def _after_fork():
    """A forked child has its parent's executors, but must not wait for their workers."""
    _crews.clear()
    _desks.clear()


# Before the threads are joined, so that what they submit is done, too.
threading._register_atexit(_python_exit)
os.register_at_fork(after_in_child=_after_fork)


def _check_system_limits():
    """Nothing that this executor needs is limited in number by the system."""


class _WorkItem:
    """A call as the standard library's executor keeps it; here calls are pickled when they are submitted."""

    def __init__(self, future, fn, args, kwargs):
        self.future = future
        self.fn = fn
        self.args = args
        self.kwargs = kwargs


class _ResultItem:
    """An outcome as the standard library's executor sends it."""

    def __init__(self, work_id, exception=None, result=None, exit_pid=None):
        self.work_id = work_id
        self.exception = exception
        self.result = result
        self.exit_pid = exit_pid


class _CallItem:
    """A call as the standard library's executor sends it."""

    def __init__(self, work_id, fn, args, kwargs):
        self.work_id = work_id
        self.fn = fn
        self.args = args
        self.kwargs = kwargs


class _CallQueue:
    """What stands for the call queue: submit() leaves calls in shared memory, so there is nothing to wait for."""

    def close(self):
        """Nothing to do."""

    def join_thread(self):
        """Nothing to do."""

    cancel_join_thread = join_thread


class _ThreadWakeup:
    """A pipe by which a thread wakes another that waits for its reader; of the standard library's executor."""

    def __init__(self):
        self._closed = False
        self._lock = threading.Lock()
        self._reader, self._writer = multiprocessing.Pipe(duplex=False)

    def wakeup(self):
        """Makes the reader readable."""
        with self._lock:
            if not self._closed:
                self._writer.send_bytes(b'')

    def clear(self):
        """Makes the reader wait again."""
        if self._closed:
            raise RuntimeError('operation on closed _ThreadWakeup')
        while self._reader.poll():
            self._reader.recv_bytes()

    def close(self):
        """Closes both ends."""
        with self._lock:
            self._closed = True
            self._writer.close()
            self._reader.close()


def _spawn_worker(mp_context, arguments):
    """A new worker, started: of all executors, for who wants to see or prevent it."""
    process = mp_context.Process(target=_process_worker, args=arguments)
    process._pyhost_worker = True
    process.start()
    return process


class _ExecutorManagerThread:
    """What stands for the thread that the standard library's executor has: its end is that of the last worker."""

    name = 'ExecutorManager'
    daemon = False

    def __init__(self, crew):
        self._crew = crew

    def run(self):
        """What that thread does for its callers: it returns when nothing is left to be done."""
        self.join()

    def join(self, timeout=None):
        """Waits until all calls are done and the last worker has ended, after shutdown()."""
        self._crew.join(timeout)

    def is_alive(self):
        """Whether there are workers, or may be again."""
        return not self._crew.done.is_set()


class ProcessPoolExecutor(_base.Executor):
    """Runs calls in worker processes.

    max_workers    the most workers; by default the number of processors this process may use
    mp_context     whose processes the workers are; by default multiprocessing's default context
    initializer    called with *initargs in each worker before its first call
    max_tasks_per_child   calls after which a worker is replaced by a new one; not with the start method fork

    Workers are started as they are needed (with fork: all with the first call).  When one ends without having been told
    to, the executor is broken: all its outstanding calls raise BrokenProcessPool, whose cause says which worker ended,
    how, and what it was running.

    What the standard library's executor does not have:

    timeout       seconds that a call may run, counted from when its function begins.  The worker of one that takes longer
                  is ended, and replaced; the future raises multiprocessing.pool.CallTimeoutError, a TimeoutError, with the
                  worker's Python stacks: also when it was stuck in C code
    on_worker_death   'fail' or 'retry': a worker that is killed, or ends, is replaced, and the executor goes on.  The call it
                  ran raises multiprocessing.pool.WorkerLostError, or is run again, at most max_retries times, with its
                  arguments as they were sent.  By default the executor is broken, as said above
    max_retries   see there
    max_memory_per_worker   bytes: a worker that has more memory of its own (resident, not shared) after a call is replaced
    max_restarts  (deaths, seconds): with on_worker_death, after so many deaths in such a time, with no call answered
                  between them, the executor is broken after all

    options(timeout=..., on_worker_death=...).submit(...) sets them for one call.  future.cancel(running=True) also ends a
    call that runs.  stats() tells what each worker did.
    """

    def __init__(self, max_workers=None, mp_context=None, initializer=None, initargs=(), *, max_tasks_per_child=None,
                 timeout=None, on_worker_death=None, max_retries=2, max_memory_per_worker=None, max_restarts=None):
        if max_workers is None:
            max_workers = _default_workers()
        elif max_workers <= 0:
            raise ValueError('max_workers must be greater than 0')
        if mp_context is None:
            mp_context = multiprocessing.get_context(None if max_tasks_per_child is None else 'spawn')
        method = mp_context.get_start_method(allow_none=False)
        if initializer is not None and not callable(initializer):
            raise TypeError('initializer must be a callable')
        _check_max_tasks(max_tasks_per_child, method)
        if method != 'fork':
            guard.check()
        self._max_workers = max_workers
        self._mp_context = mp_context
        self._safe_to_dynamically_spawn_children = method != 'fork'
        self._initializer = initializer
        self._initargs = initargs
        self._max_tasks_per_child = max_tasks_per_child
        self._options = ExecutorOptions(max_workers, timeout, on_worker_death, max_retries, max_memory_per_worker,
                                        max_restarts)
        self._broken = False
        self._shutdown_thread = False
        self._has_ended = False  # shutdown() has returned or soon will
        self._shutdown_lock = threading.Lock()
        self._queue_count = 0
        self._call_queue = _CallQueue()
        self._executor_manager_thread = None
        self._crew = None  # with the first call
        self._desk = None

    # ---- Calls -------------------------------------------------------------------------------------------------

    def submit(self, fn, /, *args, **kwargs):
        """A Future for fn(*args, **kwargs), run by a worker.

        The call is pickled now: later changes of the arguments are not seen.  What cannot be pickled is raised by the
        future, with the way to it.
        """
        return self._submit(fn, args, kwargs, *self._options.for_calls)

    def options(self, *, timeout=None, on_worker_death=None):
        """What has submit() and map() of this executor, for calls with a time limit or a policy of their own.

        executor.options(timeout=5).submit(fn, ...): keywords of submit() are always the function's.  on_worker_death can
        be given to calls of an executor that has a policy for deaths.
        """
        if on_worker_death is not None and not self._options.goes_on:
            raise ValueError('this executor is broken when a worker ends: give it on_worker_death when it is made')
        return _WithOptions(self, *self._options.of_call(timeout, on_worker_death))

    def stats(self):
        """What each worker did: a list of dicts, as multiprocessing.pool.Pool.stats()."""
        return self._crew.stats() if self._crew is not None else []

    def _submit(self, fn, args, kwargs, limit, attempts):
        if self._broken or self._shutdown_thread or _global_shutdown:
            raise self._refusal()
        desk = self._desk or self._start()
        try:
            future = desk.submit(fn, args, kwargs, limit, attempts)
        except ValueError:
            if self._shutdown_thread:
                raise self._refusal() from None
            raise
        self._queue_count += 1
        try:
            self._crew.grow()
        except BaseException:
            future.cancel()
            raise
        if limit:
            self._crew.expect(limit)
        return future

    def map(self, fn, *iterables, timeout=None, chunksize=1, buffersize=None):
        """An iterator over fn(*args) for args in zip(*iterables), in order, run by the workers.

        timeout      seconds from now after which the iterator raises TimeoutError
        chunksize    so many calls go to a worker at once
        buffersize   so many submitted calls (chunks) at most have results that were not taken from the iterator;
                     by default the iterables are read at once, and all calls submitted
        """
        if chunksize < 1:
            raise ValueError('chunksize must be >= 1.')
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError('buffersize must be an integer or None')
        if buffersize is not None and buffersize < 1:
            raise ValueError('buffersize must be None or > 0')
        deadline = None if timeout is None else time.monotonic() + timeout
        if chunksize == 1:
            return _results(self, fn, zip(*iterables), deadline, buffersize)
        chunks = ((fn, chunk) for chunk in _get_chunks(*iterables, chunksize=chunksize))
        return _items(_results(self, _process_chunk, chunks, deadline, buffersize))

    def _refusal(self):
        if self._broken:
            error = BrokenProcessPool(self._broken)
            error.__cause__ = self._crew and self._crew.loss and self._crew.loss.exception().__cause__
            return error
        if _global_shutdown and not self._shutdown_thread:
            return RuntimeError('cannot schedule new futures after interpreter shutdown')
        return RuntimeError('cannot schedule new futures after shutdown')

    def _start(self):
        with self._shutdown_lock:
            if self._desk is not None:
                return self._desk
            import _pyhost
            client = _pyhost.CallClient(cancellable=_CANCELLABLE)
            mp_context = self._mp_context
            crew = Crew(client, self, lambda arguments: _spawn_worker(mp_context, arguments), self._max_workers)
            desk = Desk(crew)
            if not self._safe_to_dynamically_spawn_children:
                crew.start_all()
            _crews.add(crew)
            _desks.add(desk)
            weakref.finalize(self, _close, crew, desk).atexit = False
            self._crew = crew
            self._executor_manager_thread = _ExecutorManagerThread(crew)
            self._desk = desk
            return desk

    @property
    def _processes(self):
        """pid -> process of the workers; None after shutdown()."""
        if self._has_ended:
            return None
        return self._crew.known_processes() if self._crew is not None else {}

    @property
    def _force_shutting_down(self):
        """Whether all workers are being ended: none of them is replaced any more."""
        return self._crew is not None and self._crew.forced

    @_force_shutting_down.setter
    def _force_shutting_down(self, forced):
        if self._crew is not None:
            self._crew.forced = forced

    @property
    def _pending_work_items(self):
        return self._crew.calls if self._crew is not None else {}

    # ---- The end -----------------------------------------------------------------------------------------------

    def shutdown(self, wait=True, *, cancel_futures=False):
        """No more calls; the workers end when all are done.

        wait             return when they have ended and all futures are done
        cancel_futures   calls that no worker has taken are cancelled (but so many of the oldest that there is one for
                         each worker: they count as running)
        """
        with self._shutdown_lock:
            self._shutdown_thread = True
            crew, desk = self._crew, self._desk
        if crew is not None and crew.is_ours():
            if cancel_futures:
                desk.cancel_waiting(self._max_workers)
            _close(crew, desk)
            if wait:
                crew.join()
                desk.settle_arrived()
                desk.join()
        self._executor_manager_thread = None
        self._call_queue = None
        self._has_ended = True

    def terminate_workers(self):
        """Ends the workers with SIGTERM, whatever they are doing; the executor is shut down."""
        return self._force_shutdown(operation=_TERMINATE)

    def kill_workers(self):
        """Ends the workers with SIGKILL, whatever they are doing; the executor is shut down."""
        return self._force_shutdown(operation=_KILL)

    def _force_shutdown(self, operation):
        if operation not in (_TERMINATE, _KILL):
            raise ValueError(f'Unsupported operation: {operation!r}')
        self._force_shutting_down = True
        processes = list((self._processes or {}).values())
        self.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            try:
                if process.is_alive():
                    getattr(process, operation)()
            except (ProcessLookupError, ValueError):  # ended, or closed, just now
                continue


class _WithOptions(_base.Executor):
    """An executor's face for calls with options of their own; ends with the executor."""

    map = ProcessPoolExecutor.map

    def __init__(self, executor, limit, attempts):
        self._executor = executor
        self._limits = limit, attempts

    def submit(self, fn, /, *args, **kwargs):
        """As ProcessPoolExecutor.submit()."""
        return self._executor._submit(fn, args, kwargs, *self._limits)

    def shutdown(self, wait=True, *, cancel_futures=False):
        """As ProcessPoolExecutor.shutdown()."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)


def _close(crew, desk):
    if crew.is_ours():
        crew.close()
        desk.close()


def _default_workers():
    if hasattr(os, 'process_cpu_count'):
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0))  # what process_cpu_count() says, before Python 3.13


def _check_max_tasks(max_tasks, method):
    if max_tasks is None:
        return
    if not isinstance(max_tasks, int):
        raise TypeError('max_tasks_per_child must be an integer')
    if max_tasks <= 0:
        raise ValueError('max_tasks_per_child must be >= 1')
    if method == 'fork':
        raise ValueError("max_tasks_per_child is incompatible with the 'fork' multiprocessing start method; "
                         'supply a different mp_context.')


# ---- map() -----------------------------------------------------------------------------------------------------


def _get_chunks(*iterables, chunksize):
    """Tuples of up to `chunksize` items of zip(*iterables)."""
    items = zip(*iterables)
    while chunk := tuple(itertools.islice(items, chunksize)):
        yield chunk


def _results(executor, fn, calls, deadline, buffersize):
    """An iterator over the results of fn(*args) for args in calls; submits before it is first asked."""
    futures = collections.deque(executor.submit(fn, *args) for args in itertools.islice(calls, buffersize))
    executor = weakref.ref(executor)

    def iterate():
        try:
            while futures:
                if buffersize is not None and (owner := executor()) is not None:
                    futures.extend(owner.submit(fn, *args) for args in itertools.islice(calls, 1))
                    del owner
                yield _result_or_cancel(futures.popleft(), deadline)
        finally:
            for future in futures:
                future.cancel()

    return iterate()


def _result_or_cancel(future, deadline):
    try:
        try:
            return future.result(None if deadline is None else deadline - time.monotonic())
        finally:
            future.cancel()
    finally:
        del future  # an exception holds this frame


def _items(lists):
    """The items of lists, none of which is kept."""
    for items in lists:
        items.reverse()
        while items:
            yield items.pop()
