"""The engine that this worker belongs to: calls its functions; and how a worker begins and finds what the engine calls.

In a script of a C++ engine's pool (runtime/include/pyhost/worker_pool.h):

    from pyhost.engine import call, functions

    height = call('terrain.height_at', x, y)         # what WorkerPool::Expose("terrain.height_at", ...) was given
    height = functions.terrain.height_at(x, y)       # the same

The function runs in the engine, on the thread that polls; the call waits for it.  What it answers as an error is raised as
EngineError.

A worker imports the module that "module:function" names, calls the function and answers.  The loop is native
(_pyhost.serve_engine).  This module imports little: a worker's start waits for it.
"""

import os
import struct
import sys
from _thread import allocate_lock

import _pyhost

__all__ = ['EngineError', 'call', 'functions']

# absl::StatusCode, as far as a worker decides about it.
_CODES = ('OK', 'CANCELLED', 'UNKNOWN', 'INVALID_ARGUMENT', 'DEADLINE_EXCEEDED', 'NOT_FOUND', 'ALREADY_EXISTS',
          'PERMISSION_DENIED', 'RESOURCE_EXHAUSTED', 'FAILED_PRECONDITION', 'ABORTED', 'OUT_OF_RANGE', 'UNIMPLEMENTED',
          'INTERNAL', 'UNAVAILABLE', 'DATA_LOSS', 'UNAUTHENTICATED')


class EngineError(Exception):
    """A function of the engine answered with an error; `code` is the name of its absl::StatusCode.

    Raised by a script, an EngineError gives its call that code: raise EngineError('no such town', code='NOT_FOUND').
    """

    def __init__(self, message, code='UNKNOWN'):
        super().__init__(message)
        if code not in _CODES[1:]:
            raise ValueError(f'{code!r} is none of {", ".join(_CODES[1:])}')
        self.code = code


class _Refusal(EngineError):
    """A call that cannot begin: its traceback would say nothing."""


# ---- Functions of the engine ---------------------------------------------------------------------------------------

_calling = allocate_lock()


def call(name, *args):
    """Calls the function that the engine exposed as `name`, and returns what it returns."""
    with _calling:
        code, answer = _pyhost.call_engine(name, args)
    if code:
        raise EngineError(answer, _CODES[code] if code < len(_CODES) else 'UNKNOWN')
    return answer


