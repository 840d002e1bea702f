"""Queues between processes: `Queue`, `JoinableQueue`, `SimpleQueue`.

They ride a queue of the session's shared memory (`_pyhost.Queue`): `put` returns with the message already there, so
there is no feeder thread, nothing to flush at exit, and a producer can be joined before its messages were read.

A subclass that overrides or uses what only a queue over a pipe has rides a pipe (`_pipe_queue.py`).  That is decided
when the subclass is defined, and stands in its `_through_pipe`.

Process and thread safety: every method may be called from any thread of any process that has the queue.
"""

import functools
import types
from queue import Empty, Full

import _pyhost

from . import context
from ._pipe_queue import PipeQueue, PipeSimpleQueue, _sentinel, uses_internals

__all__ = ['Queue', 'SimpleQueue', 'JoinableQueue']

_ForkingPickler = context.reduction.ForkingPickler


class _SegmentQueue(context.MadeByContext):
    """What Queue and SimpleQueue have in common; `_queue` is the native queue, None where a pipe is used."""

    _through_pipe = False
    _queue = None

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls._through_pipe = cls._through_pipe or uses_internals(cls)

    # Made when asked for: few programs do.  A pipe-backed queue has attributes of these names.
    @functools.cached_property
    def _reader(self):
        from ._queue_ends import QueueReader
        return QueueReader(self._queue)

    @functools.cached_property
    def _writer(self):
        from ._queue_ends import QueueWriter
        return QueueWriter(self._queue)

    def _close_ends(self):
        for name in '_reader', '_writer':
            end = vars(self).get(name)
            if end is not None:
                end.close()
        self._queue.close_gets()
        self._queue.close_puts()


class Queue(_SegmentQueue, PipeQueue):
    """A first-in-first-out queue of pickled objects.

    `maxsize` <= 0 means unbounded (the session's memory limit is the bound: `put` raises MemoryError).
    """

    _closed = False
    _ignore_epipe = False

    def __init__(self, maxsize=0, *, ctx):
        self._maxsize = maxsize if maxsize > 0 else _pyhost.SEM_VALUE_MAX
        self._note_context(ctx)
        if self._through_pipe:
            self._open_pipe(ctx)
        else:
            self._queue = _pyhost.Queue(maxsize if maxsize > 0 else 0)

    def __getstate__(self):
        self._check_child()
        if self._queue is None:
            return self._pipe_state()
        _pyhost.check_travels(self)
        return self._ignore_epipe, self._maxsize, self._queue

    def __setstate__(self, state):
        if self._through_pipe:
            self._set_pipe_state(state)
        else:
            self._ignore_epipe, self._maxsize, self._queue = state

    def _check_open(self):
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")

    def put(self, obj, block=True, timeout=None):
        """Pickle `obj` and put it in.

        Waits while a bounded queue is full, at most `timeout` seconds; raises queue.Full.  An object that cannot be pickled is
        reported on stderr (`_on_queue_feeder_error`) and not put.
        """
        if self._closed:
            self._check_open()
        if self._queue is None:
            return self._pipe_put(obj, block, timeout)
        self._queue.put(obj, block, timeout, self)

    def get(self, block=True, timeout=None):
        """Take the oldest object; waits while there is none, at most `timeout` seconds; raises queue.Empty."""
        if self._closed:
            self._check_open()
        if self._queue is None:
            return self._pipe_get(block, timeout)
        return self._queue.get(block, timeout)

    def put_many(self, objects, block=True, timeout=None):
        """Put all `objects` in, in order, at the cost of one operation; not in the standard library.

        All are pickled first: when one cannot be, its error is raised and none is put.  Returns how many were put:
        fewer than given when a bounded queue stayed full for `timeout` seconds; raises queue.Full when it was none.
        """
        self._check_open()
        if self._queue is None:
            return self._pipe_put_many(objects, block, timeout)
        return self._queue.put_many(objects, block, timeout)

    def get_many(self, maximum, block=True, timeout=None):
        """Take up to `maximum` objects as a list; not in the standard library.

        Waits (as `get`) only for the first.  When an object cannot be unpickled, the exception carries those taken
        before it as its attribute `received`; the others stay in the queue.
        """
        self._check_open()
        if self._queue is None:
            return self._pipe_get_many(maximum, block, timeout)
        return self._queue.get_many(maximum, block, timeout)

    def get_nowait(self):
        return self.get(False)

    def put_nowait(self, obj):
        return self.put(obj, False)

    def qsize(self):
        return self._pipe_qsize() if self._queue is None else self._queue.qsize()

    def empty(self):
        if self._queue is None:
            return not self._poll()
        # python3's is closed for good once its feeder thread has begun.
        if self._closed and self._queue.was_put:
            raise OSError(f'{self!r} is closed')
        return self._queue.empty()

    def full(self):
        return self._sem._semlock._is_zero() if self._queue is None else self._queue.full()

    def close(self):
        """This process will neither put nor get any more.  What it has put stays in the queue."""
        if self._queue is None:
            return self._pipe_close()
        self._closed = True
        self._close_ends()

    def join_thread(self):
        """Returns at once: `put` leaves nothing behind that would have to be waited for."""
        assert self._closed, f"Queue {self!r} not closed"
        if self._queue is None:
            self._pipe_join_thread()

    def cancel_join_thread(self):
        """Has no effect: there is no thread whose end an exit waits for."""
        if self._queue is None:
            self._pipe_cancel_join_thread()

    def _terminate_broken(self):
        if self._queue is None:
            self._pipe_terminate_broken()
        else:
            self.close()

    @staticmethod
    def _on_queue_feeder_error(e, obj):
        """Hook: `obj` could not be pickled and was not put.  A subclass that overrides it is called by a feeder thread."""
        import traceback
        traceback.print_exception(e)

    __class_getitem__ = classmethod(types.GenericAlias)


