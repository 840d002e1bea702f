"""Queues over a pipe: what a subclass of `Queue` or `SimpleQueue` rides that overrides or uses their insides.

Libraries that derive from the standard library's queues to change how objects are pickled (loky, joblib, torch, copies
of concurrent.futures' executor) override methods and use attributes that only make sense where there is a pipe with a
lock at each end and a thread that feeds it.  They get just that:

    put(): [_sem] -> _buffer -> thread: _feed() pickles -> [_wlock] -> _writer ~~pipe~~> _reader -> [_rlock]: get()

`uses_internals(cls)` decides, once per subclass, when it is defined (`__init_subclass__` in queues.py).

Process and thread safety: as the queues of queues.py.  A process that is killed inside of put or get leaves the pipe's
lock taken, as it does in the standard library.
"""

import collections
import os
import threading
import time
import types
import weakref
from queue import Empty, Full

from . import context
from . import util

__all__ = ()

# Put into the buffer by close(): the feeder is to end.
_sentinel = object()

# Overriding or naming one of these means: made for the standard library's implementation.
INTERNALS = frozenset('''
    _reader _writer _rlock _wlock _sem _opid _buffer _notempty _thread _jointhread _joincancelled _close
    _poll _recv_bytes _send_bytes _send _recv _make_methods
    _reset _after_fork _start_thread _feed _finalize_join _finalize_close _on_queue_feeder_error
'''.split())


def uses_internals(cls):
    """Does `cls`, or a base of it that is none of this package, override or name one of INTERNALS?"""
    return any(name in INTERNALS or _names_internals(value)
               for base in cls.__mro__ if base is not object and base.__module__.rpartition('.')[0] != __package__
               for name, value in vars(base).items())


def _names_internals(value):
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    if isinstance(value, property):
        return any(map(_names_internals, (value.fget, value.fset, value.fdel)))
    if isinstance(value, types.FunctionType):
        value = value.__code__
    if not isinstance(value, types.CodeType):
        return False
    return not INTERNALS.isdisjoint(value.co_names) or any(map(_names_internals, value.co_consts))


