"""The workers of one pool: started, replaced when they end, ended with the pool.

A crew outlives its Pool object (a dropped pool is ended by its finalizer), so it never refers to it.

  RUN         the number of workers is kept
  CLOSE       workers end when the call queue is drained; those that end before are replaced as long as calls wait
  TERMINATE   workers are ended; `done` is set when the last is gone

Thread-safe: `_lock` guards `workers` and `state`; the service thread (pool_service.py) calls maintain().
"""

import threading
import time

from . import pool_outcomes, pool_service, util
from .pool_faults import FaultLog
from .pool_seats import Seats
from .pool_watch import Watch
from .pool_worker import worker

__all__ = ['Crew', 'Deaths', 'describe_end', 'RUN', 'CLOSE', 'TERMINATE']

RUN = 'RUN'
CLOSE = 'CLOSE'
TERMINATE = 'TERMINATE'

# Seconds that a worker has for its end after SIGTERM.
_GRACE = 2.0
# Deaths by a raising initializer after which the pool fails, if its limit is not lower.
_RAISING_STARTS = 5
# ... by an exception before the worker could serve at all: its main module cannot be imported, say.
_FAILING_STARTS = 3


class Crew:
    """`limit` workers that serve `client`'s calls, as `options` (pool_options.PoolOptions) say."""

    def __init__(self, client, limit, make_process, initializer, initargs, maxtasks, options):
        self.client = client
        self.limit = limit
        self.workers = []
        self.state = RUN
        self.failure = None  # why there are no workers any more
        self.done = threading.Event()
        self._make_process = make_process
        self._server = client.server
        self._initializer = initializer
        self._initargs = initargs
        self._maxtasks = maxtasks
        self._options = options
        self._report = None  # the last of a worker that could not begin
        self._deaths = Deaths(*options.max_restarts)
        self._seats = Seats(client)
        self.watch = Watch(client, self.workers, self._seats)
        self._lock = threading.RLock()
        self._feeding = 0  # threads that will submit calls even after close()

    def start(self):
        """Starts the workers; when one cannot be started the others are ended again."""
        try:
            self.repopulate()
        except BaseException:
            for process in self.workers:
                if process.exitcode is None:
                    process.terminate()
            for process in self.workers:
                process.join()
            self.client.terminate('the pool could not be started')
            raise
        pool_service.add(self)

    def repopulate(self):
        """Starts as many workers as are missing."""
        with self._lock:
            for _ in range(self.limit - len(self.workers)):
                self._start_worker()

    def _start_worker(self):
        log = FaultLog()
        process = self._make_process(target=worker, args=(
            self._server, self._initializer, self._initargs, self._maxtasks, log, self._options.max_memory))
        process.name = process.name.replace('Process', 'PoolWorker')
        process.daemon = True
        process._pyhost_worker = True
        process.start()
        self._seats.take(process, log)
        self.workers.append(process)
        util.debug('added worker')

    def sentinels(self):
        """Descriptors that become readable when a worker ends."""
        with self._lock:
            return [process.sentinel for process in self.workers]

    def maintain(self):
        """Forgets the workers that have ended, and starts others where they are needed."""
        with self._lock:
            self.watch.look()
            if not self._remove_ended() and self.workers:
                return
            if self.failure is None and self._is_needed():
                try:
                    self.repopulate()
                except Exception as error:
                    if not self.workers:
                        self._fail(f'a worker could not be started: {error}')
            if not self.workers and (self.state != RUN or self.failure):
                self.done.set()

    def pause(self):
        """Seconds until maintain() has to be called though nothing happened; None: there is no need."""
        with self._lock:
            return self.watch.pause(may_sleep=not self._feeding)

    def expect(self, limit):
        """Calls that may run so many milliseconds were submitted."""
        if self.watch.overlooks(limit / 1000):
            with self._lock:
                self.watch.expect(limit / 1000)

    def cancel(self, calls):
        """Ends the workers that run some of these calls; how many."""
        with self._lock:
            return self.watch.cancel(calls)

    def stats(self):
        """A dict for each worker; see Pool.stats()."""
        with self._lock:
            return self._seats.stats(self.workers)

    def _is_needed(self):
        return self.state == RUN or (
            self.state == CLOSE and (self._feeding > 0 or self.client.queued > 0))

    def _remove_ended(self):
        ended = [process for process in self.workers if process.exitcode is not None]
        for process in ended:
            process.join()
            self.workers.remove(process)
            was_ended = self.watch.was_ended(process)
            has_served = self._seats.leave(process)
            if process.exitcode != 0 and self.state == RUN and not was_ended:
                self._note_death(process, has_served)
        return bool(ended)

    def _note_death(self, process, has_served):
        if self.failure is not None:
            return
        if not has_served:  # several may die of one cause, of which only the last report is there
            self._report = self.client.take_report() or self._report
        report = None if has_served else self._report
        deaths = self._deaths.note(self.client.answered)
        limit, cause = self._deaths.limit, ''
        # What raises at the start of a worker will raise again: fewer attempts are enough.
        if report:
            limit, cause = min(limit, _RAISING_STARTS), f' ({pool_outcomes.describe_report(report)})'
        elif process.exitcode > 0 and not has_served:
            limit, cause = min(limit, _FAILING_STARTS), ' before it could take a call: its traceback is on stderr'
        if deaths >= limit:
            self._fail(f'{deaths} worker{"s" * (deaths > 1)} ended within {self._deaths.period:g} seconds and no call '
                       f'was answered meanwhile; the last: {describe_end(process)}{cause}')

    def _fail(self, reason):
        self.failure = reason
        util.debug('pool failed: %s', reason)
        self.client.fail(reason)
        for process in self.workers:
            process.terminate()

    def close(self):
        """No more calls."""
        with self._lock:
            if self.state != RUN:
                return
            self.state = CLOSE
            if self._options.attempts > 1:  # a call that is lost must find the queue open
                self._feeding += 1
                threading.Thread(target=self._await_calls, name='PoolCloser', daemon=True).start()
            elif not self._feeding:
                self.client.close()
        pool_service.wake()

    def _await_calls(self):
        try:
            self.client.wait_outstanding()
        finally:
            self.end_feeding()

    def begin_feeding(self):
        """A thread of this process is going to submit calls."""
        with self._lock:
            self._feeding += 1

    def end_feeding(self):
        """... and has submitted its last."""
        with self._lock:
            self._feeding -= 1
            if not self._feeding and self.state == CLOSE:
                self.client.close()
        pool_service.wake()

    def terminate(self):
        """Ends the workers, whatever they are doing; calls without a result end with PoolFailedError."""
        with self._lock:
            self.state = TERMINATE
            self.client.terminate('the pool was terminated')
            workers = list(self.workers)
        for process in workers:
            if process.exitcode is None:
                process.terminate()
        self._join_or_kill(workers)
        pool_service.remove(self)
        with self._lock:
            for process in self.workers:
                self.watch.was_ended(process)
            self.workers.clear()
            self._seats.clear()
        self.done.set()

    @staticmethod
    def _join_or_kill(workers):
        deadline = time.monotonic() + _GRACE
        for process in workers:
            process.join(max(0, deadline - time.monotonic()))
            if process.exitcode is None:
                util.debug('worker %s does not end by SIGTERM', process.name)
                process.kill()
        for process in workers:
            process.join()

    def join(self):
        """Waits until the last worker has ended, and, with the process's last pool, the thread that looked after it."""
        self.done.wait()
        pool_service.leave()


class Deaths:
    """Counts deaths of workers between which no call was answered: `limit` of them in `period` seconds are too many.

    A worker that dies of a call takes that call along, so a pool of such calls comes to an end; one whose workers
    cannot even begin (an initializer that always fails) would go on for ever.
    """

    def __init__(self, limit, period):
        self.limit = limit
        self.period = period
        self._times = []
        self._answered = 0

    def note(self, answered):
        """Notes a death; the number of those that count.  `answered` is the number of answers of the pool so far."""
        now = time.monotonic()
        if answered != self._answered:
            self._answered = answered
            self._times.clear()
        self._times = [moment for moment in self._times if now - moment < self.period]
        self._times.append(now)
        return len(self._times)


def describe_end(process):
    """Who ended, and how."""
    reason = process._exit_reason() or f'exit code {process.exitcode}'
    return f'{process.name} (pid {process.pid}) {reason}'
