"""What the rest of the package, and third parties, share: logging, finalizers, exit, fork-aware types.

Importing this module registers `_exit_function` with atexit: at exit daemons are terminated and the other
children joined.  threading is imported first, so that its own exit function runs after ours.
"""

import atexit
import itertools
import os
import sys
import threading
import weakref

from . import process

__all__ = [
    'sub_debug', 'debug', 'info', 'sub_warning', 'warn', 'get_logger',
    'log_to_stderr', 'get_temp_dir', 'register_after_fork',
    'is_exiting', 'Finalize', 'ForkAwareThreadLock', 'ForkAwareLocal',
    'close_all_fds_except', 'SUBDEBUG', 'SUBWARNING',
]

# ---- Logging -------------------------------------------------------------------------------------------------

NOTSET = 0
SUBDEBUG = 5
DEBUG = 10
INFO = 20
SUBWARNING = 25
WARNING = 30

LOGGER_NAME = 'multiprocessing'
DEFAULT_LOGGING_FORMAT = '[%(levelname)s/%(processName)s] %(message)s'

_logger = None
_log_to_stderr = False


def sub_debug(msg, *args):
    """Logs below DEBUG: details of finalizers."""
    if _logger:
        _logger.log(SUBDEBUG, msg, *args, stacklevel=2)


def debug(msg, *args):
    """Logs at DEBUG, if anybody asked for the logger."""
    if _logger:
        _logger.log(DEBUG, msg, *args, stacklevel=2)


def info(msg, *args):
    """Logs at INFO, if anybody asked for the logger."""
    if _logger:
        _logger.log(INFO, msg, *args, stacklevel=2)


def warn(msg, *args):
    """Logs at WARNING, if anybody asked for the logger."""
    if _logger:
        _logger.log(WARNING, msg, *args, stacklevel=2)


def sub_warning(msg, *args):
    """Logs a little below WARNING."""
    if _logger:
        _logger.log(SUBWARNING, msg, *args, stacklevel=2)


def get_logger():
    """The package's logger.  It has no handler and does not propagate until somebody says so."""
    global _logger
    import logging
    with logging._lock:
        if not _logger:
            _logger = logging.getLogger(LOGGER_NAME)
            _logger.propagate = 0
            # What runs at exit logs, so it must run before logging's own exit function.
            atexit.unregister(_exit_function)
            atexit.register(_exit_function)
    return _logger


def log_to_stderr(level=None):
    """The package's logger, with a handler that writes to stderr."""
    global _log_to_stderr
    import logging
    logger = get_logger()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(DEFAULT_LOGGING_FORMAT))
    logger.addHandler(handler)
    if level:
        logger.setLevel(level)
    _log_to_stderr = True
    return _logger


# ---- Abstract sockets ----------------------------------------------------------------------------------------

def _platform_supports_abstract_sockets():
    return sys.platform in ('linux', 'android') or hasattr(sys, 'getandroidapilevel')


def is_abstract_socket_namespace(address):
    """Whether `address` names a socket that has no file."""
    if not address:
        return False
    if isinstance(address, bytes):
        return address[0] == 0
    if isinstance(address, str):
        return address[0] == '\0'
    raise TypeError(f'address type of {address!r} unrecognized')


abstract_sockets_supported = _platform_supports_abstract_sockets()

# ---- A temporary folder --------------------------------------------------------------------------------------


# Longest path of a socket, its final NUL included (sun_path of sockaddr_un).
_SUN_PATH_MAX = 108


def _get_base_temp_dir(tempfile):
    """Where get_temp_dir() puts its folder: tempfile's choice, unless sockets in it would have too long a path."""
    base = tempfile.gettempdir()
    names = len('/pymp-xxxxxxxx/sock-xxxxxxxx')
    if len(base) + names < _SUN_PATH_MAX:
        return base
    fallbacks = ('/tmp', '/var/tmp', '/usr/tmp')
    for short in fallbacks:
        if os.access(short, os.W_OK | os.X_OK):
            break
    else:
        warn('temporary directory %s is too long a path for sockets, and none of %s is usable',
             base, fallbacks)
        return base
    warn('Ignoring user-defined temporary directory: %s', base)
    return short


def _remove_temp_dir(rmtree, tempdir):
    # Another process of ours may be removing it at the same time.
    rmtree(tempdir, ignore_errors=True)
    current = process.current_process()
    if current is not None:  # None late in the interpreter's end
        current._config['tempdir'] = None


