"""The call path of a Pool subclass that brings its own queues: `_setup_queues`, `_quick_put`, `_quick_get`.

Libraries do so to pickle in their own way (joblib maps large arrays into files).  Calls and outcomes then go through these
queues as in the standard library: a thread puts calls, another gets outcomes, workers do the opposite.

  call      (job, index, function, args, kwds); None: no more calls, each worker that sees it leaves it for the next
  outcome   (job, index, (ok, value)) from a worker
            (job, index, pid)   a worker has taken the call
            (None, pid, None)   there are no more calls
            (None, pid, how)    from the pool: this worker has ended; None: no more outcomes

A worker that dies costs the call that it had taken, as in any pool.  But it has the weakness of such queues: one that is
killed in the middle of a get or a put may leave half a message there, and then nothing can be read any more: such a pool can
still be terminated.
"""

import functools
import os
import threading

from _pyhost import OwnerDiedError

from . import connection, pool_service, util
from .pool_crew import Deaths, describe_end
from .pool_outcomes import ExceptionWithTraceback, Failure, MaybeEncodingError, WorkerLostError
from .pool_threads import LocalClient, ThreadCrew

__all__ = ['QueueClient', 'QueueCrew']

_GRACE = 2.0  # seconds that a worker has for its end after SIGTERM


class QueueClient(LocalClient):
    """The caller's end: what is submitted waits in a local queue for the thread that puts it into the pool's."""

    def __init__(self):
        super().__init__()
        self._jobs = {}  # key -> calls
        self._taken_by = {}  # pid -> (job, index)
        self._waiting = set()  # (job, index) of what no worker has taken
        self.answered = 0
        self.drained = False  # no more calls come, and all were taken

    def enqueue(self, calls, index, function, how):
        """A call for the workers."""
        self._jobs[calls.key] = calls
        self._waiting.add((calls.key, index))
        super().enqueue(calls, index, function, how)

    def forget(self, calls):
        """All of these have arrived."""
        self._jobs.pop(calls.key, None)
        super().forget(calls)

    @property
    def queued(self):
        """Calls that no worker has taken."""
        return len(self._waiting)

    @property
    def needs_workers(self):
        """Whether there are calls that no worker has taken."""
        return bool(self._waiting) and not self.drained

    def put_calls(self, put):
        """The life of the thread that puts calls into the pool's queue."""
        while True:
            task = self._tasks.get()
            if task is None:
                _persist(put, None)
                continue
            if task is STOP:
                return
            calls, index, function, how = task
            if calls.is_cancelled(index):
                self._waiting.discard((calls.key, index))
                continue
            try:
                _persist(put, (calls.key, index, *how.call(function)))
            except Exception as error:
                self._waiting.discard((calls.key, index))
                calls.arrive(index, (False, error))
            del task, calls, index, function, how

    def stop(self):
        """put_calls() ends."""
        self._tasks.put(STOP)

    def get_outcomes(self, get):
        """The life of the thread that gets outcomes from the pool's queue."""
        while True:
            try:
                message = get()
            except (EOFError, OSError):  # after half a message of a worker that was killed
                break
            if message is None:
                break
            self._note(*message)
            del message
        for calls in list(self._jobs.values()):  # none but what somebody took who was killed before he could say so
            calls.fail(Failure(lambda: WorkerLostError('a worker ended with a call that it had just taken')))

    def _note(self, job, index, outcome):
        if job is None and outcome is None:
            self.drained = True
        elif job is None:
            lost = self._taken_by.pop(index, None)
            if lost is not None:
                self._lose(index, outcome, *lost)
        elif isinstance(outcome, int):
            self._waiting.discard((job, index))
            self._taken_by[outcome] = job, index
        else:
            self.answered += 1
            pid, outcome = outcome[0], outcome[1:]
            self._taken_by.pop(pid, None)
            calls = self._jobs.get(job)
            if calls is not None:
                calls.arrive(index, outcome)

    def _lose(self, pid, how, job, index):
        calls = self._jobs.get(job)
        if calls is not None:
            calls.arrive(index, (False, Failure(
                lambda: WorkerLostError(f'{how} while it ran a call of the pool', pid=pid))))


STOP = object()


