"""The futures of a ProcessPoolExecutor, and how outcomes get to them.

Replies lie in shared memory until somebody asks.  Who that is decides which thread receives them:

  result(), exception(), done() ...   the asking thread receives and unpickles: no thread in between
  add_done_callback(), wait(), as_completed(), asyncio    the desk's thread, started when first needed: it waits for the
                                      calls of such futures, settles them and runs their callbacks
  nobody                              submit() settles what has arrived, now and then; shutdown() the rest

To settle a future is to give it its outcome.  Calls.take() gives an outcome to one thread only, whoever comes first.
"""

import sys
import threading
from concurrent.futures import _base

from multiprocessing.pool_outcomes import Failure, exception_of

from ._process_errors import exception_raised_by, unreadable

__all__ = ['CallFuture', 'Desk']

# How a call ended: enum Ending in modules/native/call_outcome.h.
_VALUE, _RAISED, _UNREADABLE, _LOST, _NOT_RUN = range(5)

_DONE = frozenset((_base.CANCELLED, _base.CANCELLED_AND_NOTIFIED, _base.FINISHED))

# So many unsettled futures, and twice as many after each time, make submit() settle those that can be.
_LEAST_SWEEP = 1024
_MISSES = 64  # calls are done about in order


class CallFuture(_base.Future):
    """The outcome of one call, a Future like any other."""

    def __init__(self, desk, calls):
        self._desk = desk
        self._calls = calls  # None once settled
        self._notified = False  # the desk's thread settles it
        super().__init__()

    # ---- Asking ------------------------------------------------------------------------------------------------

    def result(self, timeout=None):
        """The call's result, or raises what it raised; see concurrent.futures.Future.result()."""
        received = self._receive(timeout)
        if self._state == _base.FINISHED and self._exception is None:
            return self._result
        try:
            return super().result(timeout if received else 0)
        finally:
            self = None  # the exception holds this frame

    def exception(self, timeout=None):
        """What the call raised, None when it did not; see concurrent.futures.Future.exception()."""
        return super().exception(timeout if self._receive(timeout) else 0)

    def done(self):
        """Whether the call has ended or was cancelled."""
        self._settle_if_arrived()
        return self._state in _DONE

    def cancelled(self):
        """Whether the call was cancelled."""
        self._settle_if_arrived()
        return super().cancelled()

    def running(self):
        """Whether a worker is running the call."""
        self._settle_if_arrived()
        calls = self._calls
        return calls is not None and self._state not in _DONE and calls.is_taken()

    def __repr__(self):
        if self.running():
            return f'<{type(self).__name__} at {id(self):#x} state=running>'
        return super().__repr__()

    def cancel(self, *, running=False):
        """Keeps a call that no worker has taken from being run; whether that, or an earlier cancel(), succeeded.

        running: a call that a worker runs is cancelled too; the worker is ended, and replaced.
        """
        calls = self._calls
        if calls is not None and self._state not in _DONE and (
                calls.cancel() or running and self._desk.end_running(calls)):
            self._become_cancelled()
        return super().cancelled()

    def add_done_callback(self, fn):
        """Calls fn(future) when the call has ended: in a thread of this process, or at once if it has ended."""
        self._settle_if_arrived()
        with self._condition:
            if self._state not in _DONE:
                self._done_callbacks.append(fn)
                self._ask()
                return
        super().add_done_callback(fn)

    # ---- Receiving ---------------------------------------------------------------------------------------------

    def _receive(self, timeout):
        """Waits for the outcome and settles, unless that is the desk's business.  False: not within `timeout`."""
        calls = self._calls
        if calls is None or self._notified or self._state in _DONE:
            return True
        if not calls.wait(timeout):
            return False
        self._settle(calls)
        return True

    def _settle_if_arrived(self):
        self._receive(0)

    def _settle(self, calls):
        """Takes the outcome, if no other thread has; it is not lost when an interrupt comes meanwhile."""
        try:
            outcome = calls.take()
            if outcome is not None:
                self._finish(*outcome)
        except BaseException as error:
            outcome = calls.taken
            if outcome is not None:
                self._finish(*outcome)
            if outcome is None or outcome[1] is not error or isinstance(error, KeyboardInterrupt):
                raise
            # Else unpickling the outcome raised it: that is the outcome now.
        finally:
            outcome = None  # an exception, whose traceback holds this frame

    def _finish(self, ending, value):
        try:
            if ending == _VALUE:
                self.set_result(value)
            elif (error := self._desk.exception_for(ending, value)) is not None:
                self.set_exception(error)
            else:
                self._become_cancelled()
        except _base.InvalidStateError:
            return
        self._leave_desk()

    def _leave_desk(self):
        calls, self._calls = self._calls, None
        if calls is not None:
            self._desk.pending.pop(calls.first, None)
            calls.drop()

    def _become_cancelled(self):
        super().cancel()
        self.set_running_or_notify_cancel()
        self._leave_desk()

    # ---- Being waited for --------------------------------------------------------------------------------------

    @property
    def _waiters(self):
        """wait() and as_completed() put themselves here: from then on the desk's thread settles this future."""
        if self._state not in _DONE:
            self._ask()
        return self._waiting

    @_waiters.setter
    def _waiters(self, waiters):
        self._waiting = waiters

    def _ask(self):
        """Has the desk's thread settle this future; self._condition is held."""
        calls = self._calls
        if not self._notified and calls is not None:
            self._notified = True
            self._desk.notify(self, calls)

    def _invoke_callbacks(self):
        """Cancelling runs the callbacks at once.  Else the desk's thread does, whoever settled: the thread that asks
        for a result may hold what a callback waits for."""
        if self._state != _base.FINISHED:
            super()._invoke_callbacks()

    def _conclude(self, calls):
        """In the desk's thread, when the call has ended: settles, runs the callbacks."""
        self._settle(calls)
        with self._condition:
            self._condition.wait_for(lambda: self._state in _DONE)  # another thread took the outcome just now
        if self._state == _base.FINISHED:
            super()._invoke_callbacks()


