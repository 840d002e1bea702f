"""What a child process writes to stdout and stderr arrives in whole lines, with the process's name in front if wanted.

A child's standard streams are given another buffer: it keeps what was written until the line is complete, and writes each
line (or several) with one system call.  `flush()` writes what there is.  Pipes and sockets take only 4096 bytes
at once for sure: there, children exclude each other with a lock on the stream itself (fcntl), which goes with its owner.

The prefix is a format with {name} and {pid}: pyhost.set_output_prefix(), the environment variable PYHOST_OUTPUT_PREFIX, or
`pyhost -X pyhost_output_prefix[=FORMAT]`.
"""

import collections
import fcntl
import io
import os
import select
import stat
import sys
import threading
import weakref

__all__ = ()

DEFAULT_PREFIX = '[{name}] '
CONFIG_NAME = 'pyhost_output_prefix'

# A line longer than this is written in pieces, so that output without any line end does not fill the memory.
_LONGEST_LINE = 1 << 20

_NAMES = ('stdout', 'stderr')
_Settings = collections.namedtuple('_Settings', 'fd, mode, encoding, errors, line_buffering, write_through')

_buffers = weakref.WeakSet()

# 'stdout' -> (weak reference to the stream of this process, its settings, the stream that a forked child will have)
_prepared = {}


def check_prefix(prefix):
    """The format `prefix`, which may be None; ValueError says what is wrong with it."""
    if prefix is None:
        return None
    if not isinstance(prefix, str):
        raise TypeError(f'an output prefix is a string such as {DEFAULT_PREFIX!r}, not {type(prefix).__name__}')
    try:
        prefix.format(name='', pid=0)
    except (LookupError, ValueError, AttributeError) as error:
        raise ValueError(f'{prefix!r} is no output prefix: {error!r}; it may have {{name}} and {{pid}}') from None
    return prefix


def prefix_of(process):
    """The format for the lines of `process`, or None."""
    if CONFIG_NAME in process._config:
        return process._config[CONFIG_NAME]
    option = sys._xoptions.get(CONFIG_NAME)
    if option is None:
        option = os.environ.get(CONFIG_NAME.upper()) or None
    return DEFAULT_PREFIX if option is True else option


def prepare():
    """Makes the streams that the next forked child will install: in it each page of memory first touched is a copy."""
    for name in _NAMES:
        old = getattr(sys, name)
        known = _prepared.pop(name, None)
        if not _is_plain(name, old):
            continue
        settings = _settings_of(old)
        if known is None or known[0]() is not old or known[1] != settings:
            known = weakref.ref(old), settings, _whole_lines(old, settings)
        _prepared[name] = known


def install(process):
    """Makes the standard streams of this process, which is `process`, write whole lines."""
    prefix = prefix_of(process)
    text = '' if prefix is None else check_prefix(prefix).format(name=process.name, pid=os.getpid())
    for name in _NAMES:
        old = getattr(sys, name)
        known = _prepared.pop(name, None)
        if not _is_plain(name, old):
            continue
        new = known[2] if known is not None and known[0]() is old else _whole_lines(old, _settings_of(old))
        if new is not None and new.buffer.begin(old, text):
            setattr(sys, name, new)
            setattr(sys, f'__{name}__', new)


def _is_plain(name, stream):
    """Whether it is the interpreter's stream, or ours: what a program has put in its place is left alone."""
    return type(stream) in (io.TextIOWrapper, WholeLines) and stream is getattr(sys, f'__{name}__')


def _settings_of(stream):
    """What makes another stream like this one; None if it has no descriptor."""
    try:
        return _Settings(stream.fileno(), stream.mode, stream.encoding, stream.errors, stream.line_buffering,
                         stream.write_through)
    except (OSError, ValueError):
        return None


def _whole_lines(old, settings):
    """A stream like `old` that writes whole lines once its buffer has begun; None if there can be none."""
    if settings is None:
        return None
    new = WholeLines(LineBuffer(settings.fd, hold=not settings.write_through), settings)
    new.mode = settings.mode
    return new


