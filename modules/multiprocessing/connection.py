"""Message-oriented connections over pipes and sockets.

A Connection is a descriptor: a message is a length (4 bytes, big-endian; or -1 and 8 bytes from 2 GiB on) followed
by that many bytes, which is what the standard library's connections speak.  No byte is read ahead of the message
asked for, because `fileno()` is public: others poll the descriptor, pass it on and read from it.  Reading and
writing is done by _pyhost, which spins a little before it sleeps.

The two ends of a Pipe hand over a small message through shared memory instead if its reader is spinning in recv() at
that moment and all that was sent before has been read (runtime/queue/hand_over.h), so that nobody can tell but by the
clock.  They can from when another process gets one of them: `_PipeEnds`.

A Connection may be used by one thread at a time (one more may send while the first receives).  Signal handlers
run during every wait; a handler that raises in the middle of a message leaves the connection unusable, as its
peer cannot tell where the next message begins.

Where to look next: `_listener.py` for Listener and Client, `_challenge.py` for authentication, `_wait.py` for waiting for
several connections, `resource_sharer.py` for how a pickled connection reaches another process.
"""

__all__ = ['Client', 'Listener', 'Pipe', 'wait']

import io
import os
import sys
import time
import weakref

import _pyhost
import _socket  # `socket` is slow to import, and a Pipe needs nothing of it

from . import _challenge, context
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


def _init_timeout(timeout=CONNECTION_TIMEOUT):
    return time.monotonic() + timeout


def _check_timeout(t):
    return time.monotonic() > t


class _ConnectionBase:
    """Argument checking and object pickling over the byte transport of a subclass.

    A subclass has `_close()`, `_send_bytes(buf)`, `_recv_message(limit)` and `_recv_into(view)`, which return None for what
    is no message, and `_poll(timeout)`.
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
        message = self._recv_message(sys.maxsize if maxlength is None else min(maxlength, sys.maxsize))
        if message is None:
            self._bad_message_length()
        return message

    def recv_bytes_into(self, buf, offset=0):
        """Receives one message into a writable bytes-like object, from byte `offset` on; returns its size.

        A message that does not fit raises BufferTooShort, which has it as `args[0]`.
        """
        self._check_closed()
        self._check_readable()
        with _byte_view(buf) as view:
            if view.readonly:
                raise TypeError('recv_bytes_into() needs a writable buffer')
            if offset < 0:
                raise ValueError('negative offset')
            if offset > view.nbytes:
                raise ValueError('offset too large')
            with view[offset:] as target:
                size = self._recv_into(target)
            if size is None:
                self._bad_message_length()
            if isinstance(size, bytes):
                raise BufferTooShort(size)
            return size

    def recv(self):
        """Receives an object; EOFError if there is nothing left and the other end is closed."""
        if self._handle is None or not self._readable:
            self._check_closed()
            self._check_readable()
        message = self._recv_message(sys.maxsize)
        if message is None:
            self._bad_message_length()
        return _ForkingPickler.loads(message)

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

    _ends = None       # the _PipeEnds that this is one of
    _hand_over = None  # a _pyhost.HandOver, of a pipe that is shared with another process

    def _close(self, _close=os.close):
        _close(self._handle)

    def _send_bytes(self, buf):
        _pyhost.send_message(self._handle, buf, self._hand_over)

    def _recv_message(self, limit):
        return _pyhost.receive_message(self._handle, limit, self._hand_over)

    def _recv_into(self, view):
        return _pyhost.receive_into(self._handle, view, self._hand_over)

    def _recv_bytes(self, maxsize=None):
        """One message as an io.BytesIO at its end, None if it is longer than `maxsize`: for subclasses of others."""
        message = self._recv_message(sys.maxsize if maxsize is None else maxsize)
        if message is None:
            return None
        buf = io.BytesIO(message)
        buf.seek(0, io.SEEK_END)
        return buf

    def _poll(self, timeout):
        return _pyhost.wait_for_input(self._handle, timeout, self._hand_over)


class _PipeEnds:
    """The two ends of a pipe that are this process's alone so far."""

    __slots__ = ('_first', '_second', '_duplex', '_weak', '__weakref__')
    _all = set()  # weak references: no WeakSet, which cannot be iterated while other threads make pipes

    def __init__(self, first, second, duplex):
        self._first, self._second, self._duplex = weakref.ref(first), weakref.ref(second), duplex
        first._ends = second._ends = self
        self._weak = weakref.ref(self, self._all.discard)
        self._all.add(self._weak)

    def share(self):
        """Gives both ends the memory to hand over messages; called before another process gets one of them."""
        first, second = self._first(), self._second()
        self._all.discard(self._weak)
        if first is None or second is None:
            return
        first._ends = second._ends = None
        try:
            first._hand_over, second._hand_over = _pyhost.new_hand_over_pair(self._duplex)
        except (MemoryError, OSError):
            pass  # the descriptors do as well

    @classmethod
    def share_all(cls):
        """Before a fork, which gives the child all of them."""
        for weak in cls._all.copy():
            if (ends := weak()) is not None:
                ends.share()


def Pipe(duplex=True):
    """Two connected Connection objects; with `duplex` False the first only receives, the second only sends."""
    if duplex:
        sockets = _socket.socketpair()
        for end in sockets:
            # A default time limit for sockets would make the descriptors non-blocking.
            end.setblocking(True)
        first, second = (Connection(end.detach()) for end in sockets)
    else:
        reader, writer = os.pipe()
        first, second = Connection(reader, writable=False), Connection(writer, readable=False)
    _PipeEnds(first, second, duplex)
    return first, second


def reduce_connection(conn):
    state = reduction.DupFd(conn.fileno()), conn.readable, conn.writable
    if getattr(context.get_spawning_popen(), 'is_in_session', False):
        if (ends := conn._ends) is not None:  # once: another thread may share them at the same time
            ends.share()
        state += conn._hand_over,
    return rebuild_connection, state


def rebuild_connection(df, readable, writable, hand_over=None):
    conn = Connection(df.detach(), readable, writable)
    conn._hand_over = hand_over
    return conn


reduction.register(Connection, reduce_connection)


from ._listener import (  # noqa: E402 (they make connections of the class above)
    Client, ConnectionWrapper, Listener, SocketClient, SocketListener, XmlClient, XmlListener, _HandshakePeer,
    _mmap_counter, _validate_family, _xml_dumps, _xml_loads, address_type,
    arbitrary_address)
from ._wait import wait  # noqa: E402

for _name in ('Client', 'ConnectionWrapper', 'Listener', 'SocketClient', 'SocketListener', 'XmlClient', 'XmlListener',
              'address_type', 'arbitrary_address', 'wait'):
    globals()[_name].__module__ = __name__
del _name
