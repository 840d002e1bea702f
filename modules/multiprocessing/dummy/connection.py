"""Connections between threads: what is sent is handed over as it is."""

import time
from queue import Queue

__all__ = ['Client', 'Listener', 'Pipe']

families = [None]


class Connection:
    """One end; never closed as far as the other end can tell."""

    def __init__(self, _in, _out):
        self._in = _in
        self._out = _out
        self.send = self.send_bytes = _out.put
        self.recv = self.recv_bytes = _in.get

    def poll(self, timeout=0.0):
        """Whether there is something to receive within `timeout` seconds (None: wait without limit)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        remaining = timeout
        with self._in.not_empty:
            while not self._in._qsize():
                if deadline is not None:
                    remaining = deadline - time.monotonic()
                    if remaining <= 0:
                        return False
                self._in.not_empty.wait(remaining)
            return True

    def close(self):
        """Does nothing."""

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, exc_tb):
        self.close()


class Listener:
    """Accepts connections of Client calls in other threads."""

    def __init__(self, address=None, family=None, backlog=1):
        self._backlog_queue = Queue(backlog)

    def accept(self):
        """The other end of the next connection."""
        return Connection(*self._backlog_queue.get())

    def close(self):
        """Forgets connections that were not accepted."""
        self._backlog_queue = None

    @property
    def address(self):
        """What to give to Client."""
        return self._backlog_queue

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, exc_tb):
        self.close()


def Client(address):
    """A connection to the listener whose `address` is given."""
    incoming, outgoing = Queue(), Queue()
    address.put((outgoing, incoming))
    return Connection(incoming, outgoing)


def Pipe(duplex=True):
    """Two connected ends."""
    first, second = Queue(), Queue()
    return Connection(first, second), Connection(second, first)
