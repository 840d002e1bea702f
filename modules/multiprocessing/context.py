"""Contexts: a start method together with everything that is made for it.

`multiprocessing.X` is `_default_context.X`.  A concrete context (`get_context('spawn')`) has a fixed start
method; the default context stands for one of them, chosen once by set_start_method() or by first use.
"""

import os
import threading

from . import process

__all__ = ()

_METHODS = ('spawn', 'fork', 'forkserver')


class ProcessError(Exception):
    """Base of the exceptions of this package."""


class BufferTooShort(ProcessError):
    """Connection.recv_bytes_into() got a message longer than the buffer; args[0] is the message."""


class TimeoutError(ProcessError):
    """A wait with a timeout ended without a result."""


class AuthenticationError(ProcessError):
    """The two ends of a connection do not have the same authentication key."""


class BaseContext:
    """What every context offers: the package's public functions and factories, bound to one start method."""

    ProcessError = ProcessError
    BufferTooShort = BufferTooShort
    TimeoutError = TimeoutError
    AuthenticationError = AuthenticationError

    current_process = staticmethod(process.current_process)
    parent_process = staticmethod(process.parent_process)
    active_children = staticmethod(process.active_children)

    def cpu_count(self):
        """Number of processors of the machine."""
        count = os.cpu_count()
        if count is None:
            raise NotImplementedError('cannot determine number of cpus')
        return count

    def Manager(self):
        """A started SyncManager: its process holds objects that others use through proxies."""
        from .managers import SyncManager
        manager = SyncManager(ctx=self.get_context())
        manager.start()
        return manager

    def Pipe(self, duplex=True):
        """Two connected Connection objects."""
        from .connection import Pipe
        return Pipe(duplex)

    def Lock(self):
        """A non-recursive lock."""
        from .synchronize import Lock
        return Lock(ctx=self.get_context())

    def RLock(self):
        """A recursive lock."""
        from .synchronize import RLock
        return RLock(ctx=self.get_context())

    def Condition(self, lock=None):
        """A condition variable, with a lock of its own unless `lock` is given."""
        from .synchronize import Condition
        return Condition(lock, ctx=self.get_context())

    def Semaphore(self, value=1):
        """A semaphore with `value` permits."""
        from .synchronize import Semaphore
        return Semaphore(value, ctx=self.get_context())

    def BoundedSemaphore(self, value=1):
        """A semaphore that refuses to be released above `value`."""
        from .synchronize import BoundedSemaphore
        return BoundedSemaphore(value, ctx=self.get_context())

    def Event(self):
        """A flag that processes can set, clear and wait for."""
        from .synchronize import Event
        return Event(ctx=self.get_context())

    def Barrier(self, parties, action=None, timeout=None):
        """A barrier for `parties` participants."""
        from .synchronize import Barrier
        return Barrier(parties, action, timeout, ctx=self.get_context())

    def Queue(self, maxsize=0):
        """A queue of picklable objects."""
        from .queues import Queue
        return Queue(maxsize, ctx=self.get_context())

    def JoinableQueue(self, maxsize=0):
        """A queue that counts unfinished tasks: task_done() and join()."""
        from .queues import JoinableQueue
        return JoinableQueue(maxsize, ctx=self.get_context())

    def SimpleQueue(self):
        """A queue with get(), put() and empty() only."""
        from .queues import SimpleQueue
        return SimpleQueue(ctx=self.get_context())

    def Pool(self, processes=None, initializer=None, initargs=(),
             maxtasksperchild=None, **options):
        """A pool of worker processes; see help(multiprocessing.pool.Pool) for the options."""
        import _pyhost
        _pyhost.ensure_session()  # the fork server comes up while the modules are imported
        from .pool import Pool
        return Pool(processes, initializer, initargs, maxtasksperchild,
                    context=self.get_context(), **options)

    def RawValue(self, typecode_or_type, *args):
        """A ctypes object in shared memory, without a lock."""
        from .sharedctypes import RawValue
        return RawValue(typecode_or_type, *args)

    def RawArray(self, typecode_or_type, size_or_initializer):
        """A ctypes array in shared memory, without a lock."""
        from .sharedctypes import RawArray
        return RawArray(typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type, *args, lock=True):
        """A ctypes object in shared memory, with a lock unless `lock` is false."""
        from .sharedctypes import Value
        return Value(typecode_or_type, *args, lock=lock,
                     ctx=self.get_context())

    def Array(self, typecode_or_type, size_or_initializer, *, lock=True):
        """A ctypes array in shared memory, with a lock unless `lock` is false."""
        from .sharedctypes import Array
        return Array(typecode_or_type, size_or_initializer, lock=lock,
                     ctx=self.get_context())

    def freeze_support(self):
        """For frozen programs on systems without pyhost's own start of children; does nothing here."""

    def get_logger(self):
        """The package's logger, made with first use."""
        from .util import get_logger
        return get_logger()

    def log_to_stderr(self, level=None):
        """Sends the package's log records to stderr, here and in children started later."""
        from .util import log_to_stderr
        return log_to_stderr(level)

    def allow_connection_pickling(self):
        """Registers the reducers that let connections and sockets be passed to other processes."""
        from . import connection  # noqa: F401 (importing registers)

    def set_executable(self, executable):
        """The program that `spawn` starts instead of this one."""
        from .spawn import set_executable
        set_executable(executable)

    def set_forkserver_preload(self, module_names):
        """Modules that the fork server imports before its first fork."""
        from .forkserver import set_forkserver_preload
        set_forkserver_preload(module_names)

    def get_context(self, method=None):
        """The context of a start method; without one, this context."""
        if method is None:
            return self
        try:
            context = _concrete_contexts[method]
        except (KeyError, TypeError):
            raise ValueError(f'cannot find context for {method!r}') from None
        context._check_available()
        _note_choice()
        return context

    def get_start_method(self, allow_none=False):
        """The name of the start method."""
        return self._name

    def set_start_method(self, method, force=False):
        """Refused: this context stands for one start method."""
        raise ValueError('cannot set start method of concrete context')

    @property
    def reducer(self):
        """The module (or AbstractReducer) that turns objects into something other processes can rebuild."""
        return _reduction_module()

    @reducer.setter
    def reducer(self, reduction):
        globals()['reduction'] = reduction

    def _check_available(self):
        """Raises ValueError where the system lacks what the start method needs."""


