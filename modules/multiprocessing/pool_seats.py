"""The places of a crew's workers: how often each was filled anew, what its worker does, what the last one died of."""

__all__ = ['Seats']

# Texts of faults that are kept for calls whose outcome nobody has asked for.
_KEPT_FAULTS = 100

_NO_FIGURES = {'calls': 0, 'busy': 0.0, 'waiting': 0.0, 'pickling': 0.0, 'bytes_in': 0, 'bytes_out': 0, 'call': 0,
               'running': 0.0}


def _pid(process):
    """A context's Process may be anything that starts, also what has no pid."""
    return getattr(process, 'pid', None)


class Seats:
    """One for each worker; a new worker takes the place of one that ended, if there is any.  The crew's lock guards it."""

    def __init__(self, client):
        self._client = client
        self._logs = client.faults  # pid -> FaultLog; where the native side looks for the cause of a lost call
        self._restarts = {}  # process -> how many workers there were in its place before it
        self._free = []  # restarts of places whose worker has ended

    def take(self, process, log):
        """A worker was started."""
        self._logs[_pid(process)] = log
        self._restarts[process] = self._free.pop(0) if self._free else 0

    def leave(self, process):
        """A worker has ended; whether it had begun to take calls.

        Keeps what it said of its end, for whoever asks for its call's outcome later.
        """
        self._free.append(self._restarts.pop(process) + 1)
        pid = _pid(process)
        log = self._logs[pid]  # which stays there meanwhile: somebody may be asking for the text
        log.close()
        if not log.text():
            del self._logs[pid]
        living = set(map(_pid, self._restarts))
        for old in [pid for pid in self._logs if pid not in living][:-_KEPT_FAULTS]:
            del self._logs[old]
        return log.has_served()

    def text(self, process):
        """What the worker wrote about its end; '' for nothing."""
        log = self._logs.get(_pid(process))
        return log.text() if log is not None else ''

    def stats(self, workers):
        """A dict for each of these workers; see Pool.stats()."""
        figures = {one.pop('host'): one for one in self._client.stats()}
        return [{'name': process.name, 'pid': _pid(process), 'restarts': self._restarts[process],
                 **figures.get(process._popen._child.host_id, _NO_FIGURES)} for process in workers]

    def clear(self):
        """All workers have ended."""
        self._logs.clear()
        self._restarts.clear()
