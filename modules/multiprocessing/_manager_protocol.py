"""What a manager's server and its clients say to each other.

A client connects (`listener_client` says how), authenticates, and sends one **request** ``(None, function, args,
kwds)`` for a function of the server's (`Server.public`).  The function ``accept_connection`` turns the connection into
a **session** of the calling thread: from then on it carries **calls** ``(object id, method, args, kwds)``.  A reply is
``(kind, value)``:

    #RETURN          the result
    #PROXY           the result stays with the server: (exposed methods, Token)
    #ERROR           the exception that the method raised, carrying its traceback as text
    #TRACEBACK       the text of a traceback: the server could not do what was asked
    #UNSERIALIZABLE  the same, because the result could not be sent

The standard library's managers speak the same.
"""

from . import connection
from .context import reduction

__all__ = ()

# Serializer -> (Listener, Client).  Programs add their own.
listener_client = {
    'pickle': (connection.Listener, connection.Client),
    'xmlrpclib': (connection.XmlListener, connection.XmlClient),
}


class Token:
    """Names a shared object: its registered type, the address of its server, its id there."""

    __slots__ = ('typeid', 'address', 'id')

    def __init__(self, typeid, address, id):
        self.typeid, self.address, self.id = typeid, address, id

    def __getstate__(self):
        return self.typeid, self.address, self.id

    def __setstate__(self, state):
        self.typeid, self.address, self.id = state

    def __repr__(self):
        return f'{type(self).__name__}(typeid={self.typeid!r}, address={self.address!r}, id={self.id!r})'


class RemoteError(Exception):
    """The server could not carry out a request; `args[0]` is its traceback."""

    def __str__(self):
        rule = '-' * 75
        return f'\n{rule}\n{self.args[0]}{rule}'


def dispatch(c, id, methodname, args=(), kwds={}):
    """Sends a request or call over the connection `c` and returns the result, or raises the error."""
    c.send((id, methodname, args, kwds))
    return result_of(*c.recv())


def result_of(kind, result):
    """Returns the result in a reply, or raises the error."""
    if kind == '#RETURN':
        return result
    try:
        raise convert_to_error(kind, result)
    finally:
        del result  # The exception's traceback refers to this frame.


def convert_to_error(kind, result):
    """The exception for a reply that is none of success."""
    if kind == '#ERROR':
        return result
    if kind not in ('#TRACEBACK', '#UNSERIALIZABLE'):
        return ValueError(f'Unrecognized message type {kind!r}')
    if not isinstance(result, str):
        raise TypeError(f'Result {result!r} (kind {kind!r}) type is {type(result)}, not str')
    return RemoteError(f'Unserializable message: {result}\n' if kind == '#UNSERIALIZABLE' else result)


class Transport:
    """How proxies of one process reach the server at one address.

    `local` is a thread-local: each thread has a session of its own, as the server may tie state to it (an RLock
    belongs to the session that acquired it).  This class is the seam for a faster way within a session of pyhost.
    """

    def __init__(self, address, serializer, authkey, local):
        self._address = address
        self._client = listener_client[serializer][1]
        self._authkey = authkey
        self._local = local

    def request(self, function, args=(), kwds={}):
        """Has the server run one of its public functions."""
        conn = self._client(self._address, authkey=self._authkey)
        try:
            return dispatch(conn, None, function, args, kwds)
        finally:
            conn.close()

    def call(self, ident, method, args, kwds, name):
        """Calls a method of a shared object; returns the reply.  `name` is for the server's log."""
        conn = getattr(self._local, 'connection', None)
        if conn is None:
            conn = self._open_session(name)
        if isinstance(conn, connection.Connection):
            return self._call_pickled(conn, (ident, method, args, kwds))
        conn.send((ident, method, args, kwds))
        return conn.recv()

    def _call_pickled(self, conn, call):
        pickled = reduction.ForkingPickler.dumps(call)
        try:
            conn.send_bytes(pickled)
            reply = conn.recv_bytes()
        except BaseException:
            # Interrupted: a later call must not take the reply to this one for its own.
            self.close_session()
            raise
        return reduction.ForkingPickler.loads(reply)

    def _open_session(self, name):
        conn = self._client(self._address, authkey=self._authkey)
        try:
            dispatch(conn, None, 'accept_connection', (name,))
        except BaseException:
            conn.close()
            raise
        self._local.connection = conn
        return conn

    def close_session(self):
        """Closes this thread's session, if it has one."""
        conn = self._local.__dict__.pop('connection', None)
        if conn is not None:
            conn.close()
