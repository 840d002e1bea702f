"""Proxies: what a process holds in place of an object that lies in a manager's server."""

import collections.abc
import threading
import time
import types

from . import process
from . import util
from ._manager_protocol import Transport, listener_client, result_of
from .context import get_spawning_popen

__all__ = ()


class ProcessLocalSet(set):
    """A set that is empty after a fork."""

    def __init__(self):
        util.register_after_fork(self, lambda obj: obj.clear())

    def __reduce__(self):
        return type(self), ()


class BaseProxy:
    """Refers to a shared object, and calls its methods.

    The server counts each proxy as a reference; the count goes down when the proxy is collected.  A proxy may be
    used by several threads; each has a connection of its own, shared with the other proxies for that server.
    """

    # Server address -> (thread-local with the thread's connection, ids of the objects we hold references to)
    _address_to_local = {}
    _mutex = util.ForkAwareThreadLock()

    def __init__(self, token, serializer, manager=None, authkey=None, exposed=None, incref=True, manager_owned=False):
        self._tls, self._idset = BaseProxy._local_of(token.address)
        self._token = token
        self._id = token.id
        self._manager = manager
        self._serializer = serializer
        self._Client = listener_client[serializer][1]
        # Lies inside an object of the same server, which keeps count of it in another way.
        self._owned_by_manager = manager_owned
        if authkey is not None:
            self._authkey = process.AuthenticationString(authkey)
        elif manager is not None:
            self._authkey = manager._authkey
        else:
            self._authkey = process.current_process().authkey
        self._transport = Transport(token.address, self._Client, self._authkey, self._tls)
        if incref:
            self._incref()
        util.register_after_fork(self, BaseProxy._after_fork)

    @staticmethod
    def _local_of(address):
        """What this process keeps for the server at `address`; see _address_to_local."""
        with BaseProxy._mutex:
            local = BaseProxy._address_to_local.get(address)
            if local is None:
                local = util.ForkAwareLocal(), ProcessLocalSet()
                BaseProxy._address_to_local[address] = local
        return local

    def _connect(self):
        """Opens the calling thread's connection to the server."""
        self._transport.open_session()

    def _callmethod(self, methodname, args=(), kwds={}):
        """Calls a method of the object; returns a copy of its result, or a proxy if the type says so."""
        kind, result = self._transport.call(self._id, methodname, args, kwds)
        if kind == '#RETURN':
            return result
        if kind == '#PROXY':
            return self._proxy_for(*result)
        try:
            return result_of(kind, result)
        finally:
            del result  # May be an exception, whose traceback refers to this frame.

    def _proxy_for(self, exposed, token):
        """The proxy for a result that stays with the server, which counts a reference for us until we do."""
        token.address = self._token.address
        proxy = self._proxy_type(token.typeid)(token, self._serializer, manager=self._manager, authkey=self._authkey,
                                               exposed=exposed)
        self._transport.request('decref', (token.id,))
        return proxy

    def _proxy_type(self, typeid):
        from . import managers
        # A proxy that came from another process does not know its manager.
        registry = managers.SyncManager._registry if self._manager is None else self._manager._registry
        return registry[typeid][-1] if typeid in registry else managers.AutoProxy

    def _getvalue(self):
        """A copy of the object."""
        return self._callmethod('#GETVALUE')

    def _incref(self):
        if self._owned_by_manager:
            util.debug('owned_by_manager skipped INCREF of %r', self._token.id)
            return
        self._transport.request('incref', (self._id,))
        util.debug('INCREF %r', self._token.id)
        self._idset.add(self._id)
        state = self._manager and self._manager._state
        self._close = util.Finalize(
            self, BaseProxy._decref,
            args=(self._token, self._authkey, state, self._tls, self._idset, self._Client), exitpriority=10)

    @staticmethod
    def _decref(token, authkey, state, tls, idset, _Client):
        idset.discard(token.id)
        if state is None or state.value == state.STARTED:
            try:
                util.debug('DECREF %r', token.id)
                Transport(token.address, _Client, authkey, tls).request('decref', (token.id,))
            except Exception as error:
                util.debug('... decref failed %s', error)
        else:
            util.debug('DECREF %r -- manager already shutdown', token.id)
        if not idset and hasattr(tls, 'connection'):
            util.debug('thread %r has no more proxies so closing conn', threading.current_thread().name)
            tls.connection.close()
            del tls.connection

    def _after_fork(self):
        self._manager = None
        try:
            self._incref()
        except Exception as error:
            util.info('incref failed: %s', error)  # The manager may have been shut down.

    def __reduce__(self):
        kwds = {}
        if get_spawning_popen() is not None:
            kwds['authkey'] = self._authkey
        proxy_type = type(self)
        if getattr(self, '_isauto', False):
            from . import managers
            kwds['exposed'] = self._exposed_
            proxy_type = managers.AutoProxy
        return RebuildProxy, (proxy_type, self._token, self._serializer, kwds)

    def __deepcopy__(self, memo):
        return self._getvalue()

    def __repr__(self):
        return f'<{type(self).__name__} object, typeid {self._token.typeid!r} at {id(self):#x}>'

    def __str__(self):
        """The repr() of the object, or of the proxy if that cannot be had."""
        try:
            return self._callmethod('__repr__')
        except Exception:
            return repr(self)[:-1] + "; '__str__()' failed>"


