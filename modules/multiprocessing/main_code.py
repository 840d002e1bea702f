"""The code of the main script, handed on to children: they import it as `__mp_main__`, and need not compile it again.

Compiling takes about 5 us a line, in every child, where python3 starts one.  The process that runs the script has its code in
the outermost frame of its main thread.  A child gets it marshalled, with the state of the file that it was made of.

A child must import what the file holds when the child is started, as python3's does.  So the code is handed on only while
the file is the one that this process read: it was last changed a while before the program started, and its state is the same
at each start.  Otherwise the child compiles.
"""

import marshal
import os
import sys
import threading
import types

from . import main_module

__all__ = ['for_child', 'load']

# Seconds.  File systems and kernels keep the times of changes less exactly than the clock goes.
_SETTLED = 3

_known = None  # (path, state of the file, marshalled code); () where there is no such code


def for_child(path):
    """What load() needs in a child that is started now, for the main script at the absolute `path`; None: compile it."""
    global _known
    if _known is None:
        _known = _find(path) or ()
    if not _known or _known[0] != path or _state_of(path) != _known[1]:
        return None
    return _known


def load(handed_on, path):
    """The code that the parent handed on for the script at `path`, or None."""
    global _known
    if not handed_on or handed_on[0] != path:
        return None
    _known = handed_on  # for children of this child
    return marshal.loads(handed_on[2])


def _state_of(path):
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _find(path):
    import _pyhost
    code = _running_code()
    if code is None or os.path.normpath(main_module._absolute(code.co_filename)) != path:
        return None
    state = _state_of(path)
    if state is None or max(state[-2:]) > (_pyhost.program_start - _SETTLED) * 1e9:
        return None
    return path, state, marshal.dumps(_with_file(code, path))


def _running_code():
    """The code of the script that the interpreter runs; None where it runs something else."""
    frame = sys._current_frames().get(threading.main_thread().ident)
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    main = sys.modules.get('__main__')
    if frame is None or frame.f_code.co_name != '<module>' or frame.f_globals is not getattr(main, '__dict__', None):
        return None
    return frame.f_code


def _with_file(code, path):
    """The code as compiled from a file of this name: what tracebacks of children show."""
    constants = tuple(_with_file(constant, path) if isinstance(constant, types.CodeType) else constant
                      for constant in code.co_consts)
    return code.replace(co_filename=path, co_consts=constants)
