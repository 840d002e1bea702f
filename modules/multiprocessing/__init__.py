"""Process-based parallelism with the interface of the standard library's package of this name.

Everything public is a bound method of the default context (context.py).  Importing the package loads only
that and process.py; the rest is loaded with first use.  Read modules/README.md before changing anything.
"""

import sys

from . import context

SUBDEBUG = 5
SUBWARNING = 25

_LAZY = ('reducer', 'reduction')

__all__ = [_name for _name in dir(context._default_context)
           if not _name.startswith('_')]
globals().update((_name, getattr(context._default_context, _name))
                 for _name in __all__ if _name not in _LAZY)

# Who names modules to preload will start processes: the server imports them while the program goes on.
if 'preload' in sys._xoptions:
    import _pyhost
    _pyhost.ensure_session()
    del _pyhost

# Objects of the main module are pickled under the name __main__; a child finds them under both names.
if '__main__' in sys.modules:
    sys.modules['__mp_main__'] = sys.modules['__main__']


def __getattr__(name):
    """`reduction` and its alias `reducer` bring in socket and pickle: loaded when asked for."""
    if name == 'reducer':
        return context._default_context.reducer
    if name == 'reduction':
        import importlib
        return importlib.import_module('.reduction', __name__)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
