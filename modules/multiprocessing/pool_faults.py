"""What a worker was doing when it was ended, or died of a fault: its Python stacks, in a file in memory.

The worker's faulthandler writes them, at the C level and without the GIL: also when the worker is stuck in C code.
SIGNAL makes it write the stacks of all threads and end the process; nothing else uses that signal on Linux.
"""

import os
import signal

from .context import reduction

__all__ = ['FaultLog', 'SIGNAL']

SIGNAL = signal.SIGSTKFLT

_MOST_BYTES = 1 << 20


class FaultLog:
    """Goes to a worker with its start; install() there, text() here."""

    def __init__(self, fd=None):
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
        if self._fd is None:
            return ''
        return os.pread(self._fd, _MOST_BYTES, 0).decode(errors='replace')

    def close(self, _close=os.close):
        """Gives the descriptor back; also when the interpreter is half gone."""
        fd, self._fd = self._fd, None
        if fd is not None:
            _close(fd)

    def __del__(self):
        self.close()


def _rebuild(duplicate):
    return FaultLog(duplicate.detach())
