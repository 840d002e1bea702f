"""ThreadPool's call path: the same faces as _pyhost's (CallClient, Calls, a crew), with threads and no pickling."""

import collections
import queue
import threading
import time

from . import util

__all__ = ['LocalClient', 'ThreadCrew']


class LocalClient:
    """The caller's end of a pool of threads; see _pyhost.CallClient."""

    def __init__(self):
        self._tasks = queue.SimpleQueue()  # (calls, index, function, how), or None: one worker ends
        self._finished = queue.SimpleQueue()  # keys of calls with `notify`; None: stop waiting
        self._lock = threading.Lock()
        self._terminated = None  # why outstanding calls end
        self._open = set()  # calls that have not all arrived

    # ---- The interface of _pyhost.CallClient -----------------------------------------------------------------

    def call(self, function, args=(), kwds=None, limit=0, attempts=1):
        """(ok, value) of function(*args, **kwds)."""
        return self.submit(function, args, kwds).outcome()

    def submit(self, function, args=(), kwds=None, limit=0, attempts=1, notify=False):
        """One call."""
        calls = LocalCalls(self, notify)
        calls.add(function, _Apply(args, kwds or {}))
        calls.end()
        return calls

    def submit_map(self, function, star, items, chunksize, workers, limit, attempts, notify):
        """A call for each chunk; chunksize 0: even chunks, four for each worker."""
        calls = LocalCalls(self, notify)
        chunksize = chunksize or -(-len(items) // (4 * workers)) or 1
        calls.flat = True
        _add_chunks(calls, function, star, items, chunksize)
        calls.end()
        return calls

    def open_calls(self, function, limit, attempts):
        """Calls to extend."""
        return LocalCalls(self, False)

    def wait_finished(self):
        """Keys of finished calls with `notify`; None when there is nothing to wait for."""
        key = self._finished.get()
        return None if key is None else [key]

    def stop_waiting(self):
        """wait_finished() returns None when the keys so far have been taken."""
        self._finished.put(None)

    def wait_for_room(self, count):
        """Waits until fewer than `count` calls wait for a worker."""
        while self._tasks.qsize() >= count and self._terminated is None:
            with self._lock:
                calls = next(iter(self._open), None)
            if calls is None:
                return
            calls.wait_for_change()

    @property
    def queued(self):
        """Calls that no worker has taken."""
        return self._tasks.qsize()

    @property
    def unanswered(self):
        """Calls without an outcome."""
        with self._lock:
            pending = list(self._open)
        return sum(calls.unanswered for calls in pending)

    def close(self):
        """No new calls; what the workers do then is their crew's business."""

    def terminate(self, reason):
        """Outstanding calls end with `reason`."""
        from .pool_outcomes import Failure, PoolFailedError
        with self._lock:
            self._terminated = reason
            pending = list(self._open)
        try:
            while True:
                self._tasks.get_nowait()
        except queue.Empty:
            pass
        for calls in pending:
            calls.fail(Failure(lambda: PoolFailedError(reason)))

    # ---- For LocalCalls and the workers ------------------------------------------------------------------------

    def enqueue(self, calls, index, function, how):
        """A call for the workers."""
        with self._lock:
            if self._terminated is not None:
                raise ValueError('Pool not running')
            self._open.add(calls)
        self._tasks.put((calls, index, function, how))

    def forget(self, calls):
        """All of these have arrived."""
        with self._lock:
            self._open.discard(calls)
        if calls.notify:
            self._finished.put(calls.key)

    def end_worker(self):
        """One worker ends when it has done what was submitted before."""
        self._tasks.put(None)

    def serve(self):
        """A worker's life."""
        while True:
            task = self._tasks.get()
            if task is None:
                return
            calls, index, function, how = task
            del task
            if calls.is_cancelled(index):
                continue
            try:
                outcome = (True, how(function))
            except Exception as error:
                outcome = (False, error)
            calls.arrive(index, outcome)
            del calls, index, function, how, outcome  # nothing of a call is kept while waiting


def _add_chunks(calls, function, star, items, chunksize):
    if chunksize == 1 and not calls.flat:
        for item in items:
            calls.add(function, _Apply(item if star else (item,), {}))
        return
    for start in range(0, len(items), chunksize):
        calls.add(function, _Chunk(items[start:start + chunksize], star))


class _Apply:
    """Applies a function to arguments."""

    def __init__(self, args, kwds):
        self._args = args
        self._kwds = kwds

    def __call__(self, function):
        return function(*self._args, **self._kwds)

    def call(self, function):
        """What is to be called for it: function, arguments, keywords."""
        return function, self._args, self._kwds


class _Chunk:
    """Applies a function to each of some items."""

    def __init__(self, items, star):
        self._items = items
        self._star = star

    def __call__(self, function):
        if self._star:
            return [function(*item) for item in self._items]
        return [function(item) for item in self._items]

    def call(self, function):
        """What is to be called for it: function, arguments, keywords."""
        return self, (function,), {}


class LocalCalls:
    """The calls of one submission and their outcomes; see _pyhost.Calls."""

    def __init__(self, client, notify):
        self.notify = notify
        self.key = id(self)
        self.flat = False  # outcomes are lists to be joined
        self.submitted = 0
        self._client = client
        self._changed = threading.Condition()
        self._arrived = {}  # index -> outcome, in the order of arrival
        self._order = collections.deque()
        self._taken = set()  # indices of calls that a worker has, or had, or that were cancelled
        self._left = 0
        self._is_open = True
        self._next = 0
        self._failure = None  # for all that has not arrived

    # ---- Filling ---------------------------------------------------------------------------------------------

    def add(self, function, how):
        """One more call."""
        with self._changed:
            index = self.submitted
            self.submitted += 1
            self._left += 1
        try:
            self._client.enqueue(self, index, function, how)
        except BaseException:
            with self._changed:
                self._left -= 1
                self.submitted -= 1
            raise

    def extend(self, function, star, items, chunksize):
        """A call for each chunk."""
        _add_chunks(self, function, star, items, chunksize)

    def refuse(self, exception):
        """One more call, which ends with this exception."""
        with self._changed:
            index = self.submitted
            self.submitted += 1
            self._left += 1
        self.arrive(index, (False, exception))

    def end(self):
        """No more calls."""
        with self._changed:
            self._is_open = False
            finished = self._left == 0
            self._changed.notify_all()
        if finished:
            self._client.forget(self)

    def arrive(self, index, outcome):
        """The outcome of a call."""
        with self._changed:
            if self._failure is not None:
                return
            self._arrived[index] = outcome
            self._order.append(index)
            self._left -= 1
            finished = self._left == 0 and not self._is_open
            self._changed.notify_all()
        if finished:
            self._client.forget(self)

    def fail(self, failure):
        """What has not arrived ends like this."""
        with self._changed:
            if self._left == 0 and not self._is_open:
                return
            self._failure = (False, failure)
            self._changed.notify_all()
        self._client.forget(self)

    def is_cancelled(self, index):
        """Whether a worker is to pass this call over; if not, it is taken now."""
        with self._changed:
            self._taken.add(index)
            return index in self._arrived

    def cancel_all(self, verdict):
        """Ends the calls that no worker has taken; how many."""
        from .pool_outcomes import unpack_verdict
        with self._changed:
            waiting = [index for index in range(self.submitted) if index not in self._taken]
            for index in waiting:
                self._taken.add(index)
        for index in waiting:
            self.arrive(index, (False, unpack_verdict('the call', verdict)))
        return len(waiting)

    # ---- Waiting ---------------------------------------------------------------------------------------------

    @property
    def placed(self):
        """Items of a map that are done."""
        with self._changed:
            return sum(len(value) for ok, value in self._arrived.values() if ok)

    @property
    def unanswered(self):
        """Calls without an outcome."""
        with self._changed:
            return 0 if self._failure is not None else self._left

    def _is_finished(self):
        return self._failure is not None or (self._left == 0 and not self._is_open)

    def wait(self, timeout=None):
        """Whether all have arrived, waiting for it."""
        with self._changed:
            return self._changed.wait_for(self._is_finished, timeout)

    def wait_for_change(self):
        """Waits until another call has arrived."""
        with self._changed:
            left = self._left
            self._changed.wait_for(lambda: self._left != left or self._is_finished())

    def outcome(self, timeout=None):
        """(ok, value) of a single call; None when it has not arrived until then."""
        if not self.wait(timeout):
            return None
        return self._arrived.get(0, self._failure)

    def collect(self, timeout=None):
        """(ok, list of all results, or the first failure); None when not all have arrived until then."""
        if not self.wait(timeout):
            return None
        if self._failure is not None:
            return self._failure
        for index in self._order:
            if not self._arrived[index][0]:
                return self._arrived[index]
        results = []
        for index in range(self.submitted):
            results.extend(self._arrived[index][1])
        self._arrived.clear()
        return True, results

    def next(self, ordered, timeout=None):
        """The next outcome; () at the end; None when there is none until then."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                index = self._next_index(ordered)
                if index in self._arrived:
                    self._next += 1
                    return self._arrived.pop(index)
                if self._is_finished():
                    return self._take_failure()
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)

    def _next_index(self, ordered):
        if ordered:
            return self._next
        return self._order.popleft() if self._order else None

    def _take_failure(self):
        failure, self._failure = self._failure, (True, None)
        self._left, self._is_open = 0, False
        return () if failure is None or failure == (True, None) else failure


class ThreadCrew:
    """The threads of a pool; see pool_crew.Crew."""

    def __init__(self, client, limit, make_thread, initializer, initargs):
        self.client = client
        self.workers = []
        self.failure = None
        self._limit = limit
        self._make_thread = make_thread
        self._initializer = initializer
        self._initargs = initargs
        self._feeding = 0
        self._closing = False
        self._lock = threading.Lock()

    def start(self):
        """Starts the threads."""
        self.repopulate()

    def repopulate(self):
        """Starts as many threads as are missing."""
        for _ in range(self._limit - len(self.workers)):
            thread = self._make_thread(target=_work, args=(self.client, self._initializer, self._initargs))
            thread.name = thread.name.replace('Process', 'PoolWorker')
            thread.daemon = True
            thread.start()
            self.workers.append(thread)

    def maintain(self):
        """Threads do not die."""

    def cancel(self, calls):
        """A thread cannot be ended."""
        return 0

    def stats(self):
        """Threads are not measured."""
        return []

    def close(self):
        """The threads end when all calls are done."""
        with self._lock:
            self._closing = True
            feeding = self._feeding
        if not feeding:
            self._end_workers()

    def begin_feeding(self):
        """A thread is going to submit calls."""
        with self._lock:
            self._feeding += 1

    def end_feeding(self):
        """... and has submitted its last."""
        with self._lock:
            self._feeding -= 1
            end = self._closing and not self._feeding
        if end:
            self._end_workers()

    def _end_workers(self):
        for _ in self.workers:
            self.client.end_worker()

    def terminate(self):
        """The threads end when they are done with the call they run."""
        util.debug('ending threads')
        self.client.terminate('the pool was terminated')
        self._end_workers()

    def join(self):
        """Waits for the threads."""
        for thread in self.workers:
            if thread is not threading.current_thread():
                thread.join()


def _work(client, initializer, initargs):
    if initializer is not None:
        initializer(*initargs)
    client.serve()
