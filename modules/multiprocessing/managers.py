"""Managers: processes that hold objects for others, which use them through proxies, also from other machines.

`_manager_protocol.py` describes what is said between server and clients, `_manager_server.py` is the server,
`_manager_proxies.py` the clients' side; this module is what starts and finds servers.  All names are to be had, and
are pickled, as members of `multiprocessing.managers`.
"""

import array
import os
import queue
import signal
import threading

from . import connection
from . import get_context
from . import pool
from . import process
from . import shared_memory
from . import util
from ._manager_protocol import RemoteError, Token, Transport, convert_to_error, dispatch, listener_client
from ._manager_proxies import (
    AcquirerProxy, ArrayProxy, AutoProxy, BarrierProxy, BaseListProxy, BasePoolProxy, BaseProxy, ConditionProxy,
    DictProxy, EventProxy, IteratorProxy, ListProxy, MakeProxyType, NamespaceProxy, PoolProxy, ProcessLocalSet,
    RebuildProxy, SetProxy, ValueProxy, _BaseDictProxy, _BaseSetProxy)
from ._manager_server import Server, all_methods, public_methods
from ._manager_shared_memory import SharedMemoryServer, _SharedMemoryTracker
from ._manager_types import Array, Condition, Namespace, RLock, Value
from .context import ProcessError, reduction

__all__ = ['BaseManager', 'SyncManager', 'BaseProxy', 'Token', 'SharedMemoryManager']

HAS_SHMEM = True

# A pickle names the module of what is in it: peers, also the standard library's, look here.
for _member in list(globals().values()):
    if getattr(_member, '__module__', '').startswith('multiprocessing._manager_'):
        _member.__module__ = __name__
del _member


def reduce_array(a):
    return array.array, (a.typecode, a.tobytes())


def rebuild_as_list(obj):
    return list, (list(obj),)


reduction.register(array.array, reduce_array)
for _view in ({}.items(), {}.keys(), {}.values()):
    reduction.register(type(_view), rebuild_as_list)
del _view


class State:
    """What became of a manager; shared with the finalizers of its proxies."""

    __slots__ = ['value']
    INITIAL = 0
    STARTED = 1
    SHUTDOWN = 2


class _StartFailure:
    """What the server process sends in place of an address when it cannot serve."""

    def __init__(self, error):
        self.error = pool.ExceptionWithTraceback(error, error.__traceback__)