def get_temp_dir():
    """A folder that is removed when the process that asked first ends; its children share it."""
    config = process.current_process()._config
    tempdir = config.get('tempdir')
    if tempdir is None:
        import shutil
        import tempfile
        tempdir = tempfile.mkdtemp(
            prefix='pymp-', dir=_get_base_temp_dir(tempfile))
        info('created temp directory %s', tempdir)
        # rmtree is bound now: at the interpreter's end shutil may be gone.
        Finalize(None, _remove_temp_dir, args=(shutil.rmtree, tempdir),
                 exitpriority=-100)
        config['tempdir'] = tempdir
    return tempdir


# ---- After a fork --------------------------------------------------------------------------------------------

_afterfork_registry = weakref.WeakValueDictionary()
_afterfork_counter = itertools.count()


def _run_after_forkers():
    if not len(_afterfork_registry):
        return
    for (_index, _ident, func), obj in sorted(_afterfork_registry.items(),
                                              key=lambda item: item[0][:2]):
        try:
            func(obj)
        except Exception as error:
            info('after forker raised exception %s', error)


def register_after_fork(obj, func):
    """Calls func(obj) in children that begin as a copy of this process, while `obj` lives."""
    _afterfork_registry[(next(_afterfork_counter), id(obj), func)] = obj


# ---- Finalizers ----------------------------------------------------------------------------------------------

_finalizer_registry = {}
_finalizer_counter = itertools.count()


class Finalize:
    """Calls `callback(*args, **kwargs)` once: when `obj` dies, when called, or at exit if it has a priority.

    Belongs to the process that made it: in a forked child it does nothing.
    """

    def __init__(self, obj, callback, args=(), kwargs=None, exitpriority=None):
        if exitpriority is not None and not isinstance(exitpriority, int):
            raise TypeError(
                f'Exitpriority ({exitpriority!r}) must be None or int, '
                f'not {type(exitpriority)!s}')
        if obj is not None:
            self._weakref = weakref.ref(obj, self)
        elif exitpriority is None:
            raise ValueError('Without object, exitpriority cannot be None')
        self._callback = callback
        self._args = args
        self._kwargs = kwargs or {}
        self._key = (exitpriority, next(_finalizer_counter))
        self._pid = os.getpid()
        _finalizer_registry[self._key] = self

    def __call__(self, wr=None,
                 # Bound here because the module's globals may be gone when the interpreter ends.
                 _finalizer_registry=_finalizer_registry,
                 sub_debug=sub_debug, getpid=os.getpid):
        """Runs the callback, unless that was done or cancelled before; returns what it returns."""
        try:
            del _finalizer_registry[self._key]
        except KeyError:
            sub_debug('finalizer no longer registered')
            return None
        if self._pid != getpid():
            sub_debug('finalizer ignored because different process')
            result = None
        else:
            sub_debug('finalizer calling %s with args %s and kwargs %s',
                      self._callback, self._args, self._kwargs)
            result = self._callback(*self._args, **self._kwargs)
        self._forget()
        return result

    def _forget(self):
        self._weakref = self._callback = self._args = None
        self._kwargs = self._key = None

    def cancel(self):
        """Never runs the callback."""
        if _finalizer_registry.pop(self._key, None) is not None:
            self._forget()

    def still_active(self):
        """Whether the callback has neither been run nor been cancelled."""
        return self._key in _finalizer_registry

    def __repr__(self):
        try:
            obj = self._weakref()
        except (AttributeError, TypeError):
            obj = None
        name = type(self).__name__
        if obj is None:
            return f'<{name} object, dead>'
        words = ['%s object' % name,
                 'callback=%s' % getattr(self._callback, '__name__', self._callback)]
        if self._args:
            words.append(f'args={self._args}')
        if self._kwargs:
            words.append(f'kwargs={self._kwargs}')
        if self._key[0] is not None:
            words.append(f'exitpriority={self._key[0]}')
        return '<%s>' % ', '.join(words)


def _run_finalizers(minpriority=None):
    """Runs the finalizers that have a priority (of at least `minpriority`), highest and youngest first."""
    if _finalizer_registry is None:
        return  # the interpreter is ending and has cleared this module

    # The registry changes under our hands: through a callback, the garbage collector, or another thread.
    # list(dict) is atomic.
    keys = [key for key in list(_finalizer_registry)
            if key[0] is not None
            and (minpriority is None or key[0] >= minpriority)]
    keys.sort(reverse=True)
    for key in keys:
        finalizer = _finalizer_registry.get(key)
        if finalizer is None:
            continue
        sub_debug('calling %s', finalizer)
        try:
            finalizer()
        except Exception:
            import traceback
            traceback.print_exc()
    if minpriority is None:
        _finalizer_registry.clear()


