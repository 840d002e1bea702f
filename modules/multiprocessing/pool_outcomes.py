"""What can come out of a pool's call besides a result, and how it crosses from worker to caller.

The native loop of the worker packs what went wrong with pack_exception() and pack_unpicklable_result(); the
caller's side makes a Failure of it with the other functions here (see modules/native/call_outcome.h).  A
Failure makes a new exception for each that asks, so that nobody's traceback grows on another's.
"""

import _pickle as pickle  # the module `pickle` brings re and enum

from .context import ProcessError, TimeoutError as _TimeoutError

__all__ = ['CallCancelledError', 'CallTimeoutError', 'MaybeEncodingError', 'RemoteCallError', 'WorkerLostError', 'PoolFailedError',
           'RemoteTraceback', 'ExceptionWithTraceback']


class RemoteTraceback(Exception):
    """The worker's traceback as text; the cause of the exception that a call raises in its caller."""

    def __init__(self, tb):
        self.tb = tb

    def __str__(self):
        return self.tb


class ExceptionWithTraceback:
    """Pickles as the exception `exc` with the text of its traceback as cause."""

    def __init__(self, exc, tb):
        self.exc = exc
        self.tb = _quote(_format(exc, tb))

    def __reduce__(self):
        return rebuild_exc, (self.exc, self.tb)


def rebuild_exc(exc, tb):
    """Gives an unpickled exception its remote traceback."""
    exc.__cause__ = RemoteTraceback(tb)
    return exc


class MaybeEncodingError(Exception):
    """A call's result could not be pickled.  `exc` says why and `value` what it was, both as text."""

    def __init__(self, exc, value):
        self.exc = exc if type(exc) is str else repr(exc)
        self.value = value if type(value) is str else _repr(value)
        super().__init__(self.exc, self.value)

    def __str__(self):
        return f"Error sending result: '{self.value}'. Reason: '{self.exc}'"

    def __repr__(self):
        return f'<{type(self).__name__}: {self}>'


class RemoteCallError(MaybeEncodingError):
    """A call raised an exception, or gave a result, that could not be brought into this process.

    type_name, message and traceback are those of the exception in the worker (the traceback as text); `exc`
    says what went wrong on the way.
    """

    def __init__(self, function, type_name, message, traceback, reason):
        super().__init__(reason, message)
        self.args = (function, type_name, message, traceback, reason)
        self.function = function
        self.type_name = type_name
        self.message = message
        self.traceback = traceback

    def __str__(self):
        return f'{self.function}: {self.type_name}: {self.message} ({self.exc})'


class WorkerLostError(ProcessError):
    """The worker that ran the call ended before it had answered.

    pid, exitcode (minus the signal, as Process.exitcode; None if unknown), the function's name and the stacks that the
    worker wrote when it died of a fault (text, '' for none) are attributes.
    """

    def __init__(self, message, pid=None, exitcode=None, function=None, stack=''):
        super().__init__(message, pid, exitcode, function, stack)
        self.pid = pid
        self.exitcode = exitcode
        self.function = function
        self.stack = stack

    def __str__(self):
        return self.args[0]


class CallTimeoutError(_TimeoutError, TimeoutError):
    """The call ran longer than its `timeout`; its worker was ended, and replaced.

    pid, the function's name, the limit in seconds and the worker's stacks at its end (text; '' if it could not write them)
    are attributes.
    """

    def __init__(self, message, pid=None, function=None, limit=None, stack=''):
        super().__init__(message)
        self.args = message, pid, function, limit, stack  # OSError would take them for others
        self.pid = pid
        self.function = function
        self.limit = limit
        self.stack = stack

    def __str__(self):
        return self.args[0]


class CallCancelledError(ProcessError):
    """The call was cancelled (AsyncResult.cancel)."""


class PoolFailedError(ProcessError):
    """The call has no outcome because its pool was terminated, or could not keep its workers alive."""


# ---- In the worker -----------------------------------------------------------------------------------------


def pack_exception(exc):
    """The bytes that carry an exception: its text always, the exception itself if it can be pickled."""
    from .context import reduction
    try:
        pickled = bytes(reduction.ForkingPickler.dumps(exc))
        reason = None
    except Exception as error:
        pickled = None
        reason = f'it cannot be pickled: {error}'
    return pickle.dumps((type(exc).__qualname__, _str(exc), _format(exc, exc.__traceback__), pickled, reason))


def pack_unpicklable_result(error, value):
    """The bytes that carry what pickling the result raised."""
    from . import pickle_errors
    explained = pickle_errors.explain(error, value, name='result')
    unsent = MaybeEncodingError(explained, value)
    unsent.__cause__ = explained
    return pack_exception(unsent)


def pack_unsendable_result(error, value):
    """The same for an executor: the exception keeps its type."""
    from . import pickle_errors
    return pack_exception(pickle_errors.explain(error, value, name='result'))


def pack_unread_call(exc):
    """The bytes that carry what unpickling a call raised."""
    from . import pickle_errors
    pickle_errors.note_not_found(exc)
    return pack_exception(exc)


def pack_unreadable_call(exc):
    """The same for an executor: the exception's type is told, not kept."""
    from . import pickle_errors
    pickle_errors.note_not_found(exc)
    return pickle.dumps((type(exc).__qualname__, _str(exc), _format(exc, exc.__traceback__), None,
                         'unpickling the call in the worker raised it'))


def exit_code(exc):
    """The exit code of a worker that ends by `exc`, as Process.exitcode."""
    if isinstance(exc, KeyboardInterrupt):
        return -2
    if isinstance(exc, SystemExit):
        return 0 if exc.code is None else exc.code & 0xff if isinstance(exc.code, int) else 1
    return 1