class _Functions:
    """The functions of the engine whose names begin like this."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        return _Functions(f'{self._name}.{name}' if self._name else name)

    def __call__(self, *args):
        return call(self._name, *args)

    def __repr__(self):
        return f'<function {self._name!r} of the engine>' if self._name else '<the functions of the engine>'


functions = _Functions('')


# ---- The start -----------------------------------------------------------------------------------------------------

def _child_main():
    """The life of a worker: called by its native bootstrap, which ends the process with the code returned."""
    # A script that signals its process group reaches itself and what it started, not the engine.
    os.setpgid(0, 0)
    with memoryview(_pyhost.child_payload()) as payload:
        settings = _read_texts(payload)
    lanes = tuple(int(lane) for lane in settings['lanes'])
    wait_at = int(settings['wait_at'][0])
    try:
        _check_version(settings['version'][0].decode())
        _watch_faults(int(settings['faults'][0]), int(settings['dump_signal'][0]))
        _prepare(settings)
    except BaseException as error:
        _pyhost.report_to_engine(lanes[wait_at], describe(error))
        return 1
    _pyhost.serve_engine(lanes, wait_at, settings['hot'] == [b'1'], resolve, describe)
    return 0


def _check_version(version):
    if version != _pyhost.engine_version:
        raise _Refusal(f'the library that the engine is linked with is pyhost {version}, and the program '
                       f'{sys.executable} is pyhost {_pyhost.engine_version}: install both from one build',
                       'FAILED_PRECONDITION')


def _watch_faults(file, dump_signal):
    """Where this process is when it crashes, or is asked by a signal, goes into a file that the engine reads."""
    import faulthandler
    faulthandler.enable(file)
    faulthandler.register(dump_signal, file)


def _prepare(settings):
    import importlib
    if sys.stdout is not None:
        sys.stdout.reconfigure(line_buffering=True)  # what a script printed is seen, also when it dies
    sys.path[:0] = [os.fsdecode(path) for path in settings['python_path']]
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
    if not colon or not module_name or not path or module_name.startswith('.'):
        raise _Refusal(f'{target!r} does not name a function: write it as "module:function"', 'INVALID_ARGUMENT')
    module = _import(module_name, target)
    found = module
    for name in path.split('.'):
        try:
            found = getattr(found, name)
        except AttributeError:
            where = getattr(module, '__file__', None) or 'built in'
            raise _Refusal(f'module {module_name!r} ({where}) has no function {path!r}; searched: {_search_path()}',
                           'NOT_FOUND') from None
    if not callable(found):
        raise _Refusal(f'{target!r} is {type(found).__name__}, which cannot be called', 'INVALID_ARGUMENT')
    return found


def _import(name, target):
    import importlib
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only this module's own absence: one that it imports itself and does not find is an error of the script.
        if error.name is None or not (name + '.').startswith(error.name + '.'):
            raise
        raise _Refusal(f'no module named {error.name!r}, wanted for {target!r}; searched: {_search_path()}',
                       'NOT_FOUND') from None


def reload(name):
    """Imports the module `name` anew, if this worker has imported it: what the engine broadcasts."""
    import importlib
    _pyhost.forget_functions()
    importlib.invalidate_caches()
    module = sys.modules.get(name)
    if module is None:
        return
    # A file written twice within a second may look to Python like the one that it compiled before.
    cached = getattr(module, '__cached__', None)
    if cached:
        try:
            os.unlink(cached)
        except OSError:
            pass
    before = dict(vars(module))
    try:
        importlib.reload(module)
    except BaseException:
        # Of a file that fails half-way nothing stays.
        for added in vars(module).keys() - before.keys():
            del vars(module)[added]
        vars(module).update(before)
        raise


def _search_path():
    return ', '.join(path or 'the working directory' for path in sys.path)


# ---- Errors --------------------------------------------------------------------------------------------------------

def describe(error, *unpicklable):
    """The error as the engine gets it: status code, type, message and traceback, each a text (u64 size, bytes).

    `unpicklable` is the result that the error is about, where it is not about the call.
    """
    if isinstance(error, MemoryError):
        _clear_frames(error.__traceback__)
    elif unpicklable:
        error = _Refusal(f'the result, of type {_type_name(unpicklable[0])}, cannot be passed to the engine: '
                         f'{_type_name(error)}: {_told(_message_of, error)}', 'INVALID_ARGUMENT')
    parts = [_told(_code_of, error), _told(_type_name, error), _told(_message_of, error), _told(_traceback_of, error)]
    encoded = [part.encode('utf-8', 'backslashreplace') for part in parts]
    return b''.join(struct.pack('<Q', len(part)) + part for part in encoded)


def _told(part, error):
    """part(error), which asks the script's own code; what that raises, SystemExit too, is told instead."""
    try:
        return part(error)
    except BaseException as failure:
        return f'<cannot be had: {type(failure).__name__}>'


def _clear_frames(trace):
    """What the script had in its variables is given back: there may be no memory left to describe anything."""
    while trace is not None:
        try:
            trace.tb_frame.clear()
        except RuntimeError:
            pass  # it is running: ours
        trace = trace.tb_next


def _code_of(error):
    if isinstance(error, EngineError):
        name = error.code if error.code in _CODES else 'UNKNOWN'
    elif isinstance(error, MemoryError):
        name = 'RESOURCE_EXHAUSTED'
    elif isinstance(error, SystemExit):
        name = 'ABORTED'
    elif isinstance(error, TypeError) and error.__traceback__ is None:
        name = 'INVALID_ARGUMENT'  # of the call itself: the function's body did not begin
    else:
        name = 'UNKNOWN'
    return str(_CODES.index(name))


def _type_name(error):
    kind = type(error)
    if kind is _Refusal:
        return ''
    return kind.__qualname__ if kind.__module__ == 'builtins' else f'{kind.__module__}.{kind.__qualname__}'


def _message_of(error):
    if isinstance(error, SystemExit):
        return f'the script called sys.exit({"" if error.code is None else repr(error.code)})'
    return str(error)


def _traceback_of(error):
    if isinstance(error, _Refusal) or error.__traceback__ is None and error.__cause__ is None:
        return ''
    import traceback
    return ''.join(traceback.format_exception(type(error), error, error.__traceback__))
