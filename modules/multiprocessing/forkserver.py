"""The fork server as Python sees it: which modules it preloads, its process id, and its end.

The server itself is a host without a running program (host/ and runtime/supervision/): started by the session's
supervisor with first use, forking a child for each start.  preload() below is what it runs before its first fork.

`_forkserver` and its `_forkserver_pid`, `_stop`, `ensure_running` are names that tests and third parties use.
"""

import os
import struct
import sys

from . import context, main_module, process, spawn, util

__all__ = ['ensure_running', 'get_inherited_fds', 'connect_to_new_process',
           'set_forkserver_preload']

# Descriptors that one start can pass along.
MAXFDS_TO_SEND = 256
SIGNED_STRUCT = struct.Struct('q')


class ForkServer:
    """What this process asks of the session's fork server."""

    def __init__(self):
        self._inherited_fds = None
        self._preload_modules = ['__main__']

    @property
    def _forkserver_pid(self):
        """The server's process id; None while there is none."""
        import _pyhost
        return _pyhost.server_pid('forkserver')

    def _stop(self):
        """Ends the server; the next start begins another."""
        import _pyhost
        _pyhost.stop_server('forkserver')

    def set_forkserver_preload(self, modules_names):
        """The modules that the server imports before its first fork; '__main__' stands for the main module."""
        names = list(modules_names)
        if not all(type(name) is str for name in names):
            raise TypeError('module_names must be a list of strings')
        self._preload_modules = names

    def get_inherited_fds(self):
        """Descriptors passed to this process when it was started; None unless a fork server did that."""
        return self._inherited_fds

    def ensure_running(self):
        """Has the server up when this returns."""
        import _pyhost
        self.configure_server()
        _pyhost.ensure_server('forkserver')

    def configure_server(self):
        """Says what a server that is started from now on preloads."""
        import _pyhost
        main = {}
        if '__main__' in self._preload_modules:
            main = main_module.describe()
        _pyhost.set_server_preload(
            'forkserver', self._preload_modules, main_path=main.get('init_main_from_path', ''),
            main_name=main.get('init_main_from_name', ''),
            sys_path=[entry for entry in spawn._absolute_sys_path() if isinstance(entry, str)],
            sys_argv=[word for word in sys.argv if isinstance(word, str)] if main else [])

    def connect_to_new_process(self, fds):
        """Starts a child that reads preparation data and process object from a pipe.

        Returns (status_r, data_w): from the one the child's pid can be read at once and its exit code at its end,
        to the other the two pickles are to be written.
        """
        if len(fds) + 4 >= MAXFDS_TO_SEND:
            raise ValueError('too many fds')
        self.configure_server()
        opened = []
        try:
            for _ in range(2):
                opened += os.pipe()
            status_r, status_w, data_r, data_w = opened
            write_signed(status_w, self._start_reader(fds, status_w, data_r))
            return status_r, data_w
        except BaseException:
            util.close_fds(opened[0], opened[3])
            raise
        finally:
            util.close_fds(opened[1], opened[2])

    def _start_reader(self, fds, status_w, data_r):
        """Starts a child that takes its orders from data_r and tells its end to status_w; returns its pid."""
        import _pyhost
        start = _pyhost.ChildStart('forkserver', process.current_process().name)
        try:
            extras = {'method': 'forkserver', 'fds': [start.add_fd(fd) for fd in fds],
                      'status': start.add_fd(status_w), 'data': start.add_fd(data_r)}
            payload = spawn.HEADER.pack(0, 0, 0) + context.reduction.ForkingPickler.dumps(extras)
            return start.commit(payload, False).pid
        except BaseException:
            start.abort()
            raise


def preload(modules, main_path='', main_name='', sys_path=None, sys_argv=()):
    """What the server does before its first fork.  A module that cannot be imported is left to the children."""
    if sys_path is not None:
        sys.path[:] = sys_path
    if sys_argv:
        sys.argv[:] = sys_argv
    for name in modules:
        if name == '__main__':
            _preload_main(main_path, main_name)
            continue
        try:
            __import__(name)
        except ImportError:
            pass
    util._flush_std_streams()  # or every child would write what is left in the buffers


def _preload_main(main_path, main_name):
    current = process.current_process()
    current._inheriting = True
    try:
        if main_path:
            spawn._fixup_main_from_path(main_path)
        elif main_name and not main_name.endswith('__main__'):
            spawn._fixup_main_from_name(main_name)
    except (Exception, SystemExit):
        pass  # each child imports it again, and shows what is wrong
    finally:
        del current._inheriting


def read_signed(fd):
    """Reads a number that write_signed() wrote; EOFError where there is none."""
    data = b''
    while len(data) < SIGNED_STRUCT.size:
        piece = os.read(fd, SIGNED_STRUCT.size - len(data))
        if not piece:
            raise EOFError('unexpected EOF')
        data += piece
    return SIGNED_STRUCT.unpack(data)[0]


def write_signed(fd, number):
    """Writes a number to a pipe."""
    data = SIGNED_STRUCT.pack(number)
    while data:
        data = data[os.write(fd, data):]


_forkserver = ForkServer()
ensure_running = _forkserver.ensure_running
get_inherited_fds = _forkserver.get_inherited_fds
connect_to_new_process = _forkserver.connect_to_new_process
set_forkserver_preload = _forkserver.set_forkserver_preload
configure_server = _forkserver.configure_server
