"""The server of a manager: it owns the shared objects, and runs their methods for the proxies.

Each connection is served by a thread of its own, which also authenticates it: a peer that says nothing keeps
nobody else waiting, and is dropped after `connection.CONNECTION_TIMEOUT`.
"""

import collections
import sys
import threading
from traceback import format_exc

import _pyhost

from . import connection
from . import process
from . import util
from ._manager_protocol import LINE_REQUESTS, Line, Token, listener_client
from .context import reduction

__all__ = ()

# Seconds to leave the processor to others when connections cannot be accepted (no descriptors left).
_ACCEPT_RETRY = 0.1


def all_methods(obj):
    """The names of all methods of `obj`."""
    return [name for name in dir(obj) if callable(getattr(obj, name))]


def public_methods(obj):
    """The names of the methods of `obj` that do not start with '_'."""
    return [name for name in all_methods(obj) if name[0] != '_']


class Server:
    """Serves shared objects of the types in `registry` at `address`.

    An object lives while its count of references from proxies (in whatever process) is above zero, or while a
    proxy for it lies inside another object of this server.

    Guarded by `mutex`: id_to_obj, id_to_refcount, id_to_local_proxy_obj, _local_proxies.  No code of users' runs
    under it.
    """

    public = ['shutdown', 'create', 'accept_connection', 'get_methods', 'debug_info', 'number_of_objects', 'dummy',
              'incref', 'decref']

    def __init__(self, registry, address, authkey, serializer):
        if not isinstance(authkey, bytes):
            raise TypeError(f'Authkey {authkey!r} is type {type(authkey)!s}, not bytes')
        self.registry = registry
        self.authkey = process.AuthenticationString(authkey)
        self._serializer = serializer
        # Without a key: the handshake is left to the thread that serves the connection.
        self.listener = listener_client[serializer][0](address=address, backlog=128)
        self.address = self.listener.address
        self.id_to_obj = {'0': (None, ())}   # id -> (object, exposed methods, method -> type of a proxied result)
        self.id_to_refcount = {}
        self.id_to_local_proxy_obj = {}      # The same entries, for proxies inside objects of this server
        self._local_proxies = {}             # id -> number of such proxies
        self._released = collections.deque() # ids of such proxies that are gone, not yet counted
        self.mutex = threading.Lock()
        self.stop_event = threading.Event()

    # ---- Connections

    def serve_forever(self):
        """Serves until a `shutdown` request or KeyboardInterrupt, then exits the process (SystemExit)."""
        process.current_process()._manager_server = self
        try:
            threading.Thread(target=self.accepter, name='accepter', daemon=True).start()
            try:
                self.stop_event.wait()
            except (KeyboardInterrupt, SystemExit):
                pass
        finally:
            self.stop_event.set()
            self.listener.close()
            self._restore_streams()
            sys.exit(0)

    @staticmethod
    def _restore_streams():
        # What replaced them may depend on what is about to go.
        if sys.stdout != sys.__stdout__:
            util.debug('resetting stdout, stderr')
            sys.stdout = sys.__stdout__
            sys.stderr = sys.__stderr__

    def accepter(self):
        """Accepts connections, and starts a thread for each."""
        while not self.stop_event.is_set():
            try:
                conn = self.listener.accept()
            except OSError as error:
                util.info('manager cannot accept a connection: %s', error)
                self.stop_event.wait(_ACCEPT_RETRY)
                continue
            if self.stop_event.is_set():
                conn.close()
                return
            try:
                threading.Thread(target=self.handle_request, args=(conn,), daemon=True).start()
            except RuntimeError as error:
                util.info('manager cannot start a thread for a connection: %s', error)
                conn.close()

    def handle_request(self, conn):
        """Serves one connection, from the handshake to its end."""
        try:
            self._handle_request(conn)
        except SystemExit:
            pass  # How functions end a connection.
        finally:
            conn.close()

    def _handle_request(self, conn):
        try:
            self._authenticate(conn)
        except Exception as error:
            util.info('manager refuses a connection: %s', error)
            return
        request = None
        try:
            request = conn.recv()
            _, name, args, kwds = request
            if name not in self.public:
                raise ValueError(f'{name!r} unrecognized')
            reply = '#RETURN', getattr(self, name)(conn, *args, **kwds)
        except Exception:
            reply = '#TRACEBACK', format_exc()
        try:
            self._send_reply(conn, reply)
        except Exception as error:
            util.info('Failure to send message: %r', reply)
            util.info(' ... request was %r', request)
            util.info(' ... exception was %r', error)

    def _authenticate(self, conn):
        peer = getattr(conn, '_conn', conn)
        if isinstance(peer, connection.Connection):
            peer = connection._HandshakePeer(peer, connection.CONNECTION_TIMEOUT)
        connection.deliver_challenge(peer, self.authkey)
        connection.answer_challenge(peer, self.authkey)

    @staticmethod
    def _send_reply(conn, reply):
        try:
            conn.send(reply)
        except OSError:
            raise
        except Exception:
            conn.send(('#UNSERIALIZABLE', format_exc()))

    # ---- Sessions

    def accept_connection(self, c, name):
        """Makes the connection the session of one thread of a client's; its reply names our pyhost session."""
        threading.current_thread().name = name
        c.send(('#RETURN', _pyhost.session_id() if self._serializer == 'pickle' else None))
        self.serve_client(c)

    def serve_client(self, conn):
        """Carries out the calls of one session, on a connection or line; raises SystemExit at its end."""
        try:
            self._serve_client(conn)
        finally:
            conn.close()

    def _serve_client(self, conn):
        thread = threading.current_thread().name
        util.debug('starting server thread to service %r', thread)
        while not self.stop_event.is_set():
            # `reply` stays alive until the next call: the client may be about to refer to an object in it.
            try:
                call = conn.recv()
            except EOFError:
                util.debug('got EOF -- exiting thread serving %r', thread)
                sys.exit(0)
            except Exception:
                reply = '#TRACEBACK', format_exc()
            else:
                reply = self._reply_to(conn, call)
                del call
                if reply[0] == '#LINE':
                    conn.send(('#RETURN', None))
                    conn.close()
                    self.serve_client(reply[1])
            try:
                self._send_reply(conn, reply)
            except Exception as error:
                util.info('exception in thread serving %r', thread)
                util.info(' ... message was %r', reply)
                util.info(' ... exception was %r', error)
                sys.exit(1)
        sys.exit(0)

    def _reply_to(self, conn, call):
        try:
            ident, name, args, kwds = call
            if ident is None:
                return self._reply_to_request(conn, name, args, kwds)
            obj, exposed, method_to_typeid = self._entry(ident)
            if name in exposed and hasattr(obj, name):
                return self._call_method(conn, obj, name, args, kwds, method_to_typeid)
            fallback = self.fallback_mapping.get(name)
            if fallback is None and name in exposed:
                raise AttributeError(f'{type(obj).__name__!r} object has no attribute {name!r}')
            if fallback is None:
                raise AttributeError(f'method {name!r} of {type(obj)!r} object is not in exposed={exposed!r}')
            return '#RETURN', fallback(self, conn, ident, obj, *args, **kwds)
        except Exception:
            return '#TRACEBACK', format_exc()

    def _reply_to_request(self, conn, name, args, kwds):
        if name == '#LINE':
            return '#LINE', Line.attach(*args)
        if name not in LINE_REQUESTS or name not in self.public:
            raise ValueError(f'{name!r} is no request for a session')
        return '#RETURN', getattr(self, name)(conn, *args, **kwds)

    def _call_method(self, conn, obj, name, args, kwds, method_to_typeid):
        try:
            result = getattr(obj, name)(*args, **kwds)
        except Exception as error:
            return self._error_reply(error)
        typeid = method_to_typeid and method_to_typeid.get(name)
        if not typeid:
            return '#RETURN', result
        ident, exposed = self.create(conn, typeid, result)
        return '#PROXY', (exposed, Token(typeid, self.address, ident))

    def _error_reply(self, error):
        """The exception with its traceback if the client can be given it, else the traceback."""
        from .pool import ExceptionWithTraceback
        text = format_exc()
        if self._serializer != 'pickle':
            return '#TRACEBACK', text
        carrier = ExceptionWithTraceback(error, error.__traceback__)
        try:
            reduction.ForkingPickler.loads(reduction.ForkingPickler.dumps(carrier))
        except Exception:
            return '#TRACEBACK', text
        return '#ERROR', carrier

    def _entry(self, ident):
        with self.mutex:
            entry = self.id_to_obj.get(ident)
            return entry if entry is not None else self.id_to_local_proxy_obj[ident]

    def fallback_getvalue(self, conn, ident, obj):
        return obj

    def fallback_str(self, conn, ident, obj):
        return str(obj)

    def fallback_repr(self, conn, ident, obj):
        return repr(obj)

    fallback_mapping = {
        '__str__': fallback_str,
        '__repr__': fallback_repr,
        '#GETVALUE': fallback_getvalue,
    }

    # ---- Proxies inside objects of this server

    def make_local_proxy(self, ident, make):
        """Returns the proxy that `make()` makes; the object lives at least as long.  KeyError if there is none."""
        with self.mutex:
            if ident not in self.id_to_local_proxy_obj:
                self.id_to_local_proxy_obj[ident] = self.id_to_obj[ident]
            self._local_proxies[ident] = self._local_proxies.get(ident, 0) + 1
        try:
            proxy = make()
        except BaseException:
            self._release_local_proxy(ident)
            raise
        util.Finalize(proxy, self._release_local_proxy, args=(ident,))
        return proxy

    def _release_local_proxy(self, ident):
        # The garbage collector may call this while the same thread holds the mutex.
        self._released.append(ident)
        entries = []
        while self._released and self.mutex.acquire(blocking=False):
            try:
                while self._released:
                    entries.append(self._forget_local_proxy(self._released.popleft()))
            finally:
                self.mutex.release()

    def _forget_local_proxy(self, ident):
        self._local_proxies[ident] -= 1
        if self._local_proxies[ident]:
            return None
        del self._local_proxies[ident]
        return self.id_to_local_proxy_obj.pop(ident)

    # ---- Functions for clients

    def dummy(self, c):
        """Does nothing: shows a client that it reaches the server, and knows the key."""

    def shutdown(self, c):
        """Ends the server once the client knows."""
        try:
            util.debug('manager received shutdown message')
            c.send(('#RETURN', None))
        finally:
            self.stop_event.set()
        sys.exit(0)

    def create(self, c, typeid, /, *args, **kwds):
        """Makes a shared object; returns its id and exposed methods.  The caller holds a reference to it."""
        factory, exposed, method_to_typeid, _ = self.registry[typeid]
        if factory is not None:
            obj = factory(*args, **kwds)
        elif kwds or len(args) != 1:
            raise ValueError('Without callable, must have one non-keyword argument')
        else:
            obj = args[0]
        exposed = list(public_methods(obj) if exposed is None else exposed)
        if method_to_typeid is not None:
            if not isinstance(method_to_typeid, dict):
                raise TypeError(f'Method_to_typeid {method_to_typeid!r}: type {type(method_to_typeid)!s}, not dict')
            exposed += method_to_typeid
        # A string: XML-RPC has no integers of this size.
        ident = f'{id(obj):x}'
        util.debug('%r callable returned object with id %r', typeid, ident)
        with self.mutex:
            self.id_to_obj[ident] = obj, set(exposed), method_to_typeid
            self.id_to_refcount[ident] = self.id_to_refcount.get(ident, 0) + 1
        return ident, tuple(exposed)

    def get_methods(self, c, token):
        """The exposed methods of the object that `token` names."""
        return tuple(self._entry(token.id)[1])

    def incref(self, c, ident):
        """Counts one more reference to an object."""
        with self.mutex:
            if ident not in self.id_to_refcount:
                # Known only to proxies inside other objects until now.
                self.id_to_obj[ident] = self.id_to_local_proxy_obj[ident]
                self.id_to_refcount[ident] = 0
                util.debug('Server re-enabled tracking & INCREF %r', ident)
            self.id_to_refcount[ident] += 1

    def decref(self, c, ident):
        """Counts one reference less; the last one to go takes the object with it."""
        with self.mutex:
            if ident not in self.id_to_refcount and ident in self.id_to_local_proxy_obj:
                util.debug('Server DECREF skipping %r', ident)
                return
            self.id_to_refcount[ident] -= 1
            if self.id_to_refcount[ident]:
                return
            del self.id_to_refcount[ident]
            # Outside of the lock its end may take other objects along.
            entry = self.id_to_obj.pop(ident)
        util.debug('disposing of obj with id %r', ident)
        del entry

    def debug_info(self, c):
        """One entry for each object, with its count of references."""
        with self.mutex:
            entries = [(ident, count, self.id_to_obj[ident][0])
                       for ident, count in sorted(self.id_to_refcount.items()) if ident != '0']
        return '\n'.join(f'  {ident}:       refcount={count}\n    {str(obj)[:75]}' for ident, count, obj in entries)

    def number_of_objects(self, c):
        """How many objects are referred to."""
        return len(self.id_to_refcount)
