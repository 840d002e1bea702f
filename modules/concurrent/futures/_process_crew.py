"""The workers of one ProcessPoolExecutor: started as they are needed, replaced after their last call, ended together.

  RUN      workers are started as long as there are calls for more of them
  CLOSED   they end when all calls are done
  lost     one ended without having been told to: all end at once, and so do the calls (Loss)

With a policy for deaths (on_worker_death) a worker that ends costs the call in its hands at most, and is replaced; too many
such deaths with no call answered between them (max_restarts) break the executor after all.

A crew outlives its executor and refers to it weakly.  Thread-safe: `_lock` guards what changes.  The process's pool
service (multiprocessing/pool_service.py) calls maintain() when a worker has ended.
"""

import os
import threading
import weakref

from multiprocessing import pool_outcomes, pool_service, util
from multiprocessing.pool_crew import Deaths
from multiprocessing.pool_faults import FaultLog
from multiprocessing.pool_outcomes import WorkerLostError
from multiprocessing.pool_seats import Seats
from multiprocessing.pool_watch import Watch

from ._process_errors import Loss

__all__ = ['Crew']

RUN = 'RUN'
CLOSED = 'CLOSED'

# Seconds that the workers of a broken executor have for their end after SIGTERM.
_GRACE = 2.0


class Crew:
    """Up to `limit` workers that serve `client`'s calls."""

    def __init__(self, client, executor, start_worker, limit):
        self.client = client
        self.calls = {}  # number of an unsettled call -> its future
        self.processes = {}  # pid -> process; those that ended in the end stay
        self.loss = None
        self.done = threading.Event()  # no worker is left and none will come
        self._pid = os.getpid()
        self._executor = weakref.ref(executor)
        self._spawn = start_worker  # a started process from the arguments of executor_worker.worker
        self._limit = limit
        self._options = options = executor._options
        self._arguments = (client.server, executor._initializer, executor._initargs, executor._max_tasks_per_child)
        self._comes_to_an_end = executor._max_tasks_per_child or options.max_memory  # workers do, and are replaced
        self._deaths = Deaths(*options.max_restarts)
        self._state = RUN
        self._alive = []
        self.forced = False  # all workers are being ended: none is replaced
        self._seats = Seats(client)
        self._watch = Watch(client, self._alive, self._seats)
        self._served = False  # by the pool service
        self._lock = threading.RLock()

    # ---- Starting ----------------------------------------------------------------------------------------------

    def start_all(self):
        """Starts all workers, before this process has other threads (start method fork)."""
        with self._lock:
            for _ in range(self._limit):
                self._start_worker()
            self._have_served()

    def grow(self):
        """Starts a worker if none is free for the call that was just submitted."""
        if len(self._alive) >= self._limit:
            return
        with self._lock:
            # A call that could not be pickled counts, as it does in the standard library: the next one finds its worker.
            calls = self.client.unanswered + self.client.withdrawn
            if self._state == RUN and self.loss is None and self._missing(calls) > 0:
                self._start_worker()
                self._have_served()

    def _missing(self, calls):
        """How many workers besides those that live so many calls could use."""
        return min(self._limit, calls) - len(self._alive)

    def _start_worker(self):
        log = FaultLog()
        process = self._spawn((*self._arguments, log, self._options.max_memory))
        self._seats.take(process, log)
        self._alive.append(process)
        self.processes[process.pid] = process

    def _have_served(self):
        if self._served:
            pool_service.wake()  # it waits for the ends of those it knows
        else:
            self._served = True
            pool_service.add(self)

    # ---- For the pool service ----------------------------------------------------------------------------------

    def sentinels(self):
        """Descriptors that become readable when a worker ends."""
        with self._lock:
            return [process.sentinel for process in self._alive]

    def maintain(self):
        """Forgets the workers that have ended; starts others in their place, or ends everything, as it must be."""
        with self._lock:
            self._watch.look()
            for process in [process for process in self._alive if process.exitcode is not None]:
                self._forget(process)
            if self.loss is None:
                self._replace()
            if not self._alive and (self._state != RUN or self.loss is not None or self.forced):
                self._end()

    def _forget(self, process):
        process.join()
        self._alive.remove(process)
        was_ended = self._watch.was_ended(process)
        self._seats.leave(process)
        if self.loss is not None:
            return
        report = self.client.take_report()
        if not was_ended and self._is_death(process, report):
            self._note_death(process, report)
        if self._state == RUN and self.loss is None:
            del self.processes[process.pid]

    def _is_death(self, process, report):
        return (process.exitcode != 0 or report or self._fell(process)
                or not (self._comes_to_an_end or self._state == CLOSED))

    def _note_death(self, process, report):
        if self.goes_on() and not report:
            deaths = self._deaths.note(self.client.answered)
            if deaths < self._deaths.limit:
                return
        self._break(self._explain(process, report))

    def _replace(self):
        if self.forced:
            return
        try:
            for _ in range(self._missing(self.client.unanswered)):
                self._start_worker()
        except Exception as error:
            if not self._alive:
                text = f'a worker could not be started: {type(error).__name__}: {error}'
                self._break(Loss(text, lambda: WorkerLostError(text)))

    def _end(self):
        if self.loss is None and self.client.unanswered:
            text = ('the executor was forcefully shut down' if self.forced else 'all workers ended')
            text += ' before the calls were done'
            self._break(Loss(text, lambda: WorkerLostError(text)))
        self.done.set()

    # ---- Limits, and figures -------------------------------------------------------------------------------------

    def pause(self):
        """Seconds until maintain() has to be called though nothing happened; None: there is no need."""
        with self._lock:
            return self._watch.pause(may_sleep=True)

    def expect(self, limit):
        """A call that may run so many milliseconds was submitted."""
        if self._watch.overlooks(limit / 1000):
            with self._lock:
                self._watch.expect(limit / 1000)

    def cancel(self, calls):
        """Ends the worker that runs this call, if one does."""
        with self._lock:
            return self._watch.cancel(calls) > 0

    def stats(self):
        """A dict for each worker; see ProcessPoolExecutor.stats()."""
        with self._lock:
            return self._seats.stats(self._alive)

    # ---- Deaths ------------------------------------------------------------------------------------------------

    def goes_on(self):
        """Whether the executor survives the death of a worker."""
        return self._options.goes_on

    def lose(self, cause):
        """A call was lost with its worker: `cause` is the WorkerLostError."""
        with self._lock:
            if self.loss is None:
                self._break(Loss(str(cause), lambda: WorkerLostError(*cause.args)))

    def _break(self, loss):
        self.loss = loss
        executor = self._executor()
        if executor is not None:
            executor._broken = loss.broken()
            executor._shutdown_thread = True
        util.debug('executor broken: %s', loss.text)
        self.client.terminate(loss.text)
        for process in self._alive:
            process.terminate()
        pool_service.wake()

    def _fell(self, process):
        """Whether a worker that exited with code 0 did so in a call."""
        return self._call_of(process) is not None

    def _explain(self, process, report):
        """The Loss for a worker that ended: how, and by what it ran."""
        end = process._exit_reason() or f'ended with exit code {process.exitcode}'
        pid, exitcode, name = process.pid, process.exitcode, process.name
        if report:
            text = f'{name} (pid {pid}): its initializer raised {pool_outcomes.describe_report(report)}'
            return Loss(text, pool_outcomes.unpack_exception('initializer', report).exception)
        function = self._call_of(process)
        text = f'{name} (pid {pid}) {end} while it ' + (f'ran {function}' if function else 'was idle')
        return Loss(text, lambda: WorkerLostError(text, pid, exitcode, function))

    def _call_of(self, process):
        """What messages call the function that the worker was running when it ended; None if none."""
        # In its hands still, or reported by now: in this order, for the report comes first (runtime/broker/README.md).
        hosts = {figures['host']: figures['call'] for figures in self.client.stats()}
        call = hosts.get(process._popen._child.host_id, 0)
        if not call:
            lost = self.client.first_lost()
            if lost is None or lost[1] != process.pid:
                return None
            call = lost[0]
        calls = getattr(self.calls.get(call), '_calls', None)
        return calls and str(calls.function)  # none: it was answered, and the worker about to take the next one

    # ---- The end -----------------------------------------------------------------------------------------------

    def known_processes(self):
        """pid -> process; not while one is being started, who may have answered a call by now."""
        with self._lock:
            return self.processes

    def is_ours(self):
        """Whether this process started the workers; a copy made by fork has nothing to do with them."""
        return self._pid == os.getpid()

    def close(self):
        """No more calls; the workers end when all are done."""
        with self._lock:
            if self._state == CLOSED:
                return
            self._state = CLOSED
            if self._options.attempts > 1:  # a call that is lost must find the queue open
                threading.Thread(target=self._close_when_done, name='ExecutorCloser', daemon=True).start()
            else:
                self.client.close()
            if not self._served:
                self.done.set()
        pool_service.wake()

    def _close_when_done(self):
        self.client.wait_outstanding()
        self.client.close()
        pool_service.wake()

    def join(self, timeout=None):
        """Waits until the last worker has ended; those of a broken executor are killed when they take too long."""
        if timeout is not None:
            self.done.wait(timeout)
            return
        while not self.done.wait(_GRACE):
            if self.loss is not None:
                self._kill()
        pool_service.leave()

    def _kill(self):
        with self._lock:
            for process in self._alive:
                process.kill()
