"""Queues between processes: `Queue`, `JoinableQueue`, `SimpleQueue`.

`Queue` rides a queue of the session's shared memory (`_pyhost.Queue`): `put` returns with the message already there, so
there is no feeder thread, nothing to flush at exit, and a producer can be joined before its messages were read.

Process and thread safety: every method may be called from any thread of any process that has the queue.
"""

import types
from queue import Empty, Full

import _pyhost

from . import connection
from . import context

__all__ = ['Queue', 'SimpleQueue', 'JoinableQueue']

_ForkingPickler = context.reduction.ForkingPickler


class _QueueEnd:
    """What programs that reach for `queue._reader` or `queue._writer` expect of it: it can be closed."""

    def __init__(self):
        self.closed = False

    def close(self):
        self.closed = True


class Queue:
    """A first-in-first-out queue of pickled objects.

    `maxsize` <= 0 means unbounded (the session's memory limit is the bound: `put` raises MemoryError).
    """

    def __init__(self, maxsize=0, *, ctx):
        self._maxsize = maxsize if maxsize > 0 else _pyhost.SEM_VALUE_MAX
        self._queue = _pyhost.Queue(maxsize if maxsize > 0 else 0)
        self._ignore_epipe = False
        self._reset()

    def _reset(self):
        self._closed = False
        self._used = False  # this process has put something in: only then does close() end empty(), as in python3
        self._reader = _QueueEnd()
        self._writer = _QueueEnd()

    def __getstate__(self):
        return self._ignore_epipe, self._maxsize, self._queue

    def __setstate__(self, state):
        self._ignore_epipe, self._maxsize, self._queue = state
        self._reset()

    def put(self, obj, block=True, timeout=None):
        """Pickle `obj` and put it in.

        Waits while a bounded queue is full, at most `timeout` seconds; raises queue.Full.  An object that cannot be pickled is
        reported on stderr (`_on_queue_feeder_error`) and not put.
        """
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        self._used = True
        self._queue.put(obj, block, timeout, self._on_queue_feeder_error)

    def get(self, block=True, timeout=None):
        """Take the oldest object; waits while there is none, at most `timeout` seconds; raises queue.Empty."""
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        return self._queue.get(block, timeout)

    def put_many(self, objects, block=True, timeout=None):
        """Put all `objects` in, in order, at the cost of one operation; not in the standard library.

        All are pickled first: when one cannot be, its error is raised and none is put.  Returns how many were put:
        fewer than given when a bounded queue stayed full for `timeout` seconds; raises queue.Full when it was none.
        """
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        self._used = True
        return self._queue.put_many(objects, block, timeout)

    def get_many(self, maximum, block=True, timeout=None):
        """Take up to `maximum` objects as a list; not in the standard library.

        Waits (as `get`) only for the first.  When an object cannot be unpickled, the exception carries those taken
        before it as its attribute `received`; the others stay in the queue.
        """
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        return self._queue.get_many(maximum, block, timeout)

    def get_nowait(self):
        return self.get(False)

    def put_nowait(self, obj):
        return self.put(obj, False)

    def qsize(self):
        return self._queue.qsize()

    def empty(self):
        if self._closed and self._used:
            raise OSError(f"Queue {self!r} is closed")
        return self._queue.empty()

    def full(self):
        return self._queue.full()

    def close(self):
        """This process will neither put nor get any more.  What it has put stays in the queue."""
        self._closed = True
        self._reader.close()
        self._writer.close()

    def join_thread(self):
        """Returns at once: `put` leaves nothing behind that would have to be waited for."""
        assert self._closed, f"Queue {self!r} not closed"

    def cancel_join_thread(self):
        """Has no effect: there is no thread whose end an exit waits for."""

    def _terminate_broken(self):
        self.close()

    @staticmethod
    def _on_queue_feeder_error(e, obj):
        """Hook: `obj` could not be pickled and was not put.  concurrent.futures overrides it."""
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


class SimpleQueue:
    """A pipe with a lock at each end; `_reader` can be polled together with other descriptors."""

    def __init__(self, *, ctx):
        self._reader, self._writer = connection.Pipe(duplex=False)
        self._rlock = ctx.Lock()
        self._wlock = ctx.Lock()

    def __getstate__(self):
        context.assert_spawning(self)
        return self._reader, self._writer, self._rlock, self._wlock

    def __setstate__(self, state):
        self._reader, self._writer, self._rlock, self._wlock = state

    def close(self):
        self._reader.close()
        self._writer.close()

    def empty(self):
        return not self._reader.poll()

    def get(self):
        with self._rlock:
            pickled = self._reader.recv_bytes()
        # User code runs in loads(): not under the lock.
        return _ForkingPickler.loads(pickled)

    def put(self, obj):
        pickled = _ForkingPickler.dumps(obj)
        with self._wlock:
            self._writer.send_bytes(pickled)

    __class_getitem__ = classmethod(types.GenericAlias)
