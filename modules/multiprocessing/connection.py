"""Message-oriented connections over pipes and sockets, and waiting for several of them.

A Connection is a descriptor and nothing else: a message is a length (4 bytes, big-endian; or -1 and 8 bytes
from 2 GiB on) followed by that many bytes, which is what the standard library's connections speak.  No byte is
read ahead of the message asked for, because `fileno()` is public: others poll the descriptor, pass it on and
read from it.

A Connection may be used by one thread at a time (one more may send while the first receives).  Signal handlers
run during every wait; a handler that raises in the middle of a message leaves the connection unusable, as its
peer cannot tell where the next message begins.

Where to look next: `_challenge.py` for authentication, `resource_sharer.py` for how a pickled connection
reaches another process.
"""

__all__ = ['Client', 'Listener', 'Pipe', 'wait']

import io
import itertools
import math
import os
import select
import socket
import struct
import sys
import tempfile
import time

from . import _challenge
from . import util
from ._challenge import CHALLENGE, FAILURE, MESSAGE_LENGTH, WELCOME
from ._challenge import answer_challenge, deliver_challenge
from .context import AuthenticationError, BufferTooShort, reduction

_ForkingPickler = reduction.ForkingPickler

# The names under which CPython's tests and other programs know the handshake.
_CHALLENGE, _WELCOME, _FAILURE = CHALLENGE, WELCOME, FAILURE
_create_response = _challenge.create_response
_verify_challenge = _challenge.verify_challenge
_get_digest_name_and_payload = _challenge.split_digest_name
_ALLOWED_DIGESTS = _challenge.DIGESTS
_MAX_DIGEST_LEN = max(map(len, _ALLOWED_DIGESTS))
_MD5ONLY_MESSAGE_LENGTH = _challenge.OLD_CHALLENGE_LENGTH
_MD5_DIGEST_LEN = _challenge.OLD_ANSWER_LENGTH
_LEGACY_LENGTHS = (_MD5ONLY_MESSAGE_LENGTH, _MD5_DIGEST_LEN)

BUFSIZE = 8192
# Seconds a peer that has connected may take for the whole handshake.  Applies to Listener.accept only: a client
# may have to wait longer than that before a busy server gets round to it.
CONNECTION_TIMEOUT = 20.0

default_family = 'AF_UNIX'
families = ['AF_INET', 'AF_UNIX']

_mmap_counter = itertools.count()

_SHORT = struct.Struct('!i')
_LONG = struct.Struct('!Q')
_LARGEST_SHORT = 0x7fffffff

# Up to this size a message is copied behind its header: cheaper than handing the kernel two pieces.
_COPY_LIMIT = 16384
# Larger messages are read in pieces of at most this size, so that a length prefix alone (from a peer that may
# be hostile or confused) never makes this process allocate more than it has received.
_READ_PIECE = 1 << 18
# Up to this size pieces are kept apart and joined at the end (memory that malloc has warm); beyond, a growing
# buffer saves touching everything twice.
_JOIN_LIMIT = 4 << 20

# poll(2) takes an int of milliseconds; longer waits are slept in several.
_LONGEST_POLL_MS = 0x7fffffff


def _init_timeout(timeout=CONNECTION_TIMEOUT):
    return time.monotonic() + timeout


def _check_timeout(t):
    return time.monotonic() > t


def _poll_descriptors(poller, timeout):
    """What `poller` (a select.poll) finds ready within `timeout` seconds (None: no limit).

    The one place where this module waits for a descriptor without reading from it.
    """
    if timeout is None:
        return poller.poll()
    if timeout <= 0:
        return poller.poll(0)
    if timeout == math.inf:
        return poller.poll()
    deadline = time.monotonic() + timeout
    while True:
        ready = poller.poll(min(math.ceil(timeout * 1000), _LONGEST_POLL_MS))
        if ready:
            return ready
        timeout = deadline - time.monotonic()
        if timeout <= 0:
            return ready


def _wait_for(fd, events, timeout=None):
    poller = select.poll()
    poller.register(fd, events)
    return bool(_poll_descriptors(poller, timeout))


#
# Addresses
#