def RebuildProxy(func, token, serializer, kwds):
    """Unpickles a proxy."""
    current = process.current_process()
    incref = kwds.pop('incref', True) and not getattr(current, '_inheriting', False)
    server = getattr(current, '_manager_server', None)
    if not server or server.address != token.address:
        return func(token, serializer, incref=incref, **kwds)
    util.debug('Rebuild a proxy owned by manager, token=%r', token)
    kwds['manager_owned'] = True
    return server.make_local_proxy(token.id, lambda: func(token, serializer, incref=incref, **kwds))


def MakeProxyType(name, exposed, _cache={}):
    """A proxy type with the methods `exposed`.  Equal arguments give the same type."""
    exposed = tuple(exposed)
    key = name, exposed
    if key not in _cache:
        methods = {method: _forwarder(method) for method in exposed}
        _cache[key] = type(name, (BaseProxy,), {**methods, '_exposed_': exposed})
    return _cache[key]


def _forwarder(method):
    def forward(self, /, *args, **kwds):
        return self._callmethod(method, args, kwds)
    forward.__name__ = forward.__qualname__ = method
    return forward


def AutoProxy(token, serializer, manager=None, authkey=None, exposed=None, incref=True, manager_owned=False):
    """A proxy for an object whose type has no proxy type registered: with the exposed methods of the object."""
    if authkey is None:
        authkey = process.current_process().authkey if manager is None else manager._authkey
    if exposed is None:
        client = listener_client[serializer][1]
        exposed = Transport(token.address, client, authkey, None).request('get_methods', (token,))
    proxy_type = MakeProxyType(f'AutoProxy[{token.typeid}]', exposed)
    proxy = proxy_type(token, serializer, manager=manager, authkey=authkey, incref=incref, manager_owned=manager_owned)
    proxy._isauto = True
    return proxy


#
# The proxy types of SyncManager
#

class IteratorProxy(BaseProxy):
    _exposed_ = ('__next__', 'send', 'throw', 'close')

    def __iter__(self):
        return self

    def __next__(self, *args):
        return self._callmethod('__next__', args)

    def send(self, *args):
        return self._callmethod('send', args)

    def throw(self, *args):
        return self._callmethod('throw', args)

    def close(self, *args):
        return self._callmethod('close', args)


class AcquirerProxy(BaseProxy):
    _exposed_ = ('acquire', 'release', 'locked')

    def acquire(self, blocking=True, timeout=None):
        return self._callmethod('acquire', (blocking,) if timeout is None else (blocking, timeout))

    def release(self):
        return self._callmethod('release')

    def locked(self):
        return self._callmethod('locked')

    def __enter__(self):
        return self._callmethod('acquire')

    def __exit__(self, exc_type, exc_val, exc_tb):
        return self._callmethod('release')


class ConditionProxy(AcquirerProxy):
    _exposed_ = ('acquire', 'release', 'locked', 'wait', 'notify', 'notify_all')

    def wait(self, timeout=None):
        return self._callmethod('wait', (timeout,))

    def notify(self, n=1):
        return self._callmethod('notify', (n,))

    def notify_all(self):
        return self._callmethod('notify_all')

    def wait_for(self, predicate, timeout=None):
        """Waits until `predicate()`, which is evaluated here, is true; returns its last value."""
        deadline = None if timeout is None else time.monotonic() + timeout
        remaining = None
        while not (result := predicate()):
            if deadline is not None:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    break
            self.wait(remaining)
        return result


class EventProxy(BaseProxy):
    _exposed_ = ('is_set', 'set', 'clear', 'wait')

    def is_set(self):
        return self._callmethod('is_set')

    def set(self):
        return self._callmethod('set')

    def clear(self):
        return self._callmethod('clear')

    def wait(self, timeout=None):
        return self._callmethod('wait', (timeout,))


