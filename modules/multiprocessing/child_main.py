"""A child's life in Python: from the payload that the native bootstrap holds to an exit code.

The fork servers import this module, and so what it imports.

A child that forkserver.connect_to_new_process() started has a payload without contents: it reads them from a pipe,
and tells its end through another.
"""

import atexit
import io
import os
import sys

import _pickle as pickle  # the module `pickle` brings re and enum

from . import forkserver, guard, process, random_state, spawn, util, warm_modules

__all__ = ['run']

# The first use of compile() makes a type for each node of syntax trees, which takes longer than the rest of a small
# child's life: done in the server.
compile('', '<server>', 'exec')


def run():
    """Reads the payload, becomes the process it describes, runs it.  Returns the exit code; raises nothing."""
    extras = {}
    try:
        child = _receive(extras)
        code = child._bootstrap(extras['parent_sentinel'])
    except SystemExit as end:  # the main module may end the program while it is imported
        code = 1 if extras.get('method') == 'forkserver' else process._code_of(end)  # as in python3
    except KeyboardInterrupt:
        _die_of_interrupt()
    except BaseException as error:
        code = 1
        if not guard.said_before(error):
            sys.excepthook(*sys.exc_info())
    atexit._run_exitfuncs()
    util._flush_std_streams()
    if 'status' in extras:
        forkserver.write_signed(extras['status'], code)
    return code


def _receive(extras):
    """The process object; the interpreter is prepared for it, and `extras` is filled."""
    import _pyhost
    with memoryview(_pyhost.child_payload()) as payload:
        preparation_size, _reserved, process_size = spawn.HEADER.unpack_from(payload)
        start = spawn.HEADER.size
        middle = start + preparation_size
        end = middle + process_size
        extras.update(pickle.loads(payload[end:]))
        _leave_server(extras)
        current = process.current_process()
        current._inheriting = True
        try:
            if 'data' in extras:
                child = _receive_from_pipe(extras)
            else:
                spawn.prepare(pickle.loads(payload[start:middle]))
                child = _load(io.BytesIO(payload[middle:end]))
                warm_modules.report(True)
        finally:
            warm_modules.report(False)
            del current._inheriting
    if extras['method'] == 'forkserver':
        random_state.prepare()
        random_state.derive_numpy(child._identity)
    return child


def _receive_from_pipe(extras):
    with open(extras['data'], 'rb') as pipe:
        extras['parent_sentinel'] = os.dup(extras['data'])
        spawn.prepare(pickle.load(pipe))
        return _load(pipe)


def _leave_server(extras):
    """Drops what modules that the fork server preloaded want done at exit: that is the server's."""
    if extras['method'] == 'forkserver':
        forkserver._forkserver._inherited_fds = extras['fds']
        atexit._clear()
        atexit.register(util._exit_function)


def _load(file):
    try:
        return pickle.load(file)
    except Exception as error:
        from . import pickle_errors
        pickle_errors.note_not_found(error)
        raise


def _die_of_interrupt():
    """Ends as a program does that did not catch KeyboardInterrupt, but says nothing: the main process speaks."""
    import signal
    util._flush_std_streams()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