def arbitrary_address(family):
    """A free address of the given family ('AF_INET', 'AF_UNIX')."""
    if family == 'AF_INET':
        return ('localhost', 0)
    if family == 'AF_UNIX':
        return tempfile.mktemp(prefix='listener-', dir=util.get_temp_dir())
    if family == 'AF_PIPE':
        return tempfile.mktemp(prefix=r'\\.\pipe\pyc-%d-%d-' % (os.getpid(), next(_mmap_counter)), dir='')
    raise ValueError(f'unrecognized family {family!r}')


def _validate_family(family):
    if family not in families:
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


#
# Connections
#

class _ConnectionBase:
    """Argument checking and object pickling over the byte transport of a subclass.

    A subclass has `_close()`, `_send_bytes(buf)`, `_recv_size()` (reads the length of the next message),
    `_recv_exactly(size, begun)`, `_recv_into(view)` and `_poll(timeout)`.
    """

    _handle = None

    def __init__(self, handle, readable=True, writable=True):
        handle = handle.__index__()
        if handle < 0:
            raise ValueError(f'invalid handle {handle}')
        if not readable and not writable:
            raise ValueError('at least one of `readable` and `writable` must be True')
        self._handle = handle
        self._readable = readable
        self._writable = writable

    def __del__(self):
        if self._handle is not None:
            self._close()

    def _check_closed(self):
        if self._handle is None:
            raise OSError('handle is closed')

    def _check_readable(self):
        if not self._readable:
            raise OSError('connection is write-only')

    def _check_writable(self):
        if not self._writable:
            raise OSError('connection is read-only')

    def _bad_message_length(self):
        # Where the next message begins is unknown now: reading is over for good.
        if self._writable:
            self._readable = False
        else:
            self.close()
        raise OSError('bad message length')

    @property
    def closed(self):
        """True if the connection is closed."""
        return self._handle is None

    @property
    def readable(self):
        """True if the connection can receive."""
        return self._readable

    @property
    def writable(self):
        """True if the connection can send."""
        return self._writable

    def fileno(self):
        """The descriptor of the connection."""
        self._check_closed()
        return self._handle

    def close(self):
        """Closes the connection; closing it again does nothing."""
        if self._handle is not None:
            try:
                self._close()
            finally:
                self._handle = None

    def send_bytes(self, buf, offset=0, size=None):
        """Sends `size` bytes (default: all) of a bytes-like object from `offset` on, as one message."""
        self._check_closed()
        self._check_writable()
        view = _byte_view(buf)
        total = view.nbytes
        if offset < 0:
            raise ValueError('offset is negative')
        if total < offset:
            raise ValueError('buffer length < offset')
        if size is None:
            size = total - offset
        elif size < 0:
            raise ValueError('size is negative')
        elif offset + size > total:
            raise ValueError('buffer length < offset + size')
        self._send_bytes(view[offset:offset + size])

    def send(self, obj):
        """Sends a picklable object."""
        if self._handle is None or not self._writable:
            self._check_closed()
            self._check_writable()
        self._send_bytes(_ForkingPickler.dumps(obj))

    def recv_bytes(self, maxlength=None):
        """Receives one message as bytes.

        A message longer than `maxlength` raises OSError and ends the readability of the connection; the end of
        the other side raises EOFError.
        """
        self._check_closed()
        self._check_readable()
        if maxlength is not None and maxlength < 0:
            raise ValueError('negative maxlength')
        size = self._recv_size()
        if maxlength is not None and size > maxlength:
            self._bad_message_length()
        return self._recv_exactly(size, True)

    def recv_bytes_into(self, buf, offset=0):
        """Receives one message into a writable bytes-like object, from byte `offset` on; returns its size.

        A message that does not fit raises BufferTooShort, which has it as `args[0]`.
        """
        self._check_closed()
        self._check_readable()
        with _byte_view(buf) as view:
            if offset < 0:
                raise ValueError('negative offset')
            if offset > view.nbytes:
                raise ValueError('offset too large')
            size = self._recv_size()
            if view.nbytes < offset + size:
                raise BufferTooShort(self._recv_exactly(size, True))
            with view[offset:offset + size] as target:
                self._recv_into(target)
            return size

    def recv(self):
        """Receives an object; EOFError if there is nothing left and the other end is closed."""
        if self._handle is None or not self._readable:
            self._check_closed()
            self._check_readable()
        return _ForkingPickler.loads(self._recv_exactly(self._recv_size(), True))

    def poll(self, timeout=0.0):
        """Whether there is something to receive within `timeout` seconds (None: wait without limit)."""
        self._check_closed()
        self._check_readable()
        return self._poll(timeout)

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, exc_tb):
        self.close()

    def __reduce__(self):
        # reduction.ForkingPickler knows another way.  As plain data it would be a second owner of the descriptor, or
        # of whatever has its number elsewhere.
        raise TypeError(f'cannot pickle or copy {type(self).__name__} objects: send them through multiprocessing '
                        '(as an argument of a Process, or over a Connection or Queue)')


