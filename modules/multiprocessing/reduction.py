"""How objects are turned into bytes that another process can rebuild: ForkingPickler and its reducers.

The native module pickles messages with ForkingPickler's table of reducers (register() adds to it); a program
that replaces the class, or sets a reducer of its own, is honoured there too.
"""

import array
import copyreg
import functools
import io
import os
import sys
from abc import ABCMeta

import _pickle as pickle  # the module `pickle` brings re and enum
import _pyhost
import _socket  # `socket` is slow to import

from . import context

__all__ = ['send_handle', 'recv_handle', 'ForkingPickler', 'register', 'dump',
           'DupFd', 'sendfds', 'recvfds']

HAVE_SEND_HANDLE = True

# From 3.14 on the receiver of descriptors answers one byte.
ACKNOWLEDGE = sys.version_info >= (3, 14)


class ForkingPickler(pickle.Pickler):
    """A pickler with reducers of its own, on top of copyreg's."""

    _extra_reducers = {}
    _copyreg_dispatch_table = copyreg.dispatch_table

    def __init__(self, *args):
        super().__init__(*args)
        know_sockets()
        self.dispatch_table = {**self._copyreg_dispatch_table,
                               **self._extra_reducers}

    @classmethod
    def register(cls, type, reduce):
        """`reduce(obj)` reduces objects of exactly this type."""
        cls._extra_reducers[type] = reduce

    @classmethod
    def dumps(cls, obj, protocol=None):
        """The pickle of `obj`, as a buffer."""
        if cls is _OwnPickler:
            return memoryview(_pyhost.pickle_bytes(obj, protocol))
        buffer = io.BytesIO()
        cls(buffer, protocol).dump(obj)
        return buffer.getbuffer()

    loads = pickle.loads


_OwnPickler = ForkingPickler  # A program may put another class in its place.
register = ForkingPickler.register
_own_pickler = ForkingPickler  # by which the native module knows whether a program put another in its place


def dump(obj, file, protocol=None):
    """Pickles `obj` into `file` with ForkingPickler."""
    ForkingPickler(file, protocol).dump(obj)


# ---- Descriptors ---------------------------------------------------------------------------------------------

def sendfds(sock, fds):
    """Sends descriptors over an AF_UNIX socket."""
    import socket
    fds = array.array('i', fds)
    sock.sendmsg([bytes([len(fds) % 256])],
                 [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    if ACKNOWLEDGE and sock.recv(1) != b'A':
        raise RuntimeError('did not receive acknowledgement of fd')


def recvfds(sock, size):
    """Receives at most `size` descriptors, sent with sendfds(), from an AF_UNIX socket."""
    import socket
    fds = array.array('i')
    count, ancillary, _flags, _address = sock.recvmsg(
        1, socket.CMSG_SPACE(fds.itemsize * size))
    if not count and not ancillary:
        raise EOFError
    if ACKNOWLEDGE:
        sock.send(b'A')
    if len(ancillary) != 1:
        raise RuntimeError(f'received {len(ancillary)} items of ancdata')
    level, kind, data = ancillary[0]
    if (level, kind) != (socket.SOL_SOCKET, socket.SCM_RIGHTS) or len(data) % fds.itemsize:
        raise RuntimeError('Invalid data received')
    fds.frombytes(data)
    if len(fds) % 256 != count[0]:
        for fd in fds:
            os.close(fd)
        raise AssertionError(f'{len(fds)} descriptors arrived, but {count[0]} (modulo 256) were announced')
    return list(fds)


def _as_socket(conn):
    import socket
    return socket.fromfd(conn.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)


def send_handle(conn, handle, destination_pid):
    """Sends a descriptor over a local connection."""
    with _as_socket(conn) as sock:
        sendfds(sock, [handle])


def recv_handle(conn):
    """Receives a descriptor from a local connection."""
    with _as_socket(conn) as sock:
        return recvfds(sock, 1)[0]


def DupFd(fd):
    """A picklable stand-in for a descriptor; its detach() gives the receiver a descriptor of its own."""
    popen = context.get_spawning_popen()
    if popen is not None:
        return popen.DupFd(popen.duplicate_for_child(fd))
    from . import resource_sharer
    return resource_sharer.DupFd(fd)


# ---- Reducers ------------------------------------------------------------------------------------------------

def _reduce_method(method):
    owner = method.__self__
    if owner is None:
        owner = method.__class__
    return getattr, (owner, method.__func__.__name__)


def _reduce_method_descriptor(descriptor):
    return getattr, (descriptor.__objclass__, descriptor.__name__)


def _reduce_partial(partial):
    return _rebuild_partial, (partial.func, partial.args, partial.keywords or {})


def _rebuild_partial(func, args, keywords):
    return functools.partial(func, *args, **keywords)


def _reduce_socket(sock):
    return _rebuild_socket, (DupFd(sock.fileno()), sock.family, sock.type, sock.proto)


def _rebuild_socket(dup, family, type, proto):
    import socket
    return socket.socket(family, type, proto, fileno=dup.detach())


class _C:
    def f(self):
        """A method, for its type."""


def _register_reducers():
    register(type(_C().f), _reduce_method)
    register(type(list.append), _reduce_method_descriptor)
    register(type(int.__add__), _reduce_method_descriptor)
    register(functools.partial, _reduce_partial)
    know_sockets()


_sockets_known = False


def know_sockets():
    """Sockets get their reducer once there can be any, then true: their module is slow to import, and most children need none.

    The native module calls this as well, before it looks at the reducers.
    """
    global _sockets_known
    if not _sockets_known and 'socket' in sys.modules:
        named = getattr(sys.modules['socket'], 'socket', None)  # another than its own, where a library has replaced it
        for kind in _socket.socket.__subclasses__():
            if kind is named or (kind.__module__, kind.__qualname__) == ('socket', 'socket'):
                ForkingPickler._extra_reducers.setdefault(kind, _reduce_socket)
                _sockets_known = True
    return _sockets_known


_register_reducers()


class AbstractReducer(metaclass=ABCMeta):
    """Base for a program's own reduction, to be set as a context's `reducer`."""

    ForkingPickler = ForkingPickler
    register = register
    dump = dump
    send_handle = send_handle
    recv_handle = recv_handle
    sendfds = sendfds
    recvfds = recvfds
    DupFd = DupFd

    _reduce_method = _reduce_method
    _reduce_method_descriptor = _reduce_method_descriptor
    _rebuild_partial = _rebuild_partial
    _reduce_socket = _reduce_socket
    _rebuild_socket = _rebuild_socket

    def __init__(self, *args):
        _register_reducers()
