"""What the futures of a ProcessPoolExecutor raise besides what their calls raised."""

from concurrent.futures import _base
from traceback import format_exception

from multiprocessing.pool_outcomes import Failure, RemoteCallError, RemoteTraceback, exception_of

__all__ = ['BrokenProcessPool', 'CallUnreadableError', 'Loss', 'exception_raised_by', 'unreadable']


class BrokenProcessPool(_base.BrokenExecutor):
    """A worker ended without having been told to; the executor and all its calls end with it.

    The cause (`__cause__`) says which worker, how it ended and what it was running.
    """


class CallUnreadableError(RemoteCallError, BrokenProcessPool):
    """The call's arguments could not be unpickled in the worker, or its outcome not in this process.

    The standard library's executor breaks of that, so this is a BrokenProcessPool, too; ours goes on.
    """


class _RemoteTraceback(RemoteTraceback):
    """The worker's traceback as text."""


class _ExceptionWithTraceback:
    """Pickles as the exception `exc` with the text of its traceback as cause."""

    def __init__(self, exc, tb):
        self.exc = exc
        self.tb = '\n"""\n%s"""' % ''.join(format_exception(type(exc), exc, tb))
        self.exc.__traceback__ = None  # its frames hold everything the call had

    def __reduce__(self):
        return _rebuild_exc, (self.exc, self.tb)


def _rebuild_exc(exc, tb):
    exc.__cause__ = _RemoteTraceback(tb)
    return exc


# Programs, tracebacks and pickles know these by the public module's name.
for _known in (BrokenProcessPool, CallUnreadableError, _RemoteTraceback, _ExceptionWithTraceback, _rebuild_exc):
    _known.__module__ = 'concurrent.futures.process'
del _known


class Loss:
    """Why an executor is broken.  `make_cause` makes the exception behind it, a new one each time."""

    def __init__(self, text, make_cause):
        self.text = text
        self._make_cause = make_cause

    def broken(self):
        """What submit() says from now on."""
        return f'A child process terminated abruptly, the process pool is not usable anymore: {self.text}'

    def exception(self, cause=None):
        """What the future of an outstanding call raises."""
        error = BrokenProcessPool('A process in the process pool was terminated abruptly while the future was '
                                  f'running or pending: {self.text}')
        error.__cause__ = cause or self._make_cause()
        return error


def exception_raised_by(value):
    """The exception of a call that raised it: as the worker packed it."""
    try:
        error = exception_of(value)
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # of what unpickling runs, SystemExit is no reason to end here
        return unreadable(problem)
    if type(error) is RemoteCallError:
        return unreadable(error)
    return _with_own_traceback(error)


def unreadable(value):
    """The exception of a call that was lost in pickling: from what arrived, or what reading it raised."""
    error = value.exception() if isinstance(value, Failure) else value
    if isinstance(error, RemoteCallError):
        made = CallUnreadableError(*error.args)
        made.__cause__ = error.__cause__
    else:
        text = ''.join(format_exception(type(error), error, error.__traceback__))
        made = CallUnreadableError('call', type(error).__qualname__, str(error), text,
                                   'unpickling its outcome raised it')
        made.__cause__ = RemoteTraceback(f'\n"""\n{text}"""')
    return _with_own_traceback(made)


def _with_own_traceback(error):
    if type(error.__cause__) is RemoteTraceback:
        error.__cause__ = _RemoteTraceback(error.__cause__.tb)
    return error
