"""The main module in a child: what the parent says of it, and how the child imports it as `__mp_main__`.

  the program was started as     entries of the preparation data             the child imports it
  script.py                      init_main_from_path                         at its start
  -m package.module              init_main_from_name                         at its start
  -m package, folder, zip file   init_main_from_name (…__main__), main_file  when first asked for a name of it
  -c code, - (stdin)             main_source                                 when first asked for a name of it
  the prompt                     none                                        never: it is nowhere to be read

The first two are python3's rule.  The lazy ones are ours: python3 never imports those main modules, and fails
to find what is defined in them.  Such an import may happen at any time (a pool's worker may be asked for the
name in its tenth call), so the lazy module runs its code under the guard by itself.

Code runs directly in the namespace of the module, so that a child keeps what was defined if the guard ends it.
"""

import io
import os
import sys
import threading
import types

from . import guard, process

__all__ = ['describe', 'run_name', 'run_path', 'LazyMainModule']

MAIN_NAME = '__mp_main__'


# ---- In the parent -------------------------------------------------------------------------------------------

def describe():
    """The preparation data's entries about the main module of this process."""
    main = sys.modules['__main__']
    if isinstance(main, LazyMainModule):
        return dict(main.__dict__['__pyhost_entries__'])
    name = getattr(getattr(main, '__spec__', None), 'name', None)
    if name is not None:
        return _describe_name(main, name)
    path = getattr(main, '__file__', None)
    if path is not None and path != '<stdin>':
        return {'init_main_from_path': os.path.normpath(_absolute(path))}
    source = _source_without_file()
    return {} if source is None else {'main_source': source}


def _describe_name(main, name):
    entries = {'init_main_from_name': name}
    path = getattr(main, '__file__', None)
    if path is not None and _is_dunder_main(name):
        entries['main_file'] = os.path.normpath(_absolute(path))
    return entries


def _absolute(path):
    if not os.path.isabs(path) and process.ORIGINAL_DIR is not None:
        return os.path.join(process.ORIGINAL_DIR, path)
    return path


def _is_dunder_main(name):
    return name == '__main__' or name.endswith('.__main__')


_known_source = None


def _source_without_file():
    """(source, file name) of a program given with -c or on stdin; None at the prompt."""
    global _known_source
    if _known_source is None and not hasattr(sys, 'ps1'):
        code = _command()
        if code is not None:
            _known_source = (code, '<string>')
        else:
            code = _stdin_source()
            if code is not None:
                _known_source = (code, '<stdin>')
    return _known_source


def _command():
    """The argument of -c, from the command line that this process was started with."""
    if not sys.argv or sys.argv[0] != '-c':
        return None
    arguments = iter(sys.orig_argv[1:])
    for argument in arguments:
        if argument.startswith('--'):
            if argument == '--check-hash-based-pycs':
                next(arguments, None)
            continue
        if not argument.startswith('-'):
            return None
        for index, letter in enumerate(argument[1:], 2):
            if letter == 'c':
                return argument[index:] or next(arguments, None)
            if letter in 'WX':  # the rest of it, or the next argument, belongs to the option
                if not argument[index:]:
                    next(arguments, None)
                break
    return None


def _stdin_source():
    """The program that was read from stdin, while that is a file: the host makes one of a pipe."""
    import stat
    try:
        status = os.fstat(0)
        if not stat.S_ISREG(status.st_mode):
            return None
        return os.pread(0, status.st_size, 0)
    except OSError:
        return None


# ---- In the child --------------------------------------------------------------------------------------------

def run_path(path, *, chosen=True, code=None):
    """The module that importing the script at `path` as __mp_main__ gives.  `code`: where its code is known."""
    if code is None:
        if os.path.isdir(path):
            return _run_container(path)
        with io.open_code(path) as file:
            data = file.read()
        if data[:2] == b'PK':
            return _run_container(path)
        code = _compile(data, path)
    module = _new_module(path, None)
    _execute(code, module, path, chosen=chosen)
    return module


def _run_container(path):
    """A folder or zip file, given by somebody who calls spawn.import_main_path() directly."""
    import runpy
    module = types.ModuleType(MAIN_NAME)
    with guard.importing_main(module, chosen=True):
        module.__dict__.update(runpy.run_path(path, run_name=MAIN_NAME))
    return module


