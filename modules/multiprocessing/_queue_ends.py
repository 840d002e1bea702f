"""`_reader` and `_writer` of a queue in shared memory: what programs that reach for them expect of a pipe's ends.

They are connections in all that they can do, over the queue's messages: `recv()` is `get()`, `send()` is `put()`, the
bytes are pickles, and `fileno()` can be waited on together with other descriptors (`connection.wait`, select, asyncio).

A reader's descriptor belongs to the process that asks for it; from then on a thread of that process keeps it readable
while something is in the queue (modules/native/queue_poller.h).  It may say so a moment too long, when another process
was faster; it never misses a message.
"""

from . import connection
from . import util

__all__ = ()


class _QueueEnd(connection._ConnectionBase):
    """Common to both; `_handle` is the queue, None when closed."""

    def __reduce__(self):
        self._check_closed()
        return type(self), (self._handle,)


class QueueReader(_QueueEnd):
    """The end from which this process gets."""

    _stop_polling = None

    def __init__(self, queue):
        self._handle = None if queue.gets_closed else queue
        self._readable, self._writable = True, False

    def fileno(self):
        """A descriptor that can be polled; there is nothing to read from it."""
        self._check_closed()
        if self._stop_polling is None:
            self._stop_polling = util.Finalize(self, self._handle.stop_polling, exitpriority=-50)
        return self._handle.poll_descriptor()

    def recv(self):
        """Receives an object."""
        self._check_closed()
        return self._handle.get()

    def _close(self):
        self._handle.close_gets()
        if self._stop_polling is not None:
            self._stop_polling()

    def _poll(self, timeout):
        return self._handle.wait_readable(timeout)

    def _recv_message(self, limit):
        message = self._handle.get_pickle()
        return message if len(message) <= limit else None

    def _recv_into(self, view):
        message = self._handle.get_pickle()
        if len(message) > len(view):
            return message
        view[:len(message)] = message
        return len(message)


class QueueWriter(_QueueEnd):
    """The end into which this process puts."""

    def __init__(self, queue):
        self._handle = None if queue.puts_closed else queue
        self._readable, self._writable = False, True

    def fileno(self):
        """A descriptor that can always be written to, as the queue can."""
        self._check_closed()
        return self._handle.writable_descriptor()

    def send(self, obj):
        """Sends a picklable object."""
        self._check_closed()
        self._handle.put(obj)

    def _close(self):
        self._handle.close_puts()

    def _send_bytes(self, buf):
        self._handle.put_pickle(buf)