class Process(process.BaseProcess):
    """A process started by the start method that the default context has at that time."""

    _start_method = None

    @staticmethod
    def _Popen(process_obj):
        return _default_context.get_context().Process._Popen(process_obj)

    @staticmethod
    def _after_fork():
        return _default_context.get_context().Process._after_fork()


class DefaultContext(BaseContext):
    """Stands for a concrete context: the one chosen by set_start_method(), else the default.

    `_chosen` tells the two apart: a program that asked for spawn itself gets python3's RuntimeError where the
    guard of its main module is missing, one that did not is helped (guard.py).
    """

    Process = Process

    def __init__(self, context):
        self._default_context = context
        self._actual_context = None
        self._chosen = False

    def get_context(self, method=None):
        """The context of `method`; without one, the context that this one stands for."""
        if method is None:
            if self._actual_context is None:
                self._actual_context = self._default_context
            return self._actual_context
        return super().get_context(method)

    def set_start_method(self, method, force=False):
        """Chooses the start method, once unless `force`; None with `force` takes the choice back."""
        if self._actual_context is not None and not force:
            if _ignore_repeated_choice():
                return
            raise RuntimeError('context has already been set')
        if method is None and force:
            self._actual_context = None
            self._chosen = False
            return
        self._actual_context = self.get_context(method)
        self._chosen = True

    def get_start_method(self, allow_none=False):
        """The start method's name; it is fixed by asking, unless `allow_none`."""
        if self._actual_context is None:
            if allow_none:
                return None
            self._actual_context = self._default_context
        return self._actual_context._name

    def get_all_start_methods(self):
        """Names of the start methods, the default first."""
        return list(_METHODS)


