"""The worker of a C++ engine's pool: how it begins, and how it finds what the engine calls.

The engine (runtime/include/pyhost/worker_pool.h) calls "module:function"; this process imports the module, calls the
function and answers.  The loop is native (_pyhost.serve_engine).

Imports little: a worker's start waits for it.
"""

import os
import struct
import sys

import _pyhost

__all__ = []

# absl::StatusCode, as far as a worker decides about it.
_UNKNOWN = 2
_INVALID_ARGUMENT = 3
_NOT_FOUND = 5
_RESOURCE_EXHAUSTED = 8
_ABORTED = 10


class _Refusal(Exception):
    """A call that cannot begin: the code and the text are the engine's to see, a traceback would say nothing."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


# ---- The start -----------------------------------------------------------------------------------------------------

def _child_main():
    """The life of a worker: called by its native bootstrap, which ends the process with the code returned."""
    # A script that signals its process group reaches itself and what it started, not the engine.
    os.setpgid(0, 0)
    with memoryview(_pyhost.child_payload()) as payload:
        settings = _read_texts(payload)
    pool = int(settings['pool'][0])
    sys.path[:0] = [os.fsdecode(path) for path in settings['python_path']]
    try:
        _prepare(settings)
    except BaseException as error:
        _pyhost.report_to_engine(pool, describe(error))
        return 1
    _pyhost.serve_engine(pool, resolve, describe)
    return 0


def _prepare(settings):
    import importlib
    for name in settings['preload']:
        importlib.import_module(os.fsdecode(name))
    for source in settings['startup']:
        exec(compile(source, '<start-up code>', 'exec'), {'__name__': '__startup__', '__builtins__': __builtins__})


def _read_texts(payload):
    """{name: [text, ...]} from: u64 count of names, each a text, u64 count, texts; a text is u64 size, bytes."""
    position = 0

    def number():
        nonlocal position
        value, = struct.unpack_from('<Q', payload, position)
        position += 8
        return value

    def text():
        nonlocal position
        size = number()
        position += size
        return bytes(payload[position - size:position])

    return {text().decode(): [text() for _ in range(number())] for _ in range(number())}


# ---- A call --------------------------------------------------------------------------------------------------------

def resolve(target):
    """The callable that "module:function" names, dots in `function` included."""
    module_name, colon, path = target.partition(':')
    if not colon or not module_name or not path:
        raise _Refusal(_INVALID_ARGUMENT, f'{target!r} does not name a function: write it as "module:function"')
    module = _import(module_name, target)
    found = module
    for name in path.split('.'):
        try:
            found = getattr(found, name)
        except AttributeError:
            where = getattr(module, '__file__', None) or 'built in'
            raise _Refusal(_NOT_FOUND, f'module {module_name!r} ({where}) has no function {path!r}; '
                                       f'searched: {_search_path()}') from None
    if not callable(found):
        raise _Refusal(_INVALID_ARGUMENT, f'{target!r} is {type(found).__name__}, which cannot be called')
    return found


def _import(name, target):
    import importlib
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only this module's own absence: one that it imports itself and does not find is an error of the script.
        if error.name is None or not (name + '.').startswith(error.name + '.'):
            raise
        raise _Refusal(_NOT_FOUND, f'no module named {error.name!r}, wanted for {target!r}; '
                                   f'searched: {_search_path()}') from None


def _search_path():
    return ', '.join(path or 'the working directory' for path in sys.path)


# ---- Errors --------------------------------------------------------------------------------------------------------

def describe(error):
    """The error as the engine gets it: status code, type, message and traceback, each a text (u64 size, bytes)."""
    parts = [str(_code_of(error)), _type_name(error), _message_of(error), _traceback_of(error)]
    encoded = [part.encode('utf-8', 'backslashreplace') for part in parts]
    return b''.join(struct.pack('<Q', len(part)) + part for part in encoded)


def _code_of(error):
    if isinstance(error, _Refusal):
        return error.code
    if isinstance(error, MemoryError):
        return _RESOURCE_EXHAUSTED
    if isinstance(error, SystemExit):
        return _ABORTED
    if isinstance(error, TypeError) and error.__traceback__ is None:
        return _INVALID_ARGUMENT  # of the call itself: the function's body did not begin
    return _UNKNOWN


def _type_name(error):
    kind = type(error)
    if kind is _Refusal:
        return ''
    return kind.__qualname__ if kind.__module__ == 'builtins' else f'{kind.__module__}.{kind.__qualname__}'


def _message_of(error):
    if isinstance(error, SystemExit):
        return f'the script called sys.exit({"" if error.code is None else repr(error.code)})'
    try:
        return str(error)
    except Exception as failure:
        return f'<its text cannot be had: {type(failure).__name__}>'


def _traceback_of(error):
    if error.__traceback__ is None and error.__cause__ is None:
        return ''
    import traceback
    try:
        return ''.join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception as failure:
        return f'<its traceback cannot be had: {type(failure).__name__}>'
