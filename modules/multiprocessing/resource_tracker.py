"""Cleans up named resources whose users are gone.

A name in the file system (`/dev/shm`) outlives the processes that use it.  So each is registered with a small
process of its own, the tracker; when everybody is gone, it removes what nobody removed, and says so.

There is one tracker a session, whoever starts it: it listens on sockets whose names follow from the session's
id, so that a process finds it no matter in which order processes and tracker were started.  It starts with the
first name, and it ends when the session's root has ended and no process is connected any more.  Within a session
a block that one process leaves behind therefore stays for the others.

Each process has two sockets: a connection, whose end tells the tracker that the process is gone, and a datagram
socket for commands.  All commands of all processes thus wait in one queue: what one process sent before it told
another to go on is handled first.  A datagram is one of

    REGISTER:name:type      remove it when everybody is gone
    UNREGISTER:name:type    it has been removed
    ANNOUNCE:name:type      REGISTER for a name just invented: it is about to be created, and its creator may die before
    WITHDRAW:name:type      what was announced came to nothing
    PROBE:0:noop            is anybody reading this?
    DETACH:0:noop           do not wait for the root any longer

`ResourceTracker` is the client, `main` the tracker (`_resource_tracker_process.py`).

Once names can be registered with the session's supervisor, only `_launch` and `main` become superfluous.
"""

import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import threading
import warnings
from contextlib import contextmanager

import _multiprocessing
import _posixshmem

from . import spawn
from . import util

__all__ = ['ensure_running', 'register', 'unregister']

_IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# PIPE_BUF at its smallest, as in python3: what fits is written as a whole or not at all.
_LONGEST_MESSAGE = 512

# Descriptors of our own keep out of the way of programs that close or renumber low ones.
_LOWEST_DESCRIPTOR = 200


def cleanup_noop(name):
    raise RuntimeError('noop should never be registered or cleaned up')


_CLEANUP_FUNCS = {
    'noop': cleanup_noop,
    'semaphore': _multiprocessing.sem_unlink,
    'shared_memory': _posixshmem.shm_unlink,
}
if sys.version_info >= (3, 12):
    # CPython's tests register this type and let it leak.
    _CLEANUP_FUNCS['dummy'] = lambda name: None


class ReentrantCallError(RuntimeError):
    """The garbage collector ran a finalizer that calls the tracker in the middle of a call to the tracker."""