class JoinableQueue(Queue):
    """A Queue that counts unfinished tasks: each `get` is to be followed by a `task_done`; `join` waits for all."""

    def __init__(self, maxsize=0, *, ctx):
        super().__init__(maxsize, ctx=ctx)
        self._unfinished_tasks = ctx.Semaphore(0)
        self._cond = ctx.Condition()

    def __getstate__(self):
        return super().__getstate__(), self._cond, self._unfinished_tasks

    def __setstate__(self, state):
        queue_state, self._cond, self._unfinished_tasks = state
        super().__setstate__(queue_state)

    def put(self, obj, block=True, timeout=None):
        self._count_up(1)
        try:
            super().put(obj, block, timeout)
        except BaseException:
            self._count_down(1)
            raise

    def put_many(self, objects, block=True, timeout=None):
        objects = list(objects)
        self._count_up(len(objects))
        done = 0
        try:
            done = super().put_many(objects, block, timeout)
        finally:
            self._count_down(len(objects) - done)
        return done

    def _on_queue_feeder_error(self, e, obj):
        self._count_down(1)
        super()._on_queue_feeder_error(e, obj)

    def _count_up(self, tasks):
        # Before the object can be seen, so that no consumer's task_done() comes too early.
        for _ in range(tasks):
            self._unfinished_tasks.release()

    def _count_down(self, tasks):
        with self._cond:
            for _ in range(tasks):
                if not self._unfinished_tasks.acquire(False):
                    raise ValueError('task_done() called too many times')
            if tasks and self._unfinished_tasks.get_value() == 0:
                self._cond.notify_all()

    def task_done(self):
        """Say that a task got from the queue is done; ValueError when said more often than there were tasks."""
        self._count_down(1)

    def join(self):
        """Wait until every task ever put is done."""
        with self._cond:
            while self._unfinished_tasks.get_value() != 0:
                self._cond.wait()


class SimpleQueue(_SegmentQueue, PipeSimpleQueue):
    """A queue with put(), get() and empty() only; never full."""

    def __init__(self, *, ctx):
        self._note_context(ctx)
        if self._through_pipe:
            self._open_pipe(ctx)
        else:
            self._queue = _pyhost.Queue()

    def __getstate__(self):
        self._check_child()
        if self._queue is None:
            return self._pipe_state()
        _pyhost.check_travels(self)
        return self._queue

    def __setstate__(self, state):
        if self._through_pipe:
            self._set_pipe_state(state)
        else:
            self._queue = state

    def close(self):
        """This process will neither put nor get any more."""
        if self._queue is None:
            self._reader.close()
            self._writer.close()
        else:
            self._close_ends()

    def empty(self):
        if self._queue is None:
            return not self._poll()
        if self._queue.gets_closed:
            raise OSError(f'{self!r} is closed')
        return self._queue.empty()

    def get(self):
        """Take the oldest object; waits while there is none."""
        return self._pipe_get() if self._queue is None else self._queue.get()

    def put(self, obj):
        """Pickle `obj` and put it in; raises what pickling raises."""
        if self._queue is None:
            self._pipe_put(obj)
        else:
            self._queue.put(obj)

    __class_getitem__ = classmethod(types.GenericAlias)