class QueueCrew(ThreadCrew):
    """The workers of such a pool, and its two threads; see pool_crew.Crew."""

    def __init__(self, client, limit, make_process, initializer, initargs, maxtasks, options, queues):
        super().__init__(client, limit, make_process, initializer, initargs)
        self.done = threading.Event()
        self._maxtasks = maxtasks
        self._calls, self._outcomes, put, get = queues
        self._deaths = Deaths(*options.max_restarts)
        self._ended = False  # by terminate()
        # Readable when the thread that puts calls has ended.
        self._tasks_ended, ending = connection.Pipe(duplex=False)
        self._threads = [_thread('PoolTasks', _telling, client.put_calls, put, ending),
                         _thread('PoolResults', client.get_outcomes, get)]

    def start(self):
        """Starts workers and threads."""
        super().start()
        for thread in self._threads:
            thread.start()
        pool_service.add(self)

    def repopulate(self):
        """Starts as many workers as are missing."""
        for _ in range(self._limit - len(self.workers)):
            process = self._make_thread(target=worker, args=(
                self._calls, self._outcomes, self._initializer, self._initargs, self._maxtasks))
            process.name = process.name.replace('Process', 'PoolWorker')
            process.daemon = True
            process._pyhost_worker = True
            process.start()
            self.workers.append(process)

    def sentinels(self):
        """Descriptors that become readable when a worker ends."""
        return [process.sentinel for process in list(self.workers)]

    def pause(self):
        """There is nothing to look after without an end of a worker."""

    def maintain(self):
        """Forgets the workers that have ended, and starts others where they are needed."""
        with self._lock:
            if self._ended or self.done.is_set():
                return
            for process in [process for process in self.workers if process.exitcode is not None]:
                process.join()
                self.workers.remove(process)
                _persist(self._outcomes.put, (None, process.pid, describe_end(process)))
                if process.exitcode != 0 and self.failure is None:
                    self._note_death(process)
            if self.failure is None and (not self._closing or self.client.needs_workers):
                self.repopulate()
            elif not self.workers:
                self._finish()

    def _note_death(self, process):
        if self._deaths.note(self.client.answered) >= self._deaths.limit:
            self.failure = (f'{self._deaths.limit} workers ended within {self._deaths.period:g} seconds and no call was '
                            f'answered meanwhile; the last: {describe_end(process)}')
            self.client.terminate(self.failure)
            for other in self.workers:
                other.terminate()

    def close(self):
        """The workers end when all calls are done."""
        super().close()
        pool_service.wake()

    def _end_workers(self):
        self.client.end_worker()

    def terminate(self):
        """Ends the workers, whatever they are doing."""
        self.client.terminate('the pool was terminated')
        with self._lock:
            self._ended = self._closing = True
            workers = list(self.workers)
            self.workers.clear()
        for process in workers:
            process.terminate()
        for process in workers:
            process.join(_GRACE)
            if process.exitcode is None:
                process.kill()
                process.join()
        self._drain()
        self._finish()
        pool_service.remove(self)

    def _drain(self):
        """Nobody reads calls any more, so the thread that puts one may wait for room."""
        self.client.stop()
        if not self._threads[0].is_alive() or self._threads[0] is threading.current_thread():
            return
        source = self._calls._reader
        take = source.recv_bytes
        if isinstance(source, connection.Connection):
            # Not by messages: a worker that was killed in the middle of one has left the rest of it.
            source = source.fileno()
            take = functools.partial(os.read, source, 1 << 16)
        while self._tasks_ended not in connection.wait([source, self._tasks_ended]):
            take()

    def _finish(self):
        if not self.done.is_set():
            self.client.stop()
            _persist(self._outcomes.put, None)
            # For the thread that gets outcomes, in case a worker that was killed has left half of one.
            writer = getattr(self._outcomes, '_writer', None)
            if isinstance(writer, connection.Connection):
                writer.close()
            self.done.set()

    def join(self):
        """Waits until the last worker has ended."""
        self.done.wait()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()


def _telling(work, argument, end):
    try:
        work(argument)
    finally:
        end.send_bytes(b'')  # not by closing it: a forked child may have a copy
        end.close()


def _thread(name, target, *arguments):
    thread = threading.Thread(target=target, name=name, args=arguments, daemon=True)
    thread._pyhost_internal = True
    return thread


def _persist(operation, *args):
    """operation(*args), although the one who held its lock was killed."""
    while True:
        try:
            return operation(*args)
        except OwnerDiedError:
            continue


# ---- In the worker ------------------------------------------------------------------------------------------------


def worker(calls, outcomes, initializer, initargs, maxtasks):
    """Serves calls until there are no more, or `maxtasks` are done."""
    if initializer is not None:
        initializer(*initargs)
    served = 0
    while maxtasks is None or served < maxtasks:
        try:
            task = _persist(calls.get)
        except (EOFError, OSError):
            break
        if task is None:
            _persist(calls.put, None)
            _persist(outcomes.put, (None, os.getpid(), None))
            break
        _serve(outcomes, *task)
        del task
        served += 1
    util.debug('worker exiting after %d tasks', served)


def _serve(outcomes, job, index, function, args, kwds):
    _persist(outcomes.put, (job, index, os.getpid()))
    try:
        outcome = True, function(*args, **kwds)
    except Exception as error:
        outcome = False, ExceptionWithTraceback(error, error.__traceback__)
    try:
        _persist(outcomes.put, (job, index, (os.getpid(), *outcome)))
    except Exception as error:
        unsent = MaybeEncodingError(error, outcome[1])
        _persist(outcomes.put, (job, index, (os.getpid(), False, unsent)))
