"""Process objects: BaseProcess, the objects for this process and its parent, and the list of children.

State of a process object      `_popen`      `_closed`
  not started                  None          False
  started, perhaps ended       a Popen       False     Popen.returncode is None until the end was seen
  closed                       None          True

A process object belongs to the process that made it (`_parent_pid`): only there can it be started or joined.
The child gets a pickled copy (spawn, forkserver) or the object itself (fork) and calls `_bootstrap` on it.
"""

import itertools
import os
import sys
import threading
from _weakrefset import WeakSet

__all__ = ['BaseProcess', 'current_process', 'active_children',
           'parent_process']

try:
    ORIGINAL_DIR = os.path.abspath(os.getcwd())
except OSError:
    ORIGINAL_DIR = None


def current_process():
    """The object that stands for this process."""
    return _current_process


def parent_process():
    """The object that stands for the process that started this one; None in the main process."""
    return _parent_process


def active_children():
    """A list of the started children that have not ended."""
    _cleanup()
    return list(_children)


def _cleanup():
    """Forgets the children that have ended."""
    for child in list(_children):
        popen = child._popen
        if popen is not None and popen.poll() is not None:
            _children.discard(child)


def _sibling(name):
    """A module of this package, for functions that run in a child.

    An import statement would run Python code of importlib's each time, and each page that a forked child touches is copied.
    """
    name = f'multiprocessing.{name}'
    module = sys.modules.get(name)
    if module is None:
        import importlib
        module = importlib.import_module(name)
    return module


class BaseProcess:
    """An activity that runs in a process of its own, with the interface of threading.Thread.

    `target(*args, **kwargs)` is called by run(), which subclasses may override instead.  `daemon` processes
    end with their parent and may have no children.  Subclasses say in `_Popen` how to start one.
    """

    def _Popen(self):
        raise NotImplementedError

    def __init__(self, group=None, target=None, name=None, args=(), kwargs=None,
                 *, daemon=None):
        assert group is None, 'group argument must be None for now'
        count = next(_process_counter)
        self._identity = _current_process._identity + (count,)
        self._config = _current_process._config.copy()
        self._parent_pid = os.getpid()
        self._parent_name = _current_process.name
        self._popen = None
        self._closed = False
        self._target = target
        self._args = tuple(args)
        self._kwargs = dict(kwargs) if kwargs else {}
        self._name = name or '%s-%s' % (
            type(self).__name__, ':'.join(map(str, self._identity)))
        if daemon is not None:
            self.daemon = daemon
        _dangling.add(self)

    def _check_closed(self):
        if self._closed:
            raise ValueError("process object is closed")

    def run(self):
        """What the child does; may be overridden."""
        if self._target:
            self._target(*self._args, **self._kwargs)

    def start(self):
        """Starts the child.  Raises what pickling raises, with the way to the object, and OSError at limits."""
        self._check_closed()
        assert self._popen is None, 'cannot start a process twice'
        assert self._parent_pid == os.getpid(), \
            'can only start a process object created by current process'
        assert not _current_process._config.get('daemon'), \
            'daemonic processes are not allowed to have children'
        _cleanup()
        self._popen = self._Popen(self)
        self._sentinel = self._popen.sentinel
        # The child has them; kept here they could keep this object itself alive in a cycle.
        del self._target, self._args, self._kwargs
        _children.add(self)

    def interrupt(self):
        """Sends SIGINT: KeyboardInterrupt in the child, unless it handles the signal."""
        self._check_closed()
        self._popen.interrupt()

    def terminate(self):
        """Sends SIGTERM."""
        self._check_closed()
        self._popen.terminate()

    def kill(self):
        """Sends SIGKILL."""
        self._check_closed()
        self._popen.kill()

    def join(self, timeout=None):
        """Waits for the end, at most `timeout` seconds if given (zero and less: does not wait)."""
        self._check_closed()
        assert self._parent_pid == os.getpid(), 'can only join a child process'
        assert self._popen is not None, 'can only join a started process'
        if self._popen.wait(timeout) is not None:
            _children.discard(self)

    def is_alive(self):
        """Whether the process has been started and has not ended."""
        self._check_closed()
        if self is _current_process:
            return True
        assert self._parent_pid == os.getpid(), 'can only test a child process'
        if self._popen is None:
            return False
        if self._popen.poll() is None:
            return True
        _children.discard(self)
        return False

    def close(self):
        """Gives back what the object holds; ValueError while the process runs."""
        if self._popen is not None:
            if self._popen.poll() is None:
                raise ValueError("Cannot close a process while it is still running. "
                                 "You should first call join() or terminate().")
            self._popen.close()
            self._popen = None
            del self._sentinel
            _children.discard(self)
        self._closed = True

    @property
    def name(self):
        """A name for people; it has no meaning to the package."""
        return self._name

    @name.setter
    def name(self, name):
        assert isinstance(name, str), 'name must be a string'
        self._name = name

    @property
    def daemon(self):
        """Whether the process ends with its parent; set before the start, inherited from the parent."""
        return self._config.get('daemon', False)

    @daemon.setter
    def daemon(self, daemonic):
        assert self._popen is None, 'process has already started'
        self._config['daemon'] = daemonic

    @property
    def authkey(self):
        """The key that connections to and from this process prove that they know."""
        return self._config['authkey']

    @authkey.setter
    def authkey(self, authkey):
        self._config['authkey'] = AuthenticationString(authkey)

    @property
    def exitcode(self):
        """None before the end; then the exit code, or minus the signal that killed the process."""
        self._check_closed()
        if self._popen is None:
            return None
        return self._popen.poll()

    @property
    def ident(self):
        """The process id, or None before the start."""
        self._check_closed()
        if self is _current_process:
            return os.getpid()
        return self._popen and self._popen.pid

    pid = ident

    @property
    def sentinel(self):
        """A descriptor that becomes readable when the process ends (connection.wait, select)."""
        self._check_closed()
        try:
            return self._sentinel
        except AttributeError:
            raise ValueError("process not started") from None

    def _status(self):
        """A word for the state, and the exit code if there is one."""
        if self is _current_process:
            return 'started', None
        if self._closed:
            return 'closed', None
        if self._parent_pid != os.getpid():
            return 'unknown', None
        if self._popen is None:
            return 'initial', None
        code = self._popen.poll()
        return ('started' if code is None else 'stopped'), code

    def __repr__(self):
        status, code = self._status()
        words = [type(self).__name__, f'name={self._name!r}']
        if self._popen is not None:
            words.append(f'pid={self._popen.pid}')
        words += [f'parent={self._parent_pid}', status]
        if code is not None:
            words.append(f'exitcode={_exit_names().get(code, code)}')
        if self.daemon:
            words.append('daemon')
        if code and self._exit_reason() not in ('', f'exited with code {code}'):
            words.append(f'({self._exit_reason()})')
        return '<%s>' % ' '.join(words)

    def _exit_reason(self):
        """How the process ended, in words; '' where the popen cannot tell (third parties')."""
        reason = getattr(self._popen, 'exit_reason', None)
        return reason() if reason is not None else ''

    def _bootstrap(self, parent_sentinel=None):
        """The child's life, from a set-up interpreter to an exit code."""
        util = _sibling('util')
        try:
            self._become_current(parent_sentinel)
            util.info('child process calling self.run()')
            try:
                self.run()
                code = 0
            finally:
                util._exit_function()
        except SystemExit as end:
            code = _code_of(end)
        except KeyboardInterrupt:
            # Ctrl-C reaches every process of the terminal; the main process is the one to speak.
            code = 1
            util.info('interrupted by the keyboard')
        except:  # noqa: E722 (nothing may pass: the caller needs a code)
            code = 1
            import traceback
            sys.stderr.write(f'Process {self.name}:\n')
            traceback.print_exc()
        finally:
            threading._shutdown()
            util.info('process exiting with exitcode %d', code)
            util._flush_std_streams()
        return code

    def _become_current(self, parent_sentinel):
        """Makes this object the current process of a child that has just been started."""
        global _current_process, _parent_process, _process_counter, _children
        if self._start_method is not None:
            _sibling('context')._force_start_method(self._start_method)
        _process_counter = itertools.count(1)
        _children = set()
        _sibling('util')._close_stdin()
        # Kept until the after-fork functions have run: ending it earlier would run finalizers of the parent's.
        old_process = _current_process
        _current_process = self
        _parent_process = _ParentProcess(
            self._parent_name, self._parent_pid, parent_sentinel)
        if threading._HAVE_THREAD_NATIVE_ID:
            threading.main_thread()._set_native_id()
        try:
            self._after_fork()
        finally:
            del old_process
        _sibling('_output').install(self)
        channel = self._config.get('pyhost_log_channel')
        if channel is not None:
            channel.install()

    @staticmethod
    def _after_fork():
        util = _sibling('util')
        util._finalizer_registry.clear()
        util._run_after_forkers()