class BaseManager:
    """Starts a server for shared objects, or connects to one, and makes objects there.

    `register` says which types there are.  `start()` makes a server process and `shutdown()` ends it;
    `get_server().serve_forever()` serves in this process; `connect()` uses a server that is there already.
    """

    _registry = {}
    _Server = Server
    _process = None

    def __init__(self, address=None, authkey=None, serializer='pickle', ctx=None, *, shutdown_timeout=1.0):
        if authkey is None:
            authkey = process.current_process().authkey
        self._address = address
        self._authkey = process.AuthenticationString(authkey)
        self._state = State()
        self._state.value = State.INITIAL
        self._serializer = serializer
        self._Listener, self._Client = listener_client[serializer]
        self._ctx = ctx or get_context()
        self._shutdown_timeout = shutdown_timeout

    def _check_initial(self):
        if self._state.value == State.STARTED:
            raise ProcessError(f'Already started {"server" if self._Server is Server else self._Server.__name__}')
        if self._state.value == State.SHUTDOWN:
            raise ProcessError('Manager has shut down' if type(self) is BaseManager else
                               f'{type(self).__name__} has shut down')
        if self._state.value != State.INITIAL:
            raise ProcessError(f'Unknown state {self._state.value!r}')

    def get_server(self):
        """A server with `serve_forever()` and `address`, to run in this process."""
        self._check_initial()
        return self._Server(self._registry, self._address, self._authkey, self._serializer)

    def connect(self):
        """Uses the server at `address`."""
        self._request('dummy')
        self._state.value = State.STARTED

    def start(self, initializer=None, initargs=()):
        """Starts a server process, which first calls `initializer(*initargs)`."""
        self._check_initial()
        if initializer is not None and not callable(initializer):
            raise TypeError('initializer must be a callable')
        reader, writer = connection.Pipe(duplex=False)
        with reader:
            with writer:
                self._process = self._ctx.Process(
                    target=type(self)._run_server,
                    args=(self._registry, self._address, self._authkey, self._serializer, writer, initializer,
                          initargs))
                number = ':'.join(str(i) for i in self._process._identity)
                self._process.name = f'{type(self).__name__}-{number}'
                self._process.start()
            self._address = self._receive_address(reader)
        self._state.value = State.STARTED
        # With the last proxy the connections of this process are closed; a manager is about to make another.
        BaseProxy._local_of(self._address)[1].add(self._process.name)
        self.shutdown = util.Finalize(
            self, type(self)._finalize_manager,
            args=(self._process, self._address, self._authkey, self._state, self._Client, self._shutdown_timeout),
            exitpriority=0)

    def _receive_address(self, reader):
        try:
            answer = reader.recv()
        except EOFError:
            self._process.join()
            raise EOFError(f'the server process {self._process.name} ended before it served, with exit code '
                           f'{self._process.exitcode}') from None
        if isinstance(answer, _StartFailure):
            self._process.join()
            raise answer.error
        return answer

    @classmethod
    def _run_server(cls, registry, address, authkey, serializer, writer, initializer=None, initargs=()):
        """What the server process does."""
        # Ctrl-C is for the programs that use the server; it ends when they tell it to.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if initializer is not None:
            initializer(*initargs)
        try:
            server = cls._Server(registry, address, authkey, serializer)
        except Exception as error:
            writer.send(_StartFailure(error))
            return
        writer.send(server.address)
        writer.close()
        util.info('manager serving at %r', server.address)
        server.serve_forever()

    def _request(self, function, /, *args, **kwds):
        """Has the server run one of its public functions."""
        # One that we started is in our session: the first request opens a line for all that follow on this thread.
        ours = self._process is not None and self._serializer == 'pickle'
        local = BaseProxy._local_of(self._address)[0] if ours else None
        return Transport(self._address, self._Client, self._authkey, local).request(function, args, kwds, opens=ours)

    def _create(self, typeid, /, *args, **kwds):
        """Makes a shared object; returns its token and exposed methods.  The caller owes a decref."""
        if self._state.value != State.STARTED:
            raise AssertionError('server not yet started' if self._state.value == State.INITIAL else
                                 'server has been shut down')
        ident, exposed = self._request('create', typeid, *args, **kwds)
        return Token(typeid, self._address, ident), exposed

    def join(self, timeout=None):
        """Waits for the end of the server process, if we started one."""
        if self._process is not None:
            self._process.join(timeout)
            if not self._process.is_alive():
                self._process = None

    def _debug_info(self):
        """Text about the objects of the server."""
        return self._request('debug_info')

    def _number_of_objects(self):
        """How many objects the server holds."""
        return self._request('number_of_objects')

    def __enter__(self):
        if self._state.value == State.INITIAL:
            self.start()
        elif self._state.value != State.STARTED:
            self._check_initial()
        return self

    def __exit__(self, exc_type, exc_val, exc_tb):
        # A manager that is only connected leaves the server alone.
        shutdown = getattr(self, 'shutdown', None)
        if shutdown is not None:
            shutdown()

    @staticmethod
    def _finalize_manager(process, address, authkey, state, _Client, shutdown_timeout):
        """Ends the server process: politely, then with SIGTERM, then with SIGKILL."""
        if process.is_alive():
            util.info('sending shutdown message to manager')
            try:
                conn = _Client(address, authkey=authkey)
                try:
                    dispatch(conn, None, 'shutdown')
                finally:
                    conn.close()
            except Exception as error:
                util.info('manager could not be told: %s', error)
            process.join(timeout=shutdown_timeout)
            if process.is_alive():
                util.info('manager still alive, terminating it')
                process.terminate()
                process.join(timeout=shutdown_timeout)
                if process.is_alive():
                    util.info('manager still alive after terminate')
                    process.kill()
                    process.join()
        state.value = State.SHUTDOWN
        BaseProxy._address_to_local.pop(address, None)

    @property
    def address(self):
        """Where the server is."""
        return self._address

    @classmethod
    def register(cls, typeid, callable=None, proxytype=None, exposed=None, method_to_typeid=None, create_method=True):
        """Adds a type of shared objects.

        `callable` makes one, in the server.  `proxytype` is the type of its proxies (default: AutoProxy), `exposed`
        the names of the methods that proxies may call, `method_to_typeid` maps methods to the types of results that
        are to stay in the server.  With `create_method` the manager has a method `typeid` that makes an object.
        """
        if '_registry' not in cls.__dict__:
            cls._registry = cls._registry.copy()
        if proxytype is None:
            proxytype = AutoProxy
        exposed = exposed or getattr(proxytype, '_exposed_', None)
        method_to_typeid = method_to_typeid or getattr(proxytype, '_method_to_typeid_', None)
        for name in _texts(method_to_typeid):
            if type(name) is not str:
                raise AssertionError(f'{name!r} is not a string')
        cls._registry[typeid] = callable, exposed, method_to_typeid, proxytype
        if create_method:
            setattr(cls, typeid, _creator(typeid, proxytype))


