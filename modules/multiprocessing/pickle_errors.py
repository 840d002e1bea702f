"""Says where in an object the thing is that cannot be pickled.

A pickler only says what it met: "cannot pickle '_thread.lock' object".  explain() repeats the pickling on the
parts of the object, deeper and deeper, until the part that fails has no failing part of its own, and makes an
exception of the same kind that starts with the way to it: "args[1].callback: cannot pickle ...".

Used by Process.start(), Pool and queues.  Runs only after a failure; reducers are called again, so a popen that
is pickling a child must be abandoned afterwards.
"""

import io
import pickle
import types

__all__ = ['explain', 'find_path', 'note_not_found']

# Ways of pickling that are tried at most, so that an error about a huge object comes soon.
_BUDGET = 20000

_FORK_ADVICE = ('define it at the top level of a module, or start processes as copies of this one: '
                'multiprocessing.set_start_method("fork", force=True)')


def explain(error, root, *, name='', parts=None, advice=_FORK_ADVICE):
    """The exception to raise instead of `error`, which pickling `root` raised.

    `name` stands for the root in the way to the culprit; `parts`, [(name, object)], replaces the root by its
    parts.  `advice` is added where a function or class is not found under its name.  The result's cause is `error`,
    with the traceback of the reducer that raised it; the result is `error` itself, with a note, where no exception of
    the same kind can be made.
    """
    found = find_path(root, name=name, parts=parts)
    if found is None:
        return error
    path, culprit = found
    text = f'{path}: {error}' if path else str(error)
    if advice and _is_nameless(culprit):
        text = f'{text}; {_describe(culprit)} cannot be found by name from another process: {advice}'
    return _with_text(error, text)


def note_not_found(error):
    """Says what to do in an error of unpickling in a child, where it means that something was not found by its name."""
    if isinstance(error, (AttributeError, ImportError)):
        error.add_note(
            'The child could not find what its parent wanted it to run.  Define it at the top level of a module, '
            'above the line that starts the first process and outside the guard if __name__ == "__main__"; or '
            'start children as copies of the parent: multiprocessing.set_start_method("fork", force=True).')


def find_path(root, *, name='', parts=None, pickles=None):
    """(way, object) of the deepest part of `root` that cannot be pickled; None if all of it can be.

    `pickles(obj)` says whether an object can be pickled; the default asks the current ForkingPickler.
    """
    search = _Search(pickles or _pickles)
    if parts is None:
        parts = [(name, root)]
    for part_name, part in parts:
        if not search.pickles(part):
            return search.deepest(part_name, part)
    return None


def _pickles(obj):
    from .context import reduction
    try:
        reduction.ForkingPickler(io.BytesIO(), pickle.HIGHEST_PROTOCOL).dump(obj)
    except Exception:
        return False
    return True


class _Search:
    """A walk down the failing parts of an object."""

    def __init__(self, pickles):
        self._pickles = pickles
        self._budget = _BUDGET
        self._seen = set()

    def pickles(self, obj):
        """Whether `obj` can be pickled; true when the search has cost enough."""
        if isinstance(obj, (str, bytes, int, float, complex, type(None))):
            return True
        if self._budget <= 0:
            return True
        self._budget -= 1
        return self._pickles(obj)

    def deepest(self, path, obj):
        """Follows the first failing part of each level."""
        while id(obj) not in self._seen:
            self._seen.add(id(obj))
            step = self._failing_part(obj)
            if step is None:
                break
            suffix, obj = step
            path = _join(path, suffix)
        return path, obj

    def _failing_part(self, obj):
        for suffix, part in _parts_of(obj):
            if not self.pickles(part):
                return suffix, part
        return None


def _join(path, suffix):
    return path + suffix if path else suffix.lstrip('.')


def _parts_of(obj):
    """(how the part is written behind the object, part) of all that pickling the object would pickle."""
    if isinstance(obj, (types.FunctionType, types.BuiltinFunctionType, type, types.ModuleType)):
        return  # pickled by name
    if isinstance(obj, types.MethodType):
        yield '.__self__', obj.__self__
        return
    if isinstance(obj, dict):
        for key, value in list(obj.items()):
            yield f' key {_short(key)}', key
            yield f'[{_short(key)}]', value
    elif isinstance(obj, (list, tuple)):
        for index, item in enumerate(list(obj)):
            yield f'[{index}]', item
    elif isinstance(obj, (set, frozenset)):
        for item in list(obj):
            yield f' item {_short(item)}', item
    yield from _parts_of_state(obj)


def _parts_of_state(obj):
    """The parts that the object's own reduction names."""
    if type(obj) in (dict, list, tuple, set, frozenset):
        return
    try:
        reduced = _reduce(obj)
    except Exception:
        return
    if not isinstance(reduced, tuple) or len(reduced) < 2:
        return
    yield from _parts_of_call(obj, reduced)
    reduced = (*reduced, None, None, None)[:5]
    for index, item in enumerate(reduced[3] or ()):
        yield f'[{index}]', item
    for key, value in reduced[4] or ():
        yield f'[{_short(key)}]', value
    state = reduced[2]
    for mapping in state if isinstance(state, tuple) and len(state) == 2 else (state,):
        if isinstance(mapping, dict):
            for key, value in mapping.items():
                yield f'.{key}', value
        elif mapping is not None:
            yield ' state', mapping


def _parts_of_call(obj, reduced):
    """Callable and arguments that rebuild the object, named after its attributes where it has them."""
    yield f' rebuilt by {_short(reduced[0])}', reduced[0]
    attributes = getattr(obj, '__dict__', None) or {}
    for name in ('func', 'args', 'keywords'):
        if hasattr(obj, name):
            attributes = {**attributes, name: getattr(obj, name)}
    arguments = reduced[1] if isinstance(reduced[1], tuple) else ()
    for index, argument in enumerate(arguments):
        for name, value in attributes.items():
            if value is argument:
                yield f'.{name}', argument
                break
        else:
            yield f' constructor argument {index}', argument


def _reduce(obj):
    """What the current ForkingPickler makes of `obj`."""
    from .context import reduction
    table = {**getattr(reduction.ForkingPickler, '_copyreg_dispatch_table', {}),
             **getattr(reduction.ForkingPickler, '_extra_reducers', {})}
    reducer = table.get(type(obj))
    return reducer(obj) if reducer is not None else obj.__reduce_ex__(4)


def _is_nameless(obj):
    return isinstance(obj, (types.FunctionType, type))


def _describe(obj):
    """'the lambda at script.py:3', 'the local function make.<locals>.step', 'the function work'."""
    name = getattr(obj, '__qualname__', repr(obj))
    code = getattr(obj, '__code__', None)
    if code is not None and code.co_name == '<lambda>':
        return f'the lambda at {code.co_filename}:{code.co_firstlineno}'
    kind = 'class' if isinstance(obj, type) else 'function'
    if '<locals>' in name:
        kind = f'local {kind}'
    return f'the {kind} {name}'


def _short(obj):
    try:
        text = repr(obj)
    except Exception:
        text = f'<{type(obj).__name__}>'
    return text if len(text) <= 60 else text[:57] + '...'


def _with_text(error, text):
    """An exception like `error` that says `text`; `error` with a note where its class wants other arguments."""
    kind = type(error)
    if kind in (TypeError, AttributeError, RuntimeError, ValueError, NotImplementedError) \
            or kind is pickle.PicklingError:
        explained = kind(text)
        explained.__cause__ = error
        return explained
    error.add_note(text)
    return error