class Desk:
    """The unsettled calls of one executor, and the thread that waits for some of them."""

    def __init__(self, crew):
        self.client = crew.client
        self.pending = crew.calls  # number of the call -> future
        self._crew = crew
        self._lock = threading.RLock()
        self._notified = {}  # key of its calls -> (future, calls) that the thread waits for
        self._thread = None
        self._sweep_at = _LEAST_SWEEP

    def submit(self, fn, args, kwargs, limit, attempts):
        """The future of fn(*args, **kwargs), which may run so many milliseconds, so many times; pickled now."""
        calls = self.client.submit(fn, args, kwargs, limit, attempts)
        future = CallFuture(self, calls)
        self.pending[calls.first] = future
        if len(self.pending) >= self._sweep_at:
            self.settle_arrived(_MISSES)
            self._sweep_at = max(_LEAST_SWEEP, 2 * len(self.pending))
        return future

    def settle_arrived(self, misses=sys.maxsize):
        """Settles the futures whose outcome is here, oldest first, until `misses` in a row have none."""
        left = misses
        for future in list(self.pending.values()):
            future._settle_if_arrived()
            left = misses if future._calls is None else left - 1
            if left == 0:
                break

    def exception_for(self, ending, value):
        """What a future raises whose call ended so; None when the call was cancelled."""
        if ending == _RAISED:
            return exception_raised_by(value)
        if ending == _UNREADABLE:
            return unreadable(value)
        if ending == _LOST:
            cause = exception_of(value)
            if self._crew.goes_on():
                return cause
            self._crew.lose(cause)
            return self._crew.loss.exception(cause)
        if not isinstance(value, Failure):
            return value  # pickling the call raised it
        return self._crew.loss.exception() if self._crew.loss is not None else None

    def end_running(self, calls):
        """Ends the worker that runs this call, if one does."""
        return self._crew.cancel(calls)

    def cancel_waiting(self, but):
        """Cancels all calls that no worker has taken, but for the `but` oldest that are not done: these are about to be
        taken, or would have been if the workers' starts took no time."""
        self.settle_arrived()
        for future in list(self.pending.values())[but:]:
            future.cancel()
        if len(self.pending) > but:  # too many for cancel(), and so many that the oldest were taken
            self.client.cancel_queued()
            self.settle_arrived()

    # ---- The thread --------------------------------------------------------------------------------------------

    def notify(self, future, calls):
        """Has the thread settle this future when its call has ended."""
        with self._lock:
            self._notified[calls.key] = future, calls
            calls.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name='ExecutorCallbacks', daemon=True)
                self._thread._pyhost_internal = True
                self._thread.start()

    def _run(self):
        while True:
            keys = self.client.wait_finished()
            if keys is None:
                with self._lock:
                    if not self._notified:
                        self._thread = None
                        return
                continue
            for key in keys:
                self._conclude(key)

    def _conclude(self, key):
        with self._lock:
            future, calls = self._notified.pop(key)
        try:
            future._conclude(calls)
        except BaseException:  # a callback's SystemExit and the like: not the end of the others
            threading.excepthook(threading.ExceptHookArgs([*sys.exc_info(), threading.current_thread()]))

    def close(self):
        """The thread ends when it has nothing to wait for."""
        self.client.stop_waiting()

    def join(self):
        """Waits until the thread has ended, and so run all callbacks; the crew has ended."""
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