# ---- In the caller -----------------------------------------------------------------------------------------


class Failure:
    """An outcome to raise: exception() makes the exception, a new one each time."""

    __slots__ = ('_make',)

    def __init__(self, make):
        self._make = make

    def exception(self):
        """A new exception."""
        return self._make()


def exception_of(value):
    """The exception to raise for the value of an outcome that is no success."""
    return value.exception() if isinstance(value, Failure) else value


def unpack_exception(function, data):
    """The failure that pack_exception() packed."""
    return Failure(lambda: _rebuild(_name(function), *pickle.loads(data)))


def _rebuild(function, type_name, message, text, pickled, reason):
    if pickled is not None:
        try:
            exc = pickle.loads(pickled)
            if not isinstance(exc, BaseException):
                raise TypeError(f'it became {exc!r}')
        except Exception as error:
            reason = f'it cannot be unpickled: {type(error).__name__}: {error}'
        else:
            return rebuild_exc(exc, _quote(text))
    return rebuild_exc(RemoteCallError(function, type_name, message, text, reason), _quote(text))


def unreadable_result(function, error):
    """The failure of a call whose result could not be unpickled."""
    name = _name(function)
    text = _format(error, error.__traceback__)
    type_name, message = type(error).__qualname__, _str(error)
    return Failure(lambda: rebuild_exc(
        RemoteCallError(name, type_name, message, text, 'unpickling the result raised it'), _quote(text)))


_APPLY, _ONE, _STAR = 1, 2, 3  # of CallKind in runtime/broker/call_frame.h


def unpicklable_call(error, function, kind, arguments, first):
    """The exception of a call that cannot be submitted because pickling it raised `error`.

    `first` is the place of its first item in what its caller maps over.
    """
    from . import pickle_errors
    return pickle_errors.explain(error, None, parts=[('function', function), *_parts_of_call(kind, arguments, first)])


def _parts_of_call(kind, arguments, first):
    """[(name, object)] of what a call's caller gave, as he knows it; arguments None: it did not come to them."""
    if arguments is None:
        return []
    if kind == _APPLY:
        return [('args', arguments[0]), ('kwds', arguments[1])]
    if kind in (_ONE, _STAR):
        return [(f'items[{first}]', arguments)]
    if isinstance(arguments, (list, tuple)):
        return [(f'items[{first + i}]', item) for i, item in enumerate(arguments)]
    return [(f'items[{first}:{first + len(arguments)}]', arguments)]


def describe_report(data):
    """What a worker said that could not begin, in one line."""
    type_name, message = pickle.loads(data)[:2]
    return f'{type_name}: {message}'


def lost_call(function, pid, host, exitcode, end, faults):
    """The failure of a call whose worker ended; `end` says how in words, `faults` has the workers' FaultLogs by pid."""
    name = _name(function)
    message = f'worker with pid {pid} ({host}) {end} while it ran {name}'
    log = faults.get(pid)
    stack = log.text() if log is not None else ''
    return Failure(lambda: _with_stack(WorkerLostError(message, pid, exitcode, name, stack), stack))


def pack_verdict(kind, worker, pid, limit, stack):
    """The bytes that carry why a running call was ended; see unpack_verdict()."""
    return pickle.dumps((kind, worker, pid, limit, stack))


CANCELLED = pack_verdict('cancelled', None, None, None, '')  # of a call that no worker had taken


def unpack_verdict(function, data):
    """The failure of a call that its caller has ended."""
    kind, worker, pid, limit, stack = pickle.loads(data)
    name = _name(function)
    if kind == 'cancelled':
        where = f' while {worker} (pid {pid}) ran it' if worker else ' before it was run'
        return Failure(lambda: CallCancelledError(f'{name} was cancelled{where}'))
    message = f'{name} took longer than {limit:g} seconds; {worker} (pid {pid}), which ran it, was ended'
    return Failure(lambda: _with_stack(CallTimeoutError(message, pid, name, limit, stack), stack))


def _with_stack(error, stack):
    if stack:
        error.__cause__ = RemoteTraceback(_quote(stack))
    return error


def call_without_outcome(function, message, lost):
    """The failure of a call that nobody answered, for the reason in `message`."""
    name = _name(function)
    if lost:
        return Failure(lambda: WorkerLostError(f'{message} while it ran {name}', function=name))
    return Failure(lambda: PoolFailedError(f'{name}: {message}'))


# ---- Names ------------------------------------------------------------------------------------------------

# Programs and pickles know these as the standard library does.
for _public in (CallCancelledError, CallTimeoutError, RemoteTraceback, ExceptionWithTraceback, MaybeEncodingError, RemoteCallError, WorkerLostError,
                PoolFailedError, rebuild_exc):
    _public.__module__ = 'multiprocessing.pool'
del _public

# ---- Texts -------------------------------------------------------------------------------------------------


def _name(function):
    return function if isinstance(function, str) else getattr(function, '__qualname__', repr(function))


def _format(exc, tb):
    import traceback  # slow to import, and few calls raise
    return ''.join(traceback.format_exception(type(exc), exc, tb))


def _quote(text):
    return f'\n"""\n{text}"""'


def _str(obj):
    try:
        return str(obj)
    except Exception as error:
        return f'<{type(obj).__name__} whose text raises {type(error).__name__}>'


def _repr(obj):
    try:
        return repr(obj)
    except Exception as error:
        return f'<{type(obj).__name__} whose repr raises {type(error).__name__}>'