class ForkProcess(process.BaseProcess):
    """A process that starts as a copy of this one."""

    _start_method = 'fork'

    @staticmethod
    def _Popen(process_obj):
        from .popen_fork import Popen
        return Popen(process_obj)


class SpawnProcess(process.BaseProcess):
    """A process that starts from a pristine interpreter."""

    _start_method = 'spawn'

    @staticmethod
    def _Popen(process_obj):
        from .popen_spawn_posix import Popen
        return Popen(process_obj)

    @staticmethod
    def _after_fork():
        pass  # nothing of the parent's is there


class ForkServerProcess(process.BaseProcess):
    """A process forked from a server that has the preloaded modules."""

    _start_method = 'forkserver'

    @staticmethod
    def _Popen(process_obj):
        from .popen_forkserver import Popen
        return Popen(process_obj)


class ForkContext(BaseContext):
    """Start method fork."""

    _name = 'fork'
    Process = ForkProcess


class SpawnContext(BaseContext):
    """Start method spawn."""

    _name = 'spawn'
    Process = SpawnProcess


class ForkServerContext(BaseContext):
    """Start method forkserver."""

    _name = 'forkserver'
    Process = ForkServerProcess


_concrete_contexts = {
    'fork': ForkContext(),
    'spawn': SpawnContext(),
    'forkserver': ForkServerContext(),
}
_default_context = DefaultContext(_concrete_contexts['spawn'])


def _force_start_method(method):
    _default_context._actual_context = _concrete_contexts[method]


def _note_choice():
    """Tells the guard, if it is at work, that somebody named a start method."""
    if getattr(process.current_process(), '_inheriting', False):
        from . import guard
        guard.note_choice()


def _ignore_repeated_choice():
    """Whether a second set_start_method() comes from a main module that a child imports; see guard.py."""
    if not getattr(process.current_process(), '_inheriting', False):
        return False
    from . import guard
    return guard.repeated_choice()


# The popen that is pickling a process object on this thread: reducers ask it to pass descriptors and shared
# objects along.
_tls = threading.local()


def get_spawning_popen():
    """The popen that is starting a child on this thread, or None."""
    return getattr(_tls, 'spawning_popen', None)


def set_spawning_popen(popen):
    """Names the popen that is starting a child on this thread."""
    _tls.spawning_popen = popen


def assert_spawning(obj):
    """Raises RuntimeError unless a child is being started on this thread."""
    if get_spawning_popen() is None:
        raise RuntimeError(
            f'{type(obj).__name__} objects should only be shared between processes'
            ' through inheritance')


class MadeByContext:
    """Base of what the fork context makes, which goes to no process of another start method.

    As in python3, which has reasons of its own: programs and tests count on it.  A fork pickles nothing.
    """

    _is_of_fork = False  # a copy in another process is nobody's

    def _note_context(self, ctx):
        """Says which context made it; None: whatever that may be."""
        if getattr(ctx, '_name', None) == 'fork':
            self._is_of_fork = True

    def _check_child(self):
        """RuntimeError where it was made to be forked and is about to be passed to a process of another start method."""
        if self._is_of_fork and get_spawning_popen() is not None:
            raise RuntimeError(f'A SemLock created in a fork context is being shared with a process in a spawn context '
                               f'({type(self).__name__}). This is not supported. Please use the same context to create '
                               'multiprocessing objects and Process.')


def _reduction_module():
    """The current reducer: reduction.py, unless a program put another in its place."""
    found = globals().get('reduction')
    if found is not None:
        return found
    import importlib
    return globals().setdefault('reduction', importlib.import_module('.reduction', __package__))


def __getattr__(name):
    if name == 'reduction':
        return _reduction_module()
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
