"""Popen of the fork method, and the base of the other two: a child process, seen from its parent.

`_child` is a _pyhost.Child: the native side reaps the process and keeps its exit in the session's host table.
`returncode` is None until poll() or wait() has seen the end; then the exit code, or minus the signal.
"""

import atexit
import fcntl
import os
import sys
import threading

import _signal  # `signal` makes enumerations of all that it returns, in Python

from . import process, random_state, util

__all__ = ['Popen']


class Popen:
    """Starts `process_obj`'s child when made."""

    method = 'fork'

    def __init__(self, process_obj):
        util._flush_std_streams()
        self.returncode = None
        self.finalizer = None
        self._name = process_obj._name
        self._launch(process_obj)

    def duplicate_for_child(self, fd):
        """The number that the descriptor has in the child."""
        return fd

    def poll(self, flag=os.WNOHANG):
        """The return code, or None while the child lives; waits for it if `flag` is 0."""
        if self.returncode is None:
            self._note_end(self._child.poll() if flag else self._child.wait(None))
        return self.returncode

    def wait(self, timeout=None):
        """The return code; None if the child still lives after `timeout` seconds."""
        if self.returncode is None:
            if timeout is not None and timeout <= 0:
                return self.poll()
            self._note_end(self._child.wait(timeout))
        return self.returncode

    def _note_end(self, code):
        if code is None or self.returncode is not None:
            return
        self.returncode = code
        if util._logger:
            util.info('process %s (pid %d) ended: %s', self._name, self.pid, self.exit_reason())

    def exit_reason(self):
        """How the child ended, in words; '' while it lives."""
        if self.returncode is None:
            return ''
        reason = self._child.exit_reason()  # "host 3 'worker' (pid 811) killed by SIGSEGV"
        return reason.partition(f'(pid {self.pid}) ')[2] or reason

    def _send_signal(self, signum):
        if self.returncode is None:
            try:
                self._child.signal(signum)
            except ProcessLookupError:
                pass
            except OSError:
                if self.wait(timeout=0.1) is None:
                    raise

    def interrupt(self):
        """Sends SIGINT."""
        self._send_signal(_signal.SIGINT)

    def terminate(self):
        """Sends SIGTERM."""
        self._send_signal(_signal.SIGTERM)

    def kill(self):
        """Sends SIGKILL."""
        self._send_signal(_signal.SIGKILL)

    def close(self):
        """Gives back what this object holds of the child."""
        if self.finalizer is not None:
            self.finalizer()

    def _adopt(self, child):
        """Stands for `child` (a _pyhost.Child, or what looks like one) from now on."""
        self._child = child
        self.pid = child.pid
        self.sentinel = child.sentinel
        self.finalizer = util.Finalize(self, child.close)

    def _launch(self, process_obj):
        import _pyhost
        from ._output import prepare
        _warn_of_threads()
        prepare()
        random_state.prepare()
        if connection := sys.modules.get(f'{__package__}.connection'):
            connection._PipeEnds.share_all()
        parent_end = open_own_end()
        child = None
        # An interrupt in the middle of a fork would be reported by whatever hook of the child it hits.
        mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGINT])
        try:
            child = _pyhost.fork_child(record_name(process_obj), bool(process_obj.daemon))
            if child is None:
                _run_forked(process_obj, parent_end, mask)
            self._adopt(child)
        finally:
            os.close(parent_end)
            _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)


def record_name(process_obj):
    """What the session's record calls the process, whose own name may be any object."""
    name = str(process_obj._name)
    if name.isprintable():
        return name
    return name.encode('utf-8', 'backslashreplace').decode().replace('\0', r'\x00')


def open_own_end():
    """A descriptor for a child: it becomes readable when this process ends."""
    try:
        fd = os.pidfd_open(os.getpid())
        if fd > 2:
            return fd
        # A standard stream of ours is closed: it has to be the child's, too.
        try:
            return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        finally:
            os.close(fd)
    except OSError as error:
        raise OSError(error.errno, 'pidfd_open, by which a child learns of the end of its parent: '
                                   f'{error.strerror} (does a sandbox refuse it?)') from None


def _run_forked(process_obj, parent_end, mask):
    """The child's life.  Never returns: the parent's frames below us are not the child's to go on with."""
    import _pyhost
    code = 1
    try:
        atexit._clear()
        atexit.register(util._exit_function)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        random_state.derive_numpy(process_obj._identity)
        code = process_obj._bootstrap(parent_sentinel=parent_end)
    finally:
        try:
            atexit._run_exitfuncs()
            util._flush_std_streams()
        finally:
            _pyhost.child_exit(code)
            os._exit(code & 0xff)


def _warn_of_threads():
    """Warns where threads live that the child will not have, but whose locks it will."""
    if threading.active_count() == 1:
        return
    current = threading.current_thread()
    if getattr(current, '_pyhost_internal', False):
        return
    others = [thread.name for thread in threading.enumerate()
              if thread is not current and not getattr(thread, '_pyhost_internal', False)]
    if not others:
        return
    import warnings

    from . import guard
    filename, line, module = guard.caller_location()
    warnings.warn_explicit(
        f'{process.current_process().name} (pid {os.getpid()}) forks while other threads live '
        f'({", ".join(sorted(others))}); a lock that one of them holds stays locked in the child for ever.  '
        'Use the start method spawn or forkserver, or fork before starting threads.',
        RuntimeWarning, filename, line, module)
    if sys.version_info >= (3, 12):  # what os.fork() says from then on, for who filters or expects it
        warnings.warn_explicit(
            f'This process (pid={os.getpid()}) is multi-threaded, use of fork() may lead to deadlocks in the child.',
            DeprecationWarning, filename, line, module)