class PipeQueue:
    """The half of `Queue` that is used where `_through_pipe` is true; names and arguments are the standard library's."""

    def _open_pipe(self, ctx):
        from .connection import Pipe
        self._reader, self._writer = Pipe(duplex=False)
        self._rlock = ctx.Lock()
        self._wlock = ctx.Lock()
        self._sem = ctx.BoundedSemaphore(self._maxsize)
        self._opid = os.getpid()
        self._reset()
        self._register_after_fork()

    def _pipe_state(self):
        context.assert_spawning(self)
        return (self._ignore_epipe, self._maxsize, self._reader, self._writer, self._rlock, self._wlock, self._sem,
                self._opid)

    def _set_pipe_state(self, state):
        (self._ignore_epipe, self._maxsize, self._reader, self._writer, self._rlock, self._wlock, self._sem,
         self._opid) = state
        self._reset()
        self._register_after_fork()

    def _register_after_fork(self):
        util.register_after_fork(self, PipeQueue._after_fork)

    def _after_fork(self):
        self._reset(after_fork=True)

    def _reset(self, after_fork=False):
        """Makes what belongs to one process: buffer, thread, finalizers."""
        if after_fork:
            self._notempty._at_fork_reinit()
        else:
            self._notempty = threading.Condition(threading.Lock())
        self._buffer = collections.deque()
        self._thread = None
        self._jointhread = None
        self._joincancelled = False
        self._closed = False
        self._close = None
        self._send_bytes = self._writer.send_bytes
        self._recv_bytes = self._reader.recv_bytes
        self._poll = self._reader.poll

    # ---- the operations ----

    def _pipe_put(self, obj, block, timeout):
        if not self._sem.acquire(block, timeout):
            raise Full
        with self._notempty:
            if self._thread is None:
                self._start_thread()
            self._buffer.append(obj)
            self._notempty.notify()

    def _pipe_get(self, block, timeout):
        pickled = self._pipe_get_bytes(block, timeout)
        # User code runs in loads(): not under the lock.
        return context.reduction.ForkingPickler.loads(pickled)

    def _pipe_get_bytes(self, block, timeout):
        if block and timeout is None:
            with self._rlock:
                pickled = self._recv_bytes()
            self._sem.release()
            return pickled
        deadline = time.monotonic() + timeout if block else None
        if not self._rlock.acquire(block, timeout):
            raise Empty
        try:
            if not self._poll(max(0, deadline - time.monotonic()) if block else 0):
                raise Empty
            pickled = self._recv_bytes()
        finally:
            self._rlock.release()
        self._sem.release()
        return pickled

    def _pipe_put_many(self, objects, block, timeout):
        deadline = time.monotonic() + timeout if block and timeout is not None else None
        done = 0
        for obj in objects:
            try:
                self._pipe_put(obj, block, None if deadline is None else max(0, deadline - time.monotonic()))
            except Full:
                if not done:
                    raise
                break
            done += 1
        return done

    def _pipe_get_many(self, maximum, block, timeout):
        if maximum < 1:
            raise ValueError(f'maximum must be at least 1, not {maximum}')
        objects = []
        while len(objects) < maximum:
            try:
                objects.append(self._pipe_get(block and not objects, timeout if not objects else None))
            except Empty:
                if not objects:
                    raise
                break
            except Exception as error:
                error.received = objects
                raise
        return objects

    def _pipe_qsize(self):
        return self._maxsize - self._sem._semlock._get_value()

    def _pipe_close(self):
        self._closed = True
        close = self._close
        if close:
            self._close = None
            close()

    def _pipe_terminate_broken(self):
        # Nobody reads any more: a feeder in the middle of a write gets EPIPE.
        self._reader.close()
        self.close()
        self.join_thread()

    def _pipe_join_thread(self):
        util.debug('waiting for the feeder thread of %r', self)
        if self._jointhread:
            self._jointhread()

    def _pipe_cancel_join_thread(self):
        self._joincancelled = True
        if self._jointhread:
            self._jointhread.cancel()

    # ---- the feeder ----

    def _start_thread(self):
        self._buffer.clear()
        self._thread = threading.Thread(
            target=self._feed, name='QueueFeederThread', daemon=True,
            args=(self._buffer, self._notempty, self._send_bytes, self._wlock, self._reader.close, self._writer.close,
                  self._ignore_epipe, self._on_queue_feeder_error, self._sem))
        self._thread._pyhost_internal = True  # a forked child begins with a buffer and a thread of its own
        self._thread.start()
        if not self._joincancelled:
            self._jointhread = util.Finalize(self._thread, self._finalize_join, [weakref.ref(self._thread)],
                                             exitpriority=-5)
        self._close = util.Finalize(self, self._finalize_close, [self._buffer, self._notempty], exitpriority=10)

    @staticmethod
    def _finalize_join(thread_reference):
        thread = thread_reference()
        if thread is not None:
            thread.join()

    @staticmethod
    def _finalize_close(buffer, notempty):
        with notempty:
            buffer.append(_sentinel)
            notempty.notify()

    @staticmethod
    def _feed(buffer, notempty, send_bytes, writelock, reader_close, writer_close, ignore_epipe, onerror, queue_sem):
        """The feeder thread: pickles what is in the buffer and writes it into the pipe."""
        while True:
            obj = None
            try:
                with notempty:
                    while not buffer:
                        notempty.wait()
                    obj = buffer.popleft()
                if obj is _sentinel:
                    reader_close()
                    writer_close()
                    return
                pickled = context.reduction.ForkingPickler.dumps(obj)
                with writelock:
                    send_bytes(pickled)
                pickled = None  # keeps nothing alive while it waits
            except Exception as error:
                if ignore_epipe and isinstance(error, BrokenPipeError):
                    return
                if util.is_exiting():
                    util.info('error in queue thread: %s', error)
                    return
                # The object is not in the pipe: its place is free again.
                queue_sem.release()
                onerror(error, obj)


class PipeSimpleQueue:
    """The half of `SimpleQueue` that is used where `_through_pipe` is true."""

    def _open_pipe(self, ctx):
        from .connection import Pipe
        self._reader, self._writer = Pipe(duplex=False)
        self._rlock = ctx.Lock()
        self._wlock = ctx.Lock()
        self._poll = self._reader.poll

    def _pipe_state(self):
        context.assert_spawning(self)
        return self._reader, self._writer, self._rlock, self._wlock

    def _set_pipe_state(self, state):
        self._reader, self._writer, self._rlock, self._wlock = state
        self._poll = self._reader.poll

    def _pipe_put(self, obj):
        pickled = context.reduction.ForkingPickler.dumps(obj)
        with self._wlock:
            self._writer.send_bytes(pickled)

    def _pipe_get(self):
        with self._rlock:
            pickled = self._reader.recv_bytes()
        return context.reduction.ForkingPickler.loads(pickled)
