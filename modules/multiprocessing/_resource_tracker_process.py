"""The program of the resource tracker: collects names, and removes what is left of them at the end.

`resource_tracker.py` has the clients' side and describes the commands.
"""

import os
import select
import socket
import sys
import warnings

from .resource_tracker import _CLEANUP_FUNCS, _CREDENTIALS, _LONGEST_MESSAGE, _is_own

__all__ = ()


def run(sockets, root_pid):
    """Serves until the process `root_pid` and all connections are gone; returns the exit code."""
    _release_standard_streams()
    names = _Names()
    try:
        _Tracker(sockets, root_pid, names).run()
    finally:
        names.clean_up()
    return names.exit_code


def _release_standard_streams():
    """Lets go of standard input and output: somebody may wait for the end of the other side."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


class _Tracker:
    """Listens to all processes in one thread."""

    def __init__(self, sockets, root_pid, names):
        self._names = names
        self._poller = select.poll()
        self._listener = None
        self._commands = None
        self._connections = {}
        # Whoever started us is connected, or waits to be accepted.
        self._had_connection = False
        self._root = None
        if len(sockets) == 2:
            self._listener, self._commands = sockets
            self._poller.register(self._listener, select.POLLIN)
            self._poller.register(self._commands, select.POLLIN)
        else:
            self._add(sockets[0])
        if root_pid is not None:
            self._watch_root(root_pid)

    def _watch_root(self, pid):
        try:
            self._root = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        self._poller.register(self._root, select.POLLIN)

    def run(self):
        while self._root is not None or self._connections or not self._had_connection:
            for fd, _ in self._poller.poll():
                if fd == self._root:
                    self._forget_root()
                elif fd in self._connections:
                    self._hear(fd)
                elif fd == self._listener.fileno():
                    self._accept()
                else:
                    self._handle_next()
        self._handle_the_rest()

    def _accept(self):
        connection, _ = self._listener.accept()
        if _is_own(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)):
            self._add(connection)
        else:
            connection.close()

    def _handle_next(self):
        """Carries out a command if it comes from a process of our user: others can reach us as well."""
        message, controls, _, _ = self._commands.recvmsg(2 * _LONGEST_MESSAGE, socket.CMSG_SPACE(_CREDENTIALS.size))
        for level, kind, data in controls:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and _is_own(data):
                self._handle(message)

    def _handle_the_rest(self):
        """The last words of processes whose end we saw before we read them."""
        if self._commands is None:
            return
        self._commands.setblocking(False)
        try:
            while True:
                self._handle_next()
        except BlockingIOError:
            pass

    def _add(self, connection):
        self._had_connection = True
        self._connections[connection.fileno()] = connection
        self._poller.register(connection, select.POLLIN)

    def _hear(self, fd):
        """A connection has a command (if it is the only one), or is at its end."""
        try:
            message = self._connections[fd].recv(2 * _LONGEST_MESSAGE)
        except ConnectionResetError:
            message = b''
        if message:
            self._handle(message)
        else:
            self._poller.unregister(fd)
            self._connections.pop(fd).close()

    def _handle(self, message):
        if message.startswith(b'DETACH:'):
            self._forget_root()
        else:
            self._names.handle(message)

    def _forget_root(self):
        if self._root is not None:
            self._poller.unregister(self._root)
            os.close(self._root)
            self._root = None


class _Names:
    """The registered and the announced names by type."""

    def __init__(self):
        self._by_type = {rtype: set() for rtype in _CLEANUP_FUNCS}
        self._announced = {rtype: set() for rtype in _CLEANUP_FUNCS}
        self.exit_code = 0

    def handle(self, message):
        """Carries out one datagram; what is wrong with it is reported on stderr, with exit code 3."""
        try:
            command, rest = os.fsdecode(message).removesuffix('\n').split(':', 1)
            name, rtype = rest.rsplit(':', 1)  # A name may contain anything.
            names = self._by_type.get(rtype)
            if names is None:
                raise ValueError(f'Cannot register {name} for automatic cleanup: unknown resource type {rtype}')
            if command == 'REGISTER':
                names.add(name)
                self._announced[rtype].discard(name)
            elif command == 'UNREGISTER':
                (self._announced[rtype] if name in self._announced[rtype] else names).remove(name)
            elif command == 'ANNOUNCE':
                self._announced[rtype].add(name)
            elif command == 'WITHDRAW':
                self._announced[rtype].discard(name)
            elif command != 'PROBE':
                raise RuntimeError(f'unrecognized command {command!r}')
        except Exception:
            self.exit_code = 3
            sys.excepthook(*sys.exc_info())

    def clean_up(self):
        """Removes what is still registered, and warns: whoever registered it should have done so."""
        for rtype, names in self._by_type.items():
            left = names | self._remove_announced(rtype)
            if left:
                self.exit_code = 1
                if rtype != 'dummy':
                    warnings.warn(f'resource_tracker: There appear to be {len(left)} leaked {rtype} objects to clean '
                                  f'up at shutdown: {left}')
            for name in names:
                try:
                    _CLEANUP_FUNCS[rtype](name)
                except Exception as error:
                    self.exit_code = 2
                    warnings.warn(f'resource_tracker: {name!r}: {error}')

    def _remove_announced(self, rtype):
        """Removes what was announced and is still there; returns the names."""
        removed = set()
        for name in self._announced[rtype]:
            try:
                _CLEANUP_FUNCS[rtype](name)
                removed.add(name)
            except FileNotFoundError:
                pass  # Its creator died before it created it.
        return removed
