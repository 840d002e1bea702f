"""The interpreter in a C++ engine's own process (host/include/pyhost/embedded_interpreter.h): running code, calling functions.

Each function returns (True, pickled result) or (False, the error as pyhost.engine.describe() packs it).
"""

import pickle
import sys

from .engine import describe, resolve

__all__ = []


def call(target, arguments):
    """Calls "module:function" with a pickled tuple."""
    try:
        function = resolve(target)
        arguments = pickle.loads(arguments)
    except BaseException as error:
        return False, describe(error)
    try:
        result = function(*arguments)
    except BaseException as error:
        # What the script sees of the call begins in the script.
        return False, describe(error.with_traceback(error.__traceback__.tb_next))
    try:
        return True, pickle.dumps(result, 5)
    except Exception as error:
        return False, describe(error)


def run(source, name):
    """Runs source code in __main__."""
    try:
        code = compile(source, name, 'exec')
    except SyntaxError as error:
        return False, describe(error)
    try:
        exec(code, sys.modules['__main__'].__dict__)
    except BaseException as error:
        return False, describe(error.with_traceback(error.__traceback__.tb_next))
    return True, b''


def end():
    """Does what users see of a program's end; the interpreter stays as it is."""
    import atexit
    import threading
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
    except BaseException as error:
        return False, describe(error)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # closed, or none: nobody is left to be told
    return True, b''