def _texts(method_to_typeid):
    return [text for item in (method_to_typeid or {}).items() for text in item]


def _creator(typeid, proxytype):
    """The method of managers that makes a shared object of a type."""
    def create(self, /, *args, **kwds):
        util.debug('requesting creation of a shared %r object', typeid)
        token, exposed = self._create(typeid, *args, **kwds)
        proxy = proxytype(token, self._serializer, manager=self, authkey=self._authkey, exposed=exposed)
        self._request('decref', token.id)
        return proxy
    create.__name__ = create.__qualname__ = typeid
    return create


class SyncManager(BaseManager):
    """A manager for lists, dicts, sets, queues, locks and the other types registered below.

    `multiprocessing.Manager()` returns a started one.
    """


SyncManager.register('Queue', queue.Queue)
SyncManager.register('JoinableQueue', queue.Queue)
SyncManager.register('Event', threading.Event, EventProxy)
SyncManager.register('Lock', threading.Lock, AcquirerProxy)
SyncManager.register('RLock', RLock, AcquirerProxy)
SyncManager.register('Semaphore', threading.Semaphore, AcquirerProxy)
SyncManager.register('BoundedSemaphore', threading.BoundedSemaphore, AcquirerProxy)
SyncManager.register('Condition', Condition, ConditionProxy)
SyncManager.register('Barrier', threading.Barrier, BarrierProxy)
SyncManager.register('Pool', pool.Pool, PoolProxy)
SyncManager.register('list', list, ListProxy)
SyncManager.register('dict', dict, DictProxy)
SyncManager.register('set', set, SetProxy)
SyncManager.register('Value', Value, ValueProxy)
SyncManager.register('Array', Array, ArrayProxy)
SyncManager.register('Namespace', Namespace, NamespaceProxy)
# Results of a pool's methods, and iterators.
SyncManager.register('Iterator', proxytype=IteratorProxy, create_method=False)
SyncManager.register('AsyncResult', create_method=False)


class SharedMemoryManager(BaseManager):
    """A manager that removes the shared memory made through it when it is shut down."""

    _Server = SharedMemoryServer

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        util.debug('%s created by pid %s', type(self).__name__, os.getpid())

    def __del__(self):
        util.debug('%s.__del__ by pid %s', type(self).__name__, os.getpid())

    def SharedMemory(self, size):
        """A new SharedMemory block of `size` bytes."""
        block = shared_memory.SharedMemory(None, create=True, size=size)
        self._track(block)
        return block

    def ShareableList(self, sequence):
        """A new ShareableList with the items of `sequence`."""
        shareable = shared_memory.ShareableList(sequence)
        self._track(shareable.shm)
        return shareable

    def _track(self, block):
        try:
            self._request('track_segment', block.name)
        except BaseException:
            block.close()
            block.unlink()
            raise