class ResourceTracker:
    """This process's connection to a tracker, which it starts if there is none.

    With `shared` that is the session's tracker, otherwise one of its own, which ends with this object's connection.
    Thread-safe; in a finalizer that interrupts another call it raises ReentrantCallError.  After a fork parent
    and child share one connection; each command is one write.
    """

    def __init__(self, *, shared=False):
        self._shared = shared
        self._lock = threading.RLock()
        self._depth = 0
        self._fd = None        # Takes commands
        self._life = None      # Tells the tracker that we live; the same socket as _fd if the tracker is not shared
        self._identity = None  # What they are: the program may have closed them, and their numbers may be reused
        self._pid = None       # Of the tracker if it is our child
        self._exitcode = None  # Of the tracker that _stop() ended: 0 if nothing had leaked
        self._waitpid_timed_out = False  # The last _stop() gave up waiting.
        self._use_simple_format = True  # A name of CPython's, whose tests set it; there is one format here.
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self):
        self._lock._at_fork_reinit()
        self._depth = 0
        self._pid = None  # Our parent's child.

    def _stop(self, *, wait_timeout=None):
        """Disconnects and, if the tracker is our child, waits for its end, at most `wait_timeout` seconds."""
        with self._lock:
            if self._depth:
                raise ReentrantCallError('Reentrant call into the multiprocessing resource tracker')
            if self._fd is None:
                if self._exitcode is None:
                    self._exitcode = 0  # Nothing was registered, so nothing leaked.
                return
            if self._shared and self._pid is not None and self._check_alive():
                os.write(self._fd, b'DETACH:0:noop\n')
            self._close()
            if self._pid is not None:
                pid, self._pid, self._exitcode = self._pid, None, None
                self._waitpid_timed_out = not _ends_within(wait_timeout, pid)
                if not self._waitpid_timed_out:
                    _, status = os.waitpid(pid, 0)
                    self._exitcode = os.waitstatus_to_exitcode(status)

    def getfd(self):
        """The descriptor that leads to the tracker."""
        self.ensure_running()
        return self._fd

    def ensure_running(self):
        """Connects to the tracker; starts it if need be.  May be called from any process of the session."""
        with self._lock:
            if self._depth:
                raise ReentrantCallError('Reentrant call into the multiprocessing resource tracker')
            self._depth += 1
            try:
                if self._fd is not None:
                    if self._check_alive():
                        return
                    self._forget_dead_tracker()
                self._connect()
            finally:
                self._depth -= 1

    def _check_alive(self):
        """Whether somebody still reads what we send."""
        return self._try_to_write(b'PROBE:0:noop\n')

    def _owns_descriptor(self):
        """False if the program closed our descriptor behind our back; its number may be somebody else's now."""
        return self._identity is None or util.identity_of_descriptor(self._fd) == self._identity.get(self._fd)

    def _forget_dead_tracker(self):
        only_lost = self._shared and not self._owns_descriptor()
        self._close()
        if only_lost:
            return  # The tracker is well, and can be called again.
        if self._pid is not None:
            try:
                os.waitpid(self._pid, 0)
            except ChildProcessError:
                pass  # Somebody else's wait took it.
        self._pid = None
        self._exitcode = None
        warnings.warn('resource_tracker: process died unexpectedly, relaunching.  Some resources might leak.')

    def _close(self):
        if self._identity is None:
            os.close(self._fd)  # A subclass has put it there.
        else:
            for fd, identity in self._identity.items():
                if util.identity_of_descriptor(fd) == identity:
                    os.close(fd)
        self._fd = self._life = self._identity = None

    def _adopt(self, commands, life):
        """Keeps descriptors of our own, out of the way."""
        self._fd = _duplicate_high(commands.fileno())
        self._life = self._fd if life is commands else _duplicate_high(life.fileno())
        self._identity = {fd: util.identity_of_descriptor(fd) for fd in (self._fd, self._life)}

    def _connect(self):
        if self._shared:
            self._connect_to_session()
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            self._pid = _spawn_tracker([theirs.fileno()], None)
            self._adopt(ours, ours)

    def _connect_to_session(self):
        """Connects to the session's tracker; starts it if there is none."""
        address = _address()
        while not self._call(address):
            with _launching():
                # Another process may have started one before it was our turn.
                if self._call(address):
                    return
                self._launch(address)

    def _call(self, address):
        """Connects to the tracker at `address`; false if nobody is there."""
        with (socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as life,
              socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as commands):
            life.setblocking(True)
            commands.setblocking(True)
            try:
                life.connect(address)
                commands.connect(address + b'-commands')
            except ConnectionRefusedError:
                return False
            _check_same_user(life)
            self._adopt(commands, life)
            return True

    def _launch(self, address):
        """Starts a tracker.  It can be reached at once: what it is sent waits until the new process gets round to it."""
        with (socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
              socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as commands):
            try:
                commands.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                listener.bind(address)
                commands.bind(address + b'-commands')
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                os.sched_yield()  # The last one is ending: the kernel has closed one of its sockets, and closes the other.
                return
            listener.listen(socket.SOMAXCONN)
            self._pid = _spawn_tracker([listener.fileno(), commands.fileno()], _root_pid())

    def register(self, name, rtype):
        """Makes sure that the resource `name` of type `rtype` does not outlive the session."""
        self._send('REGISTER', name, rtype)

    def unregister(self, name, rtype):
        """Tells the tracker that `name` has been removed."""
        self._send('UNREGISTER', name, rtype)

    def announce(self, name, rtype):
        """Like `register`, but before the resource is created, for a new random name; `withdraw` if it is not."""
        self._send('ANNOUNCE', name, rtype)

    def withdraw(self, name, rtype):
        """Takes back an `announce`.  The registration of another resource of that name stays."""
        self._send('WITHDRAW', name, rtype)

    def _send(self, cmd, name, rtype):
        message = os.fsencode(f'{cmd}:{name}:{rtype}\n')
        if len(message) > _LONGEST_MESSAGE:
            raise ValueError(f'msg too long: {len(message)} bytes for a {rtype} name, at most {_LONGEST_MESSAGE}')
        if not self._try_to_write(message):
            self._write_to_new_connection(message, rtype, name)

    def _try_to_write(self, message):
        """Whether the message went to the tracker that we know: nearly always, and at the cost of one system call more."""
        fd = self._fd
        if fd is None or not self._owns_descriptor():
            return False
        try:
            os.write(fd, message)
        except OSError:
            return False
        return True

    def _write_to_new_connection(self, message, rtype, name):
        try:
            self.ensure_running()
        except ReentrantCallError:
            warnings.warn('ResourceTracker called reentrantly for resource cleanup, which is unsupported. '
                          f'The {rtype} object {name!r} might leak.')
            if self._fd is None:
                return
        os.write(self._fd, message)


