"""Listener and Client: connections over sockets, between processes that have nothing in common but an address and a key.

All names are to be had as members of `multiprocessing.connection`, whose constants (CONNECTION_TIMEOUT, families) they use.
"""

import itertools
import os
import struct
import time

import _pyhost

from . import connection as _connection
from . import util
from ._challenge import answer_challenge, deliver_challenge
from .context import AuthenticationError

__all__ = ()

_mmap_counter = itertools.count()

_SHORT = struct.Struct('!i')


def arbitrary_address(family):
    """A free address of the given family ('AF_INET', 'AF_UNIX')."""
    if family == 'AF_INET':
        return ('localhost', 0)
    if family == 'AF_UNIX':
        import tempfile  # slow to import, and few listeners have a path
        return tempfile.mktemp(prefix='listener-', dir=util.get_temp_dir())
    if family == 'AF_PIPE':
        import tempfile
        return tempfile.mktemp(prefix=r'\\.\pipe\pyc-%d-%d-' % (os.getpid(), next(_mmap_counter)), dir='')
    raise ValueError(f'unrecognized family {family!r}')


def _validate_family(family):
    if family not in _connection.families:
        raise ValueError(f'Family {family} is not recognized.')


def address_type(address):
    """The family of an address: 'AF_INET', 'AF_UNIX' or 'AF_PIPE'."""
    if type(address) is tuple:
        return 'AF_INET'
    if type(address) is str and address.startswith('\\\\'):
        return 'AF_PIPE'
    if type(address) is str or util.is_abstract_socket_namespace(address):
        return 'AF_UNIX'
    raise ValueError(f'address type of {address!r} unrecognized')