def _byte_view(buf):
    """A one-dimensional memoryview of the bytes of `buf`."""
    view = memoryview(buf)
    if view.itemsize == 1 and view.ndim == 1:
        return view
    if view.nbytes == 0:
        return memoryview(bytearray())
    return view.cast('B')


class Connection(_ConnectionBase):
    """A connection over a descriptor (pipe or stream socket), which it owns."""

    # The seam for transports that spin before they block: whatever is received or sent passes these.
    _read = staticmethod(os.read)
    _readv = staticmethod(os.readv)
    _write = staticmethod(os.write)
    _writev = staticmethod(os.writev)

    def _close(self, _close=os.close):
        _close(self._handle)

    def _send(self, *buffers):
        """Writes the buffers one after the other, completely."""
        while True:
            try:
                written = self._writev(self._handle, buffers)
            except BlockingIOError:
                # Others made the descriptor non-blocking; half a message must not be left behind.
                _wait_for(self._handle, select.POLLOUT)
                continue
            buffers = _unwritten(buffers, written)
            if not buffers:
                return

    def _send_bytes(self, buf):
        size = len(buf)
        if size <= _COPY_LIMIT:
            message = _SHORT.pack(size) + buf
            try:
                written = self._write(self._handle, message)
            except BlockingIOError:
                written = 0
            if written != size + 4:
                self._send(memoryview(message)[written:])
        elif size <= _LARGEST_SHORT:
            self._send(_SHORT.pack(size), buf)
        else:
            self._send(_SHORT.pack(-1) + _LONG.pack(size), buf)

    def _read_some(self, size, begun):
        """Up to `size` bytes; `begun` says that they belong to a message of which some was received."""
        while True:
            try:
                chunk = self._read(self._handle, size)
            except BlockingIOError:
                if not begun:
                    raise
                _wait_for(self._handle, select.POLLIN)
                continue
            if chunk:
                return chunk
            if begun:
                raise OSError('got end of file during message')
            raise EOFError

    def _recv_exactly(self, size, begun):
        """`size` bytes, in as many reads as it takes."""
        if not size:
            return b''
        chunk = self._read_some(size if size < _READ_PIECE else _READ_PIECE, begun)
        if len(chunk) == size:
            return chunk
        if size > _JOIN_LIMIT:
            buf = io.BytesIO()
            add, finish = buf.write, buf.getvalue
        else:
            pieces = []
            add, finish = pieces.append, lambda: b''.join(pieces)
        missing = size - len(chunk)
        add(chunk)
        while missing:
            chunk = self._read_some(min(missing, _READ_PIECE), True)
            add(chunk)
            missing -= len(chunk)
        return finish()

    def _recv(self, size):
        buf = io.BytesIO(self._recv_exactly(size, True))
        buf.seek(0, io.SEEK_END)
        return buf

    def _recv_size(self):
        """Receives the length prefix of a message."""
        prefix = self._read_some(4, False)
        if len(prefix) != 4:
            prefix += self._recv_exactly(4 - len(prefix), True)
        size, = _SHORT.unpack(prefix)
        if size >= 0:
            return size
        if size == -1:
            size, = _LONG.unpack(self._recv_exactly(8, True))
            if size <= sys.maxsize:
                return size
        self._bad_message_length()

    def _recv_into(self, view):
        """Fills `view` with the rest of a message, without a copy."""
        done = 0
        while done < view.nbytes:
            try:
                count = self._readv(self._handle, [view[done:]])
            except BlockingIOError:
                _wait_for(self._handle, select.POLLIN)
                continue
            if not count:
                raise OSError('got end of file during message')
            done += count

    def _recv_bytes(self, maxsize=None):
        """One message as an io.BytesIO at its end, None if it is longer than `maxsize`: for subclasses of others."""
        size = self._recv_size()
        if maxsize is not None and size > maxsize:
            return None
        return self._recv(size)

    def _poll(self, timeout):
        return _wait_for(self._handle, select.POLLIN, timeout)


