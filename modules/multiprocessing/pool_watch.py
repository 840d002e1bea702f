"""Ends workers whose call takes longer than it may, or is cancelled, and gives such calls their outcome.

  1. the call is condemned (_pyhost.CallClient.condemn): its worker will not answer it, nor take another one
  2. the worker gets a signal; if it does not end by that within _GRACE seconds, SIGKILL
  3. when it has ended, the call's outcome says why, with the stacks that the worker wrote (pool_faults.py)

The pool service (pool_service.py) looks and waits; it wakes up for limits only while calls with a limit are unanswered.
The crew's lock guards all of it, unless said otherwise.
"""

import time

import _signal  # `signal` makes enumerations, which takes a while

from . import pool_outcomes, pool_service, util
from .pool_faults import SIGNAL

__all__ = ['Watch']

# Seconds that a worker has to write its stacks and end.
_GRACE = 1.0


class Watch:
    """For one crew: `workers` is its list of processes, `seats` their Seats."""

    def __init__(self, client, workers, seats):
        self._client = client
        self._workers = workers
        self._seats = seats
        self._least_limit = None  # seconds: no call with a limit is overlooked for longer; None: there is none
        self._sentences = {}  # pid of the worker -> (call, what becomes of it)

    def overlooks(self, seconds):
        """Whether a call that may take so long, and was submitted before, may not be looked at in time.  Needs no lock."""
        limit = self._least_limit
        return limit is None or seconds < limit

    def expect(self, seconds):
        """Looks at calls that may take so long, from now on until all are answered."""
        if self.overlooks(seconds):
            self._least_limit = seconds
            pool_service.wake()

    def look(self):
        """Ends the workers whose calls take too long, and those that did not end so far."""
        if self._least_limit is not None:
            for host, call, limit in self._client.overdue()[0]:
                self._end_worker(host, call, SIGNAL, ('timeout', limit))
        now = time.monotonic()
        for process in self._workers:
            sentence = self._sentences.get(process.pid)
            if sentence is not None and sentence.is_due(now):
                process.kill()

    def pause(self, may_sleep):
        """Seconds until look() has to be called; None: not before something happens."""
        times = [sentence.left() for sentence in self._sentences.values() if not sentence.killed]
        limit = self._least_limit
        if limit is not None:
            self._least_limit = None
            if self._client.unanswered or not may_sleep:  # in this order: see overlooks()
                self._least_limit = limit
                following = self._client.overdue()[1]
                times.append(limit if following is None else min(limit, following))
        return min(times, default=None)

    def cancel(self, calls):
        """Ends the workers that run some of these calls; how many."""
        return sum(self._end_worker(host, call, _signal.SIGTERM, ('cancelled', None)) for host, call in calls.running())

    def _end_worker(self, host, call, signum, fate):
        process = next((process for process in self._workers if process._popen._child.host_id == host), None)
        if process is None or not self._client.condemn(host, call):
            return False
        util.debug('ending %s: its call was %s', process.name, fate[0])
        self._sentences[process.pid] = _Sentence(call, fate)
        process._popen._send_signal(signum)
        process._popen._send_signal(_signal.SIGCONT)  # for one that is stopped
        pool_service.wake()
        return True

    def was_ended(self, process):
        """The process has ended: whether it was made to, and its call's outcome is known now."""
        sentence = self._sentences.pop(process.pid, None)
        if sentence is None:
            return False
        kind, limit = sentence.fate
        self._client.conclude(sentence.call, pool_outcomes.pack_verdict(
            kind, process.name, process.pid, limit, self._seats.text(process)))
        return True


class _Sentence:
    def __init__(self, call, fate):
        self.call = call
        self.fate = fate
        self.killed = False
        self._deadline = time.monotonic() + _GRACE

    def left(self):
        return max(0, self._deadline - time.monotonic())

    def is_due(self, now):
        if self.killed or now < self._deadline:
            return False
        self.killed = True
        return True