# ---- Exit ----------------------------------------------------------------------------------------------------

_exiting = False


def is_exiting():
    """Whether this process is on its way out."""
    return _exiting or _exiting is None


def _exit_function(info=info, debug=debug, _run_finalizers=_run_finalizers,
                   active_children=process.active_children, getpid=os.getpid,
                   current_process=process.current_process):
    # The functions are bound as defaults because the interpreter may have cleared this module's globals.
    global _exiting
    if _exiting:
        return
    _exiting = True
    info('process shutting down')
    debug('running all "atexit" finalizers with priority >= 0')
    _run_finalizers(0)
    # No current process: somebody replaced sys.modules and the process module is gone.
    if current_process() is not None:
        # Not those of a parent, which a forked child knows until it has become a process of its own.
        own = [child for child in active_children() if child._parent_pid == getpid()]
        for child in own:
            if child.daemon:
                info('calling terminate() for daemon %s', child.name)
                child._popen.terminate()
        for child in own:
            info('calling join() for process %s', child.name)
            child.join()
    debug('running the remaining "atexit" finalizers')
    _run_finalizers()


atexit.register(_exit_function)

# ---- Fork-aware types ----------------------------------------------------------------------------------------


class ForkAwareThreadLock:
    """A threading.Lock that is free in a forked child, whoever held it in the parent."""

    def __init__(self):
        self._lock = threading.Lock()
        self.acquire = self._lock.acquire
        self.release = self._lock.release
        register_after_fork(self, ForkAwareThreadLock._at_fork_reinit)

    def _at_fork_reinit(self):
        self._lock._at_fork_reinit()

    def __enter__(self):
        return self._lock.__enter__()

    def __exit__(self, *args):
        return self._lock.__exit__(*args)


class ForkAwareLocal(threading.local):
    """A threading.local that is empty in a forked child."""

    def __init__(self):
        register_after_fork(self, lambda obj: obj.__dict__.clear())

    def __reduce__(self):
        return type(self), ()


# ---- Descriptors and streams ---------------------------------------------------------------------------------

try:
    MAXFD = os.sysconf('SC_OPEN_MAX')
except (AttributeError, ValueError, OSError):
    MAXFD = 256


def close_all_fds_except(fds):
    """Closes every descriptor of this process that is not in `fds`."""
    fds = sorted([*fds, -1, MAXFD])
    assert fds[-1] == MAXFD, 'fd too large'
    for low, high in zip(fds, fds[1:]):
        os.closerange(low + 1, high)


def identity_of_descriptor(fd):
    """What makes a descriptor recognizable, whoever has its number; None if it is closed."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def close_fds(*fds):
    """Closes each of `fds`."""
    for fd in fds:
        os.close(fd)


def _close_stdin():
    """Closes sys.stdin and puts /dev/null in its place: a child must not read what its parent is to read."""
    if sys.stdin is None:
        return
    try:
        sys.stdin.close()
    except (OSError, ValueError):
        pass
    try:
        fd = os.open(os.devnull, os.O_RDONLY)
        try:
            sys.stdin = open(fd, encoding='utf-8', closefd=False)
        except:
            os.close(fd)
            raise
    except (OSError, ValueError):
        pass


def _flush_std_streams():
    """Flushes stdout and stderr, where they are there and open."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError):
            pass


def spawnv_passfds(path, args, passfds):
    """Starts the program `path`; it inherits only descriptors 0 to 2 and `passfds`.  Returns its pid."""
    import _posixsubprocess
    import subprocess
    passfds = tuple(sorted(map(int, passfds)))
    error_read, error_write = os.pipe()
    try:
        arguments = [args, [path], True, passfds, None, None,
                     -1, -1, -1, -1, -1, -1, error_read, error_write,
                     False, False, -1, None, None, None, -1, None]
        if sys.version_info < (3, 14):
            arguments.append(subprocess._USE_VFORK)
        return _posixsubprocess.fork_exec(*arguments)
    finally:
        os.close(error_read)
        os.close(error_write)


def _cleanup_tests():
    """For CPython's test suites: ends every helper process and removes the temporary folder."""
    from test import support

    from . import forkserver, resource_tracker
    process._cleanup()
    forkserver._forkserver._stop()
    resource_tracker._resource_tracker._stop()
    _run_finalizers()
    support.gc_collect()
    support.reap_children()


def __getattr__(name):
    if name == '_args_from_interpreter_flags':  # subprocess is slow to import
        from subprocess import _args_from_interpreter_flags
        return _args_from_interpreter_flags
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
