"""What a worker was doing when it was ended, or died of a fault: its Python stacks, in a file in memory.

The worker's faulthandler writes them, at the C level and without the GIL: also when the worker is stuck in C code.
SIGNAL makes it write the stacks of all threads and end the process; nothing else uses that signal on Linux.
"""

import os
import threading

import _signal  # `signal` makes enumerations, which takes a while

from .context import reduction

__all__ = ['FaultLog', 'SIGNAL']

SIGNAL = _signal.SIGSTKFLT

_MOST_BYTES = 1 << 20
_SERVING = b'serving\n'  # the file's first line, once its worker takes calls


class FaultLog:
    """Goes to a worker with its start; install() there, text() here.  Thread-safe."""

    def __init__(self, fd=None):
        self._lock = threading.Lock()  # who asks for the text must not read a descriptor that was just closed, and reused
        self._kept = b''  # the contents, once closed
        self._fd = os.memfd_create('pyhost fault', os.MFD_CLOEXEC) if fd is None else fd

    def __reduce__(self):
        return _rebuild, (reduction.DupFd(self._fd),)

    def install(self):
        """In the worker: faults and SIGNAL write here from now on.  A faulthandler that the user enabled stays as it is."""
        import faulthandler
        faulthandler.register(SIGNAL, self._fd, all_threads=True, chain=True)  # then the signal's default: the end
        if not faulthandler.is_enabled():
            faulthandler.enable(self._fd)

    def text(self):
        """What the worker wrote; '' when nothing."""
        return self._contents().removeprefix(_SERVING).decode(errors='replace')

    def note_serving(self):
        """In the worker: it has begun, and takes calls from now on."""
        os.write(self._fd, _SERVING)

    def has_served(self):
        """Whether the worker came so far as to take calls."""
        return self._contents().startswith(_SERVING)

    def _contents(self):
        with self._lock:
            return self._kept if self._fd is None else self._read()

    def _read(self):
        return os.pread(self._fd, _MOST_BYTES, 0)

    def close(self):
        """The worker has ended: gives the descriptor back, and keeps the contents."""
        with self._lock:
            if self._fd is not None:
                self._kept = self._read()
                fd, self._fd = self._fd, None
                os.close(fd)

    def __del__(self, _close=os.close):  # the interpreter may be half gone; a fork may have copied a lock that is held
        if self._fd is not None:
            _close(self._fd)


def _rebuild(duplicate):
    return FaultLog(duplicate.detach())
