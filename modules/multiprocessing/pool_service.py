"""The service thread: one a process, started with the first pool.  It notices workers that ended.

It is not on the way of any call.  It waits for the workers' sentinels in poll(), without the GIL, and for the moment at
which a crew has to look at its calls (pool_watch.py).  It ends when the
last pool of the process has ended.
"""

import os
import threading

__all__ = ['add', 'leave', 'remove', 'wake']


class _Service:
    """The service of one process: its pools' crews, and the thread that looks after them."""

    def __init__(self):
        self._lock = threading.RLock()  # a pool's finalizer may run anywhere, here too
        self._changed = threading.Condition(self._lock)  # the thread has ended, or there is a new crew
        self._crews = []
        self._thread = None
        self._wake_fd = None

    def add(self, crew):
        """Looks after `crew` until its workers are gone for good."""
        with self._lock:
            if self._thread is None:
                self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._thread = threading.Thread(target=self._run, name='PoolService', daemon=True)
                self._thread._pyhost_internal = True
                self._thread.start()
            self._crews.append(crew)
            self._changed.notify_all()
            self._signal()

    def remove(self, crew):
        """Looks after `crew` no more."""
        with self._lock:
            if crew in self._crews:
                self._crews.remove(crew)
            self._signal()

    def wake(self):
        """Looks at every crew now."""
        with self._lock:
            self._signal()

    def leave(self):
        """Returns when the thread has ended, unless there are crews to look after."""
        with self._lock:
            thread = self._thread
            if thread is None or thread is threading.current_thread():
                return
            self._signal()
            self._changed.wait_for(lambda: self._thread is not thread or not self._is_idle())
            ended = self._thread is not thread
        if ended:
            thread.join()

    def _is_idle(self):
        return all(crew.done.is_set() for crew in self._crews)

    def _signal(self):
        if self._wake_fd is not None:
            os.eventfd_write(self._wake_fd, 1)

    def _run(self):
        from .connection import wait
        while True:
            with self._lock:
                self._crews = [crew for crew in self._crews if not crew.done.is_set()]
                if not self._crews:
                    os.close(self._wake_fd)
                    self._wake_fd = self._thread = None
                    self._changed.notify_all()
                    return
                crews = list(self._crews)
            sentinels = [fd for crew in crews for fd in crew.sentinels()]
            pauses = [pause for crew in crews if (pause := crew.pause()) is not None]
            if self._wake_fd in wait([self._wake_fd, *sentinels], min(pauses, default=None)):
                self._drain()
            for crew in crews:
                crew.maintain()
            del crews, crew  # nothing is kept alive while waiting

    def _drain(self):
        try:
            os.eventfd_read(self._wake_fd)
        except BlockingIOError:
            pass


_service = _Service()


def _after_fork():
    """A forked child has no service thread, and its parent's workers are not its own."""
    global _service
    _service = _Service()


os.register_at_fork(after_in_child=_after_fork)


def add(crew):
    """Looks after `crew` until its workers are gone for good."""
    _service.add(crew)


def remove(crew):
    """Looks after `crew` no more."""
    _service.remove(crew)


def leave():
    """Returns when the service has ended, unless there are crews to look after."""
    _service.leave()


def wake():
    """Looks at every crew now."""
    _service.wake()
