"""Passes descriptors to processes that ask for them later.

Pickling a descriptor for a process that is not being started cannot carry the descriptor itself.  It carries a
ticket: the address of this process's sharer and a number.  Whoever unpickles it calls, shows the number, and
receives a duplicate of the descriptor over an AF_UNIX socket, once.

There is one sharer a process, with one background thread, started by the first ticket.  Its callers authenticate
with the session's key; one that stays silent is dropped after `connection.CONNECTION_TIMEOUT`.
"""

import os
import signal
import socket
import sys
import threading

from . import process
from . import util
from .context import reduction

__all__ = ['stop', 'DupFd', 'DupSocket']


class DupFd:
    """A ticket for a duplicate of `fd`; the caller may close its own at once."""

    def __init__(self, fd):
        duplicate = os.dup(fd)

        def send(conn, pid):
            reduction.send_handle(conn, duplicate, pid)

        def close():
            os.close(duplicate)

        self._id = _resource_sharer.register(send, close)

    def detach(self):
        """Fetches the descriptor, which the caller owns from then on.  Works once."""
        with _resource_sharer.get_connection(self._id) as conn:
            try:
                return reduction.recv_handle(conn)
            except (EOFError, ConnectionError) as error:
                raise _gone(self._id, error) from error


class DupSocket:
    """A ticket for a duplicate of a socket object."""

    def __init__(self, sock):
        self._family, self._type, self._proto = sock.family, sock.type, sock.proto
        self._descriptor = DupFd(sock.fileno())

    def detach(self):
        """Fetches the socket.  Works once."""
        return socket.socket(self._family, self._type, self._proto, fileno=self._descriptor.detach())


def _gone(ident, error):
    return type(error)(f'resource {ident[1]} offered at {ident[0]!r} is gone: it was fetched before, or the process '
                       'that offered it has stopped sharing')


class _ResourceSharer:
    """The tickets of this process and the thread that honours them.

    Guarded by `_lock`: everything but `_cache` entries that the thread pops.
    """

    def __init__(self):
        self._key = 0
        self._cache = {}
        self._lock = threading.Lock()
        self._listener = None
        self._address = None
        self._thread = None
        util.register_after_fork(self, _ResourceSharer._afterfork)

    def register(self, send, close):
        """Offers a resource: `send(connection, pid)` hands it over, `close()` drops it.  Returns its ticket."""
        with self._lock:
            if self._address is None:
                self._start()
            self._key += 1
            self._cache[self._key] = (send, close)
            return self._address, self._key

    @staticmethod
    def get_connection(ident):
        """A connection over which the resource with ticket `ident` is about to arrive."""
        from .connection import Client
        address, key = ident
        try:
            conn = Client(address, authkey=process.current_process().authkey)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise type(error)(error.errno, 'the process that offered this descriptor has ended or stopped sharing',
                              address) from error
        conn.send((key, os.getpid()))
        return conn

    def stop(self, timeout=None):
        """Ends the background thread and withdraws every resource still on offer."""
        from .connection import Client
        with self._lock:
            if self._address is None:
                return
            conn = Client(self._address, authkey=process.current_process().authkey)
            conn.send(None)
            conn.close()
            self._thread.join(timeout)
            if self._thread.is_alive():
                util.sub_warning('_ResourceSharer thread did not stop when asked')
            self._listener.close()
            self._forget()

    def _afterfork(self):
        # The thread stayed in the parent, which goes on honouring the tickets.
        self._lock._at_fork_reinit()
        if self._listener is not None:
            self._listener.close()
        self._forget()

    def _forget(self):
        self._thread = None
        self._address = None
        self._listener = None
        while self._cache:
            _, (_, close) = self._cache.popitem()
            close()

    def _start(self):
        from .connection import Listener
        util.debug('starting listener and thread for sending handles')
        self._listener = Listener(authkey=process.current_process().authkey, backlog=128)
        self._address = self._listener.address
        self._thread = threading.Thread(target=self._serve, args=(self._listener,), name='resource-sharer',
                                        daemon=True)
        self._thread._pyhost_internal = True
        self._thread.start()

    def _serve(self, listener):
        # Signals are for the threads of the program.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            try:
                with listener.accept() as conn:
                    message = conn.recv()
                    if message is None:
                        return
                    self._hand_over(conn, *message)
            except Exception:
                if util.is_exiting():
                    return
                sys.excepthook(*sys.exc_info())

    def _hand_over(self, conn, key, pid):
        offer = self._cache.pop(key, None)
        if offer is None:
            return  # The caller learns from the end of the connection.
        send, close = offer
        try:
            send(conn, pid)
        finally:
            close()


_resource_sharer = _ResourceSharer()
stop = _resource_sharer.stop