def _code_of(end):
    """The exit code that a SystemExit asks for; a text goes to stderr, as at the end of a program."""
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code
    sys.stderr.write(f'{end.code}\n')
    return 1


class AuthenticationString(bytes):
    """An authentication key: it can be pickled for a child that is being started, and for nobody else."""

    def __reduce__(self):
        from .context import get_spawning_popen
        if get_spawning_popen() is None:
            raise TypeError(
                'Pickling an AuthenticationString object is '
                'disallowed for security reasons')
        return AuthenticationString, (bytes(self),)


class _ParentProcess(BaseProcess):
    """The parent, seen from its child.  `_sentinel` becomes readable when the parent has ended."""

    def __init__(self, name, pid, sentinel):
        self._identity = ()
        self._name = name
        self._pid = pid
        self._parent_pid = None
        self._popen = None
        self._closed = False
        self._sentinel = sentinel
        self._config = {}

    def is_alive(self):
        """Whether the parent lives."""
        from .connection import wait
        return not wait([self._sentinel], timeout=0)

    @property
    def ident(self):
        """The parent's process id."""
        return self._pid

    def join(self, timeout=None):
        """Waits until the parent has ended, at most `timeout` seconds if given."""
        from .connection import wait
        wait([self._sentinel], timeout=timeout)

    pid = ident


class _MainProcess(BaseProcess):
    """The process that nobody of this package started."""

    def __init__(self):
        self._identity = ()
        self._name = 'MainProcess'
        self._parent_pid = None
        self._popen = None
        self._closed = False
        # Inherited by every descendant.
        self._config = {'authkey': AuthenticationString(os.urandom(32)),
                        'semprefix': '/mp'}

    def close(self):
        """Does nothing: the main process cannot be given back."""


_parent_process = None
_current_process = _MainProcess()
_process_counter = itertools.count(1)
_children = set()
del _MainProcess

# Every process object that is still referenced; tests look here for forgotten ones.
_dangling = WeakSet()


def _exit_names():
    """{-9: '-SIGKILL', ...}; made with first use, as `signal` is slow to import."""
    try:
        return globals()['_exitcode_to_name']
    except KeyError:
        import signal
        names = {-number: f'-{name}' for name, number in vars(signal).items()
                 if name[:3] == 'SIG' and '_' not in name}
        return globals().setdefault('_exitcode_to_name', names)


def __getattr__(name):
    if name == '_exitcode_to_name':
        return _exit_names()
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