class WholeLines(io.TextIOWrapper):
    """A text stream over a LineBuffer, which gets all text at once; its settings read as those of the stream before it."""

    def __init__(self, buffer, settings):
        super().__init__(buffer, encoding=settings.encoding, errors=settings.errors, newline='\n', write_through=True)
        self._settings = {'line_buffering': settings.line_buffering, 'write_through': settings.write_through}

    line_buffering = property(lambda self: self._settings['line_buffering'])
    write_through = property(lambda self: self._settings['write_through'])

    def reconfigure(self, *, line_buffering=None, write_through=None, **options):
        super().reconfigure(line_buffering=line_buffering, **options)
        wanted = {'line_buffering': line_buffering, 'write_through': write_through}
        self._settings.update({name: bool(value) for name, value in wanted.items() if value is not None})


class LineBuffer(io.BufferedIOBase):
    """Writes whole lines to a descriptor, which it does not own.

    `hold` says that an incomplete line waits for its end or a flush; without it every write goes out at once (`-u`).
    """

    def __init__(self, fd, hold):
        self._fd = fd
        self._hold = hold
        self._old = None
        self._prefix = b''
        self._begun = False  # a part of a line was written
        self._pending = bytearray()
        self._lock = threading.RLock()
        self._excludes = False

    def begin(self, stream, prefix):
        """Takes the place of the text stream's buffer; False if its descriptor is none, or cannot show the prefix."""
        try:
            self._prefix = prefix.encode(stream.encoding, stream.errors)
            self._excludes = stat.S_ISFIFO(mode := os.fstat(self._fd).st_mode) or stat.S_ISSOCK(mode)
        except (OSError, ValueError):
            return False
        self._old = stream.buffer  # Others may refer to it; it must not be collected, which would flush it.
        _buffers.add(self)
        return True

    name = property(lambda self: self._old.name)
    mode = property(lambda self: self._old.mode)
    raw = property(lambda self: getattr(self._old, 'raw', self._old))

    def fileno(self):
        return self._fd

    def isatty(self):
        return not self.closed and os.isatty(self._fd)

    def writable(self):
        return True

    def write(self, data):
        """Takes bytes; writes the complete lines."""
        if self.closed:
            raise ValueError('write to closed file')
        data = bytes(data)
        with self._lock:
            self._pending += data
            if not self._hold or len(self._pending) > _LONGEST_LINE:
                self._write_pending(len(self._pending))
            elif b'\n' in data or b'\r' in data:
                self._write_pending(max(self._pending.rfind(b'\n'), self._pending.rfind(b'\r')) + 1)
        return len(data)

    def flush(self):
        """Writes what there is, also of an incomplete line."""
        if self.closed:
            raise ValueError('flush of closed file')
        with self._lock:
            self._write_pending(len(self._pending))

    def _write_pending(self, size):
        # Gone from here before it is written: a signal handler may write, and an error must not repeat it for ever.
        data = bytes(self._pending[:size])
        del self._pending[:size]
        if data:
            self._write_whole(self._with_prefixes(data))

    def _with_prefixes(self, data):
        if not self._prefix:
            return data
        begun, self._begun = self._begun, not data.endswith((b'\n', b'\r'))
        lines = (self._prefix + line for line in data.splitlines(keepends=True)) if not begun else None
        if lines is None:
            first, *others = data.split(b'\n')
            lines = [first, *(b'\n' + (self._prefix + line if line else b'') for line in others)]
        return b''.join(lines)

    def _write_whole(self, data):
        if not self._excludes:
            self._write_all(data)
            return
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
        except OSError:  # a file system without locks; lines up to 4096 bytes are whole all the same
            self._excludes = False
            self._write_all(data)
            return
        try:
            self._write_all(data)
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def _write_all(self, data):
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._fd, left):]
            except BlockingIOError:
                poller = select.poll()
                poller.register(self._fd, select.POLLOUT)
                poller.poll()


def _after_fork():
    for buffer in list(_buffers):
        buffer._lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