def run_name(name, *, chosen=True):
    """The module that importing `name` as __mp_main__ gives."""
    import importlib.util
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ImportError(f'the main module {name!r} of the parent process cannot be found here', name=name)
    module = _new_module(spec.origin, spec)
    _execute(spec.loader.get_code(spec.name), module, spec.origin, chosen=chosen)
    return module


def _new_module(path, spec):
    module = types.ModuleType(MAIN_NAME)
    names = module.__dict__
    names['__spec__'] = spec
    names['__file__'] = path
    names['__cached__'] = getattr(spec, 'cached', None)
    names['__loader__'] = getattr(spec, 'loader', None)
    names['__package__'] = spec.parent if spec is not None else ''
    return module


def _compile(data, path):
    import _frozen_importlib_external  # importlib itself is slow to import
    if data.startswith(_frozen_importlib_external.MAGIC_NUMBER):
        import marshal
        return marshal.loads(memoryview(data)[16:])
    return compile(data, path, 'exec', dont_inherit=True)


def _execute(code, module, argv0, *, chosen=False, lenient=False):
    """Runs the main module's code, with itself and the program's name in the places where it looks for them."""
    replaced = sys.modules.get(MAIN_NAME)
    sys.modules[MAIN_NAME] = module
    old_argv0 = sys.argv[0] if sys.argv else None
    if sys.argv and argv0 is not None:
        sys.argv[0] = argv0
    try:
        with guard.importing_main(module, chosen=chosen, lenient=lenient):
            exec(code, module.__dict__)
    except BaseException:
        if replaced is not None:
            sys.modules[MAIN_NAME] = replaced
        raise
    finally:
        if sys.argv and old_argv0 is not None:
            sys.argv[0] = old_argv0


class LazyMainModule(types.ModuleType):
    """A main module whose code runs when a name is asked for that it does not have yet.

    Names with two underscores on both sides never run it: they are asked for by those who merely look.
    """

    def __init__(self, entries):
        super().__init__(MAIN_NAME)
        self.__dict__['__pyhost_entries__'] = entries
        self.__dict__['__pyhost_lock__'] = threading.RLock()
        self.__dict__['__pyhost_ran__'] = False

    def __getattr__(self, name):
        if name.startswith('__') and name.endswith('__'):
            raise AttributeError(f'module {MAIN_NAME!r} has no attribute {name!r}')
        names = self.__dict__
        with names['__pyhost_lock__']:
            if not names['__pyhost_ran__']:
                names['__pyhost_ran__'] = True
                self._run(name)
        if name in names:
            return names[name]
        raise AttributeError(f"module '__main__' has no attribute {name!r}", name=name, obj=self)

    def _run(self, name):
        entries = self.__dict__['__pyhost_entries__']
        try:
            if 'main_source' in entries:
                self._run_source(*entries['main_source'])
            else:
                self._run_file(entries['init_main_from_name'], entries.get('main_file'))
        except Exception as error:
            raise AttributeError(
                f"'__main__' has no attribute {name!r} yet, and importing the main module to find it failed "
                f'({type(error).__name__}: {error}); define {name!r} in a module of its own', name=name,
                obj=self) from error

    def _run_source(self, source, filename):
        text = source.decode() if isinstance(source, bytes) else source
        import linecache
        linecache.cache[filename] = (len(text), None, text.splitlines(True), filename)
        _execute(compile(source, filename, 'exec', dont_inherit=True), self, None, lenient=True)

    def _run_file(self, name, path):
        spec = _find_dunder_main(name, path)
        if spec is None:
            raise ImportError(f'the main module {name!r} cannot be found', name=name, path=path)
        self.__dict__.update(_new_module(spec.origin, spec).__dict__)
        _execute(spec.loader.get_code(spec.name), self, spec.origin, lenient=True)


def _find_dunder_main(name, path):
    """The spec of `__main__` in the folder or zip file that the program is, or of a package's `__main__`."""
    if name == '__main__':
        if path is None:
            return None
        from importlib.machinery import PathFinder
        return PathFinder.find_spec(name, [os.path.dirname(path)])
    import importlib.util
    return importlib.util.find_spec(name)
