"""The guard: what happens when the main module, imported by a child, tries to start a process.

A child of the spawn or forkserver method imports the main module as `__mp_main__`.  A script that starts
processes outside `if __name__ == '__main__':` would do so again there, and so on for ever.  So while a child
imports its main module no process can be started:

  start method          what a start raises in the child           then
  left at its default   MainImportEnds (handlers of Exception      the child goes on with what the main module had
                        do not see it)                             defined by then; one warning in the session
  chosen by the program RuntimeError, as python3                   the child ends with code 1; one traceback in the session

A bare `except:` may swallow either: the next start is refused again.  Whatever starts processes (Process, Pool,
managers, executors) comes through check(); spawn._check_not_importing_main is the same function.

State is that of the process; the import runs on the main thread (a lazy one, see main_module.py, on any).
"""

import os
import sys
import threading
import weakref
from contextlib import contextmanager

from . import process

__all__ = ['MainImportEnds', 'check', 'importing_main', 'said_before']

# Which of the session's "said once" flags are ours (_pyhost.warn_once).
_WARNING_KEY = 1
_REFUSAL_KEY = 2

_PACKAGE_DIR = os.path.dirname(os.path.abspath(__file__))
_CONCURRENT_DIR = os.path.join(os.path.dirname(_PACKAGE_DIR), 'concurrent')


class MainImportEnds(BaseException):
    """Ends the import of the main module in a child, where it would start a process."""


class _Import:
    """An import of the main module that is going on."""

    def __init__(self, module, chosen, lenient):
        self.module = module
        self.chosen = chosen    # the program named a start method
        self.lenient = lenient  # python3 would not import this main module at all: never refuse, end


_current = None

# Threads that the main module started while it was imported: what they start later would be a second generation.
_threads = weakref.WeakSet()


@contextmanager
def importing_main(module, *, chosen=False, lenient=False):
    """Refuses starts while the body runs the main module's code in `module`; ends quietly if it is told to."""
    global _current
    before, _current = _current, _Import(module, chosen, lenient)
    current = process.current_process()
    was_inheriting = getattr(current, '_inheriting', False)
    current._inheriting = True
    threads = set(threading.enumerate())
    try:
        yield
    except MainImportEnds:
        pass
    finally:
        _current = before
        if not was_inheriting:
            del current._inheriting
        _threads.update(set(threading.enumerate()) - threads)


def check():
    """Refuses to start a process while this child imports its main module."""
    if getattr(process.current_process(), '_inheriting', False):
        _refuse(_current)
    elif _threads and threading.current_thread() in _threads:
        raise MainImportEnds('a thread that the main module started while a child imported it cannot '
                             'start processes; start it under the guard if __name__ == "__main__"')


def note_choice():
    """get_context(method) was called: if by the main module itself, it has chosen a start method."""
    if _current is None:
        return
    frame = _caller()
    if frame is not None and frame.f_globals is _current.module.__dict__:
        _current.chosen = True


def repeated_choice():
    """set_start_method() was called a second time; returns if that is to be ignored."""
    if _current is None:
        return False
    if _current.lenient:
        return True
    raise _once(RuntimeError('context has already been set\n\n' + _advice(*_main_line(_current), 'chooses the start method')))


def said_before(error):
    """Whether `error` is a refusal that another child of the session has shown already."""
    return getattr(error, '_pyhost_once', False) and not _first(_REFUSAL_KEY)


def _refuse(current):
    if current is None:  # a module other than the main one, or a third party's start
        raise _refusal(None, 0)
    where = _main_line(current)
    if current.chosen and not current.lenient:
        raise _refusal(*where)
    with _uninterrupted():
        if _first(_WARNING_KEY):
            _warn(*where)
    raise MainImportEnds


def _refusal(filename, line):
    return _once(RuntimeError(
        'An attempt has been made to start a new process before the\n'
        'current process has finished its bootstrapping phase.\n\n'
        + _advice(filename, line)))


def _once(error):
    error._pyhost_once = True
    return error


def _first(key):
    import _pyhost
    return _pyhost.warn_once(key)


def _advice(filename, line, does='starts processes'):
    if filename is None:
        return ('A module that a child imports starts a process while it is being imported.\n'
                'Start processes in functions, and call these from the main program.')
    return (f'{filename}, line {line}, {does} while a child imports the main module.\n'
            'Let only the main program do that:\n\n'
            "    if __name__ == '__main__':\n"
            f'        {_source(filename, line)}')


@contextmanager
def _uninterrupted():
    """Who took it on itself to say something once says it, even if its parent ends it at that moment: a short script
    may be over, and its pool terminated, before the first worker has come so far."""
    import signal

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _warn(filename, line):
    import warnings

    # The warning's own rendering adds the source line, indented: with the last line it is the mend.
    warnings.warn_explicit(
        'each child process imports the main module, which starts processes here: the import ended at this line, '
        'so that the children have only what is defined above it.  Let only the main program do it:\n'
        "if __name__ == '__main__':", RuntimeWarning, filename, line)


def _source(filename, line):
    import linecache  # with tokenize a twentieth of what this package takes to import

    return linecache.getline(filename, line).strip() or '...'


def _main_line(current):
    """(file, line) at the top level of the main module that is being run."""
    names = current.module.__dict__
    frame = sys._getframe()
    found = None
    while frame is not None:
        if frame.f_globals is names:
            found = frame  # the outermost frame of the main module is its top level
        frame = frame.f_back
    if found is None:
        return getattr(current.module, '__file__', '__main__'), 0
    return found.f_code.co_filename, found.f_lineno


def _caller():
    """The innermost frame outside this package and its like."""
    frame = sys._getframe(1)
    while frame is not None:
        folder = os.path.dirname(frame.f_code.co_filename)
        if folder != _PACKAGE_DIR and not folder.startswith(_CONCURRENT_DIR):
            return frame
        frame = frame.f_back
    return None


def caller_location():
    """(file, line, module name) of the program's own call into the package, for warnings."""
    frame = _caller()
    if frame is None:
        return '<unknown>', 0, '__main__'
    return frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get('__name__', '__main__')
