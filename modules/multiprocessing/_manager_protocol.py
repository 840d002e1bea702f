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

Where client and server are in one pyhost session (the reply to ``accept_connection`` names the server's), the client's
first call is ``(None, '#LINE', (address,), {})``.  From then on the same calls and replies travel on a **line**, a pair
of queues in shared memory, and the socket is closed.  A line ends with either process, and its thread in the server
with the line.  On a line some requests (`LINE_REQUESTS`) may also be sent as calls of no object.
"""

import threading

import _pyhost

from . import connection
from . import process
from .context import reduction

Line = _pyhost.Line

__all__ = ()

# The requests that need no connection of their own.
LINE_REQUESTS = frozenset(('create', 'incref', 'decref', 'get_methods', 'debug_info', 'number_of_objects', 'dummy',
                           'track_segment', 'release_segment', 'list_segments'))

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
    belongs to the session that acquired it).  Its `connection` is what the session's calls travel on: a Connection, or,
    where the server is in our pyhost session, a Line (see the module's text).
    """

    def __init__(self, address, client, authkey, local):
        self._address = address
        self._client = client
        self._authkey = authkey
        self._local = local

    def request(self, function, args=(), kwds={}, opens=False):
        """Has the server run one of its public functions.  `opens`: on this thread's session, opened if there is none."""
        if function in LINE_REQUESTS:
            line = self._session()
            if line is None and opens:
                line = self.open_session()
            if type(line) is Line and not line.busy:
                return result_of(*self._exchange(line, (None, function, args, kwds)))
        conn = self._client(self._address, authkey=self._authkey)
        try:
            return dispatch(conn, None, function, args, kwds)
        finally:
            conn.close()

    def call(self, ident, method, args, kwds):
        """Calls a method of a shared object; returns the reply."""
        conn = self._session() or self.open_session()
        if type(conn) is Line:
            if conn.busy:
                return self._call_aside((ident, method, args, kwds))
            return self._exchange(conn, (ident, method, args, kwds))
        if isinstance(conn, connection.Connection):
            return self._call_pickled(conn, (ident, method, args, kwds))
        conn.send((ident, method, args, kwds))
        return conn.recv()

    def _session(self):
        """This thread's session, if it has one."""
        conn = getattr(self._local, 'connection', None)
        if type(conn) is Line and conn.inherited:
            # The program forked by itself: the line is the parent's.
            del self._local.connection
            return None
        return conn

    def _exchange(self, line, call):
        try:
            return line.exchange(call)
        except BaseException:
            if line.closed:
                self.close_session()
            raise

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

    def _call_aside(self, call):
        """For a signal handler that interrupted a call of its own thread: a session for this call alone."""
        conn = self._connect()
        try:
            conn.send(call)
            return conn.recv()
        finally:
            conn.close()

    def _connect(self):
        """A new session; its calls travel on what is returned."""
        conn = self._client(self._address, authkey=self._authkey)
        try:
            server_session = dispatch(conn, None, 'accept_connection', (_caller_name(),))
            # None: no session, or the standard library's server.
            if server_session is None or server_session != _pyhost.session_id():
                return conn
            line = Line()
            dispatch(conn, None, '#LINE', (line.address,))
        except BaseException:
            conn.close()
            raise
        conn.close()
        return line

    def open_session(self):
        """Opens the calling thread's session."""
        self._local.connection = conn = self._connect()
        return conn

    def close_session(self):
        """Closes this thread's session, if it has one."""
        conn = self._local.__dict__.pop('connection', None)
        if conn is not None:
            conn.close()


def _caller_name():
    """What the server's log calls this thread."""
    name = process.current_process().name
    thread = threading.current_thread().name
    return name if thread == 'MainThread' else f'{name}|{thread}'