def _unwritten(buffers, written):
    """What is left of `buffers` when `written` bytes of them are gone."""
    rest = []
    for buf in buffers:
        size = len(buf)
        if written >= size:
            written -= size
        else:
            rest.append(memoryview(buf)[written:])
            written = 0
    return rest


def Pipe(duplex=True):
    """Two connected Connection objects; with `duplex` False the first only receives, the second only sends."""
    if duplex:
        first, second = socket.socketpair()
        # A default time limit for sockets would make the descriptors non-blocking.
        first.setblocking(True)
        second.setblocking(True)
        return Connection(first.detach()), Connection(second.detach())
    reader, writer = os.pipe()
    return Connection(reader, writable=False), Connection(writer, readable=False)


#
# Listener and Client
#

class Listener:
    """A bound socket that accepts connections, authenticated if `authkey` (bytes) is given."""

    def __init__(self, address=None, family=None, backlog=1, authkey=None):
        family = family or (address and address_type(address)) or default_family
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
            peer = _HandshakePeer(connection, CONNECTION_TIMEOUT)
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
            if not _wait_for(fd, select.POLLIN, self._deadline - time.monotonic()):
                raise AuthenticationError(f'the peer did not authenticate itself within {self._seconds} seconds')
            data += self._connection._read_some(size - len(data), begun or bool(data))
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
    with socket.socket(getattr(socket, address_type(address))) as connecting:
        connecting.setblocking(True)
        try:
            connecting.connect(address)
        except OSError as error:
            raise _with_address(error, address)
        return _connection_of(connecting)


def _connection_of(sock):
    """A Connection that takes over the descriptor of a connected socket."""
    sock.setblocking(True)
    if sock.family == socket.AF_INET:
        # A message is one write: nothing is gained by holding a small one back until the last is acknowledged.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Connection(sock.detach())


def _with_address(error, address):
    """Makes an OSError of a socket call name the address."""
    if error.filename is None and error.errno is not None:
        error.filename = address
    return error


#
# XML-RPC in place of pickles
#

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


#
# Waiting
#

def wait(object_list, timeout=None):
    """The objects in `object_list` that are ready to be read, as soon as there is one or `timeout` ends.

    An object is a Connection, a socket, a `Process.sentinel`, or whatever is, or has a `fileno()` that gives, a
    descriptor.  The end of the other side counts as ready.
    """
    by_descriptor = {}
    poller = select.poll()
    for obj in object_list:
        fd = _descriptor(obj)
        if fd not in by_descriptor:
            poller.register(fd, select.POLLIN)
        by_descriptor.setdefault(fd, []).append(obj)
    ready = _poll_descriptors(poller, timeout)
    return [obj for fd, _ in ready for obj in by_descriptor[fd]]


def _descriptor(obj):
    try:
        fd = obj if isinstance(obj, int) else int(obj.fileno())
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f'wait() cannot wait for {obj!r}: not a descriptor, and no usable fileno()') from None
    if fd < 0:
        raise ValueError(f'wait() cannot wait for {obj!r}: invalid descriptor {fd}')
    return fd


#
# Pickling
#

def reduce_connection(conn):
    return rebuild_connection, (reduction.DupFd(conn.fileno()), conn.readable, conn.writable)


def rebuild_connection(df, readable, writable):
    return Connection(df.detach(), readable, writable)


reduction.register(Connection, reduce_connection)