class Listener:
    """A bound socket that accepts connections, authenticated if `authkey` (bytes) is given."""

    def __init__(self, address=None, family=None, backlog=1, authkey=None):
        family = family or (address and address_type(address)) or _connection.default_family
        _validate_family(family)
        _check_authkey(authkey)
        self._listener = None
        self._authkey = authkey
        self._listener = SocketListener(address or arbitrary_address(family), family, backlog)

    def accept(self):
        """Accepts a connection and returns it as a Connection.

        A peer that does not know the key, sends something else, or does not finish the handshake within
        CONNECTION_TIMEOUT seconds raises AuthenticationError; the listener stays usable.
        """
        connection = self._accept_unauthenticated()
        self._authenticate(connection)
        return connection

    def _accept_unauthenticated(self):
        listener = self._listener
        if listener is None:
            raise OSError('listener is closed')
        return listener.accept()

    def _authenticate(self, connection):
        """The server's part of the handshake; closes `connection` if it fails."""
        if self._authkey is None:
            return
        try:
            peer = _HandshakePeer(connection, _connection.CONNECTION_TIMEOUT)
            deliver_challenge(peer, self._authkey)
            answer_challenge(peer, self._authkey)
        except BaseException:
            connection.close()
            raise

    def close(self):
        """Closes the socket, and removes its file if it has one."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def _open_listener(self):
        if self._listener is None:
            raise OSError('listener is closed')
        return self._listener

    @property
    def address(self):
        """The address in use."""
        return self._open_listener()._address

    @property
    def last_accepted(self):
        """The address of the peer accepted last; None before that."""
        return self._open_listener()._last_accepted

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, exc_tb):
        self.close()


class _HandshakePeer:
    """The other end of a connection while it is not trusted: a limit for the time and size of what it sends."""

    def __init__(self, connection, seconds):
        self._connection = connection
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds

    def send_bytes(self, message):
        self._connection.send_bytes(message)

    def recv_bytes(self, maxlength):
        size, = _SHORT.unpack(self._read(4, False))
        if not 0 <= size <= maxlength:
            raise AuthenticationError(f'the peer does not follow the protocol: message of {size} bytes')
        return self._read(size, True)

    def _read(self, size, begun):
        data = b''
        fd = self._connection.fileno()
        while len(data) < size:
            if not _pyhost.wait_for_input(fd, self._deadline - time.monotonic()):
                raise AuthenticationError(f'the peer did not authenticate itself within {self._seconds} seconds')
            chunk = os.read(fd, size - len(data))
            if not chunk:
                raise OSError('got end of file during message') if begun or data else EOFError
            data += chunk
        return data


def Client(address, family=None, authkey=None):
    """A connection to the listener at `address`, authenticated if `authkey` (bytes) is given."""
    family = family or address_type(address)
    _validate_family(family)
    _check_authkey(authkey)
    connection = SocketClient(address)
    if authkey is not None:
        try:
            answer_challenge(connection, authkey)
            deliver_challenge(connection, authkey)
        except BaseException:
            connection.close()
            raise
    return connection


def _check_authkey(authkey):
    if authkey is not None and not isinstance(authkey, bytes):
        raise TypeError(f'authkey should be a byte string, not {type(authkey).__name__}')


class SocketListener:
    """A listening socket; what Listener adds is authentication."""

    def __init__(self, address, family, backlog=1):
        import socket  # slow to import: most programs that have a Connection never listen
        self._socket = socket.socket(getattr(socket, family))
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.setblocking(True)
            self._socket.bind(address)
            self._socket.listen(backlog)
            self._address = self._socket.getsockname()
        except OSError as error:
            self._socket.close()
            raise _with_address(error, address)
        self._family = family
        self._last_accepted = None
        self._unlink = None
        # An abstract name vanishes with its socket.
        if family == 'AF_UNIX' and not util.is_abstract_socket_namespace(address):
            self._unlink = util.Finalize(self, os.unlink, args=(address,), exitpriority=0)

    def accept(self):
        accepted, self._last_accepted = self._socket.accept()
        return _connection_of(accepted)

    def close(self):
        try:
            self._socket.close()
        finally:
            unlink, self._unlink = self._unlink, None
            if unlink is not None:
                unlink()


def SocketClient(address):
    """A Connection to the socket that listens at `address`."""
    import socket
    with socket.socket(getattr(socket, address_type(address))) as connecting:
        connecting.setblocking(True)
        try:
            connecting.connect(address)
        except OSError as error:
            raise _with_address(error, address)
        return _connection_of(connecting)


def _connection_of(sock):
    """A Connection that takes over the descriptor of a connected socket."""
    import socket
    sock.setblocking(True)
    if sock.family == socket.AF_INET:
        # A message is one write: nothing is gained by holding a small one back until the last is acknowledged.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _connection.Connection(sock.detach())


def _with_address(error, address):
    """Makes an OSError of a socket call name the address."""
    if error.filename is None and error.errno is not None:
        error.filename = address
    return error


# ---- XML-RPC in place of pickles

class ConnectionWrapper:
    """A connection that uses other functions than pickle's to turn objects into bytes and back."""

    def __init__(self, conn, dumps, loads):
        self._conn = conn
        self._dumps = dumps
        self._loads = loads
        for name in ('fileno', 'close', 'poll', 'recv_bytes', 'send_bytes'):
            setattr(self, name, getattr(conn, name))

    def send(self, obj):
        self._conn.send_bytes(self._dumps(obj))

    def recv(self):
        return self._loads(self._conn.recv_bytes())


def _xml_dumps(obj):
    import xmlrpc.client
    return xmlrpc.client.dumps((obj,), None, None, None, 1).encode('utf-8')


def _xml_loads(s):
    import xmlrpc.client
    (obj,), _ = xmlrpc.client.loads(s.decode('utf-8'))
    return obj


class XmlListener(Listener):
    """A Listener whose connections send and receive objects as XML-RPC values."""

    def accept(self):
        return ConnectionWrapper(Listener.accept(self), _xml_dumps, _xml_loads)


def XmlClient(*args, **kwds):
    """A Client that sends and receives objects as XML-RPC values."""
    return ConnectionWrapper(Client(*args, **kwds), _xml_dumps, _xml_loads)