class BarrierProxy(BaseProxy):
    _exposed_ = ('__getattribute__', 'wait', 'abort', 'reset')

    def wait(self, timeout=None):
        return self._callmethod('wait', (timeout,))

    def abort(self):
        return self._callmethod('abort')

    def reset(self):
        return self._callmethod('reset')

    @property
    def parties(self):
        return self._callmethod('__getattribute__', ('parties',))

    @property
    def n_waiting(self):
        return self._callmethod('__getattribute__', ('n_waiting',))

    @property
    def broken(self):
        return self._callmethod('__getattribute__', ('broken',))


class NamespaceProxy(BaseProxy):
    """Names that start with '_' are the proxy's own, all others the object's."""

    _exposed_ = ('__getattribute__', '__setattr__', '__delattr__')

    def __getattr__(self, key):
        if key[0] == '_':
            return object.__getattribute__(self, key)
        return object.__getattribute__(self, '_callmethod')('__getattribute__', (key,))

    def __setattr__(self, key, value):
        if key[0] == '_':
            return object.__setattr__(self, key, value)
        return object.__getattribute__(self, '_callmethod')('__setattr__', (key, value))

    def __delattr__(self, key):
        if key[0] == '_':
            return object.__delattr__(self, key)
        return object.__getattribute__(self, '_callmethod')('__delattr__', (key,))


class ValueProxy(BaseProxy):
    _exposed_ = ('get', 'set')

    def get(self):
        return self._callmethod('get')

    def set(self, value):
        return self._callmethod('set', (value,))

    value = property(get, set)

    __class_getitem__ = classmethod(types.GenericAlias)


def _in_place(method, remote=None):
    """An operator method that changes the object and returns the proxy."""
    def forward(self, value):
        self._callmethod(remote or method, (value,))
        return self
    forward.__name__ = forward.__qualname__ = method
    return forward


BaseListProxy = MakeProxyType('BaseListProxy', (
    '__add__', '__contains__', '__delitem__', '__getitem__', '__imul__', '__len__', '__mul__', '__reversed__',
    '__rmul__', '__setitem__', 'append', 'clear', 'copy', 'count', 'extend', 'index', 'insert', 'pop', 'remove',
    'reverse', 'sort'))


class ListProxy(BaseListProxy):
    __iadd__ = _in_place('__iadd__', 'extend')
    __imul__ = _in_place('__imul__')

    __class_getitem__ = classmethod(types.GenericAlias)


_BaseDictProxy = MakeProxyType('_BaseDictProxy', (
    '__contains__', '__delitem__', '__getitem__', '__ior__', '__iter__', '__len__', '__or__', '__reversed__',
    '__ror__', '__setitem__', 'clear', 'copy', 'fromkeys', 'get', 'items', 'keys', 'pop', 'popitem', 'setdefault',
    'update', 'values'))
_BaseDictProxy._method_to_typeid_ = {'__iter__': 'Iterator'}


class DictProxy(_BaseDictProxy):
    __ior__ = _in_place('__ior__')

    __class_getitem__ = classmethod(types.GenericAlias)


_BaseSetProxy = MakeProxyType('_BaseSetProxy', (
    '__and__', '__contains__', '__ge__', '__gt__', '__iand__', '__ior__', '__isub__', '__iter__', '__ixor__',
    '__le__', '__len__', '__lt__', '__or__', '__rand__', '__ror__', '__rsub__', '__rxor__', '__sub__', '__xor__',
    'add', 'clear', 'copy', 'difference', 'difference_update', 'discard', 'intersection', 'intersection_update',
    'isdisjoint', 'issubset', 'issuperset', 'pop', 'remove', 'symmetric_difference', 'symmetric_difference_update',
    'union', 'update'))


class SetProxy(_BaseSetProxy):
    __ior__ = _in_place('__ior__')
    __iand__ = _in_place('__iand__')
    __isub__ = _in_place('__isub__')
    __ixor__ = _in_place('__ixor__')

    __class_getitem__ = classmethod(types.GenericAlias)


collections.abc.MutableSequence.register(BaseListProxy)
collections.abc.MutableMapping.register(_BaseDictProxy)
collections.abc.MutableSet.register(_BaseSetProxy)


ArrayProxy = MakeProxyType('ArrayProxy', ('__len__', '__getitem__', '__setitem__'))


BasePoolProxy = MakeProxyType('PoolProxy', (
    'apply', 'apply_async', 'close', 'imap', 'imap_unordered', 'join', 'map', 'map_async', 'starmap', 'starmap_async',
    'terminate'))
BasePoolProxy._method_to_typeid_ = {
    'apply_async': 'AsyncResult',
    'map_async': 'AsyncResult',
    'starmap_async': 'AsyncResult',
    'imap': 'Iterator',
    'imap_unordered': 'Iterator',
}


class PoolProxy(BasePoolProxy):
    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_val, exc_tb):
        self.terminate()