def _address():
    """The socket of this session's tracker (one for each user), in the abstract namespace: it leaves no file."""
    import _pyhost
    _pyhost.ensure_session()
    return b'\0pyhost-resource-tracker-%016x-%d' % (_pyhost.session_id(), os.geteuid())


def _ends_within(seconds, pid):
    """Waits for the end of our child `pid`, which is left to be reaped; false when that takes longer."""
    if seconds is None:
        return True
    process = os.pidfd_open(pid)
    try:
        poller = select.poll()
        poller.register(process, select.POLLIN)
        return bool(poller.poll(1000 * seconds))
    finally:
        os.close(process)


@contextmanager
def _launching():
    """One process of the session at a time; a process that dies in it makes room for the next."""
    import _pyhost
    fd = _pyhost.open_segment_file()
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # Closing would not do: a process forked meanwhile has the descriptor too.
    finally:
        os.close(fd)


def _root_pid():
    import _pyhost
    return _pyhost.root_pid() or None


def _duplicate_high(fd):
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST_DESCRIPTOR)
    except OSError:
        return os.dup(fd)  # RLIMIT_NOFILE is lower than that.


_CREDENTIALS = struct.Struct('3i')  # pid, uid, gid


def _check_same_user(sock):
    """Refuses a tracker of another user's: anybody may bind a name in the abstract namespace."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    if not _is_own(credentials):
        raise PermissionError(errno.EPERM, 'the resource tracker of this session belongs to user '
                              f'{_CREDENTIALS.unpack(credentials)[1]}')


def _is_own(credentials):
    return _CREDENTIALS.unpack(credentials)[1] in (os.geteuid(), 0)


def _spawn_tracker(fds, root_pid):
    passed = list(fds)
    try:
        passed.append(sys.stderr.fileno())
    except Exception:
        pass  # No usable stderr: the tracker has nowhere to warn.
    # Another program's package would not understand the command.
    executable = os.fsencode(sys.executable) if spawn.foreign_executable() else spawn.get_executable()
    command = f'from multiprocessing.resource_tracker import main; main({fds}, {root_pid})'
    args = [executable, *util._args_from_interpreter_flags(), '-c', command]
    # The tracker is born with these blocked, so that none can end it before it ignores them.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED_SIGNALS)
    try:
        return util.spawnv_passfds(executable, args, passed)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


_resource_tracker = ResourceTracker(shared=True)
ensure_running = _resource_tracker.ensure_running
register = _resource_tracker.register
unregister = _resource_tracker.unregister
announce = _resource_tracker.announce
withdraw = _resource_tracker.withdraw
getfd = _resource_tracker.getfd


def main(fds, root_pid=None):
    """Runs the tracker until the process `root_pid` and all its connections are gone.

    `fds` are a listening socket and the one for commands, or the only connection.
    """
    for signum in _IGNORED_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED_SIGNALS)
    from . import _resource_tracker_process
    sys.exit(_resource_tracker_process.run([socket.socket(fileno=fd) for fd in fds], root_pid))
