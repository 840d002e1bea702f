"""Modules of the standard library that programs import: the spawn server imports them too, so that children find them.

Most of what a child of spawn does, where the main module is that of a real program, is to import again what the program
imports: 2 ms for json, 8 for concurrent.futures, 25 for asyncio.  Of the standard library's modules that is work
without an effect of its own, so it need not be repeated:

  server   before it is ready, if it was launched early for a script: imports what that script imports before it does anything
           else.  So will each child, in that order, and finds it done (warm_script)
  child    when its main module and those of what it is to run are imported: writes what else of the standard library was
           imported to the server's socket (report)
  server   after a few starts, when none has come for a moment: imports it, and freezes it (warm_up)

What was imported stays: modules in C keep what they took of others when they were initialised, and would not agree with
others that are imported anew.  So before it is imported it must be sure that every child would find the same:

  starter  a child whose search path has other modules by those names is started by another server, which imports nothing
           ahead (is_shadowed)
  server   imports nothing for a script beside which such modules lie, nor where something else than Python's own finders
           looks for modules from the beginning
  child    reports nothing if its program has put something before them

Left to the children: what is not in ALLOWED (reads the environment or a terminal when imported, starts threads, warns), and
everything outside of the standard library: what its import does cannot be known.  `-X preload=` names such modules.
"""

import builtins
import os
import stat
import sys
import time

from . import util

__all__ = ()

ALLOWED = frozenset('''
    __future__ abc annotationlib argparse array ast asyncio base64 binascii bisect bz2 calendar cmath code codecs codeop collections colorsys
    compileall compression concurrent configparser contextlib contextvars copy copyreg csv dataclasses datetime decimal difflib dis
    email encodings enum errno fcntl filecmp fileinput fnmatch fractions functools gc genericpath getopt getpass gettext glob grp
    graphlib gzip hashlib heapq hmac html http importlib inspect io ipaddress itertools json keyword linecache logging lzma
    marshal math mimetypes mmap multiprocessing netrc ntpath numbers opcode operator os pathlib pickle pickletools pkgutil platform plistlib
    posixpath pprint pwd py_compile queue quopri random re reprlib resource runpy sched secrets select selectors shelve
    shlex shutil signal socket socketserver sqlite3 ssl stat statistics string stringprep
    struct subprocess symtable tarfile tempfile textwrap threading time timeit token tokenize tomllib traceback tracemalloc types
    typing unicodedata unittest urllib uuid warnings wave weakref xml zipfile zipimport zlib'''.split())

# Libraries that want to be there before what they replace is imported.
_PATCHERS = 'gevent', 'eventlet'
# Where the types of finders come from: Python's own, pyhost's, and two that look for `distutils` and the like alone.
_FINDERS = '_frozen_importlib', '_frozen_importlib_external', 'pyhost', '_distutils_hack', '_virtualenv'

_LONGEST_REPORT = 1 << 16  # bytes

# Of the server, and inherited by its children.
_report_fd = -1
_report_file = None  # which descriptor that is, for a child may have been given another of its number
_known = frozenset()  # the modules that every child begins with
_import_state = None  # what finds modules, as every child begins with it
# Where the standard library is, and what stands for parts of it here.
_LIBRARY = os.path.dirname(os.__file__)
_FOLDERS = _LIBRARY + os.sep, os.path.dirname(os.path.dirname(__file__)) + os.sep


# ---- In a process that starts others -----------------------------------------------------------------------------------

_RECENT = 2_000_000_000  # nanoseconds in which a folder may change twice and its time once
_listed = {}  # folder: (its time, whether it hides)


def is_shadowed(path):
    """Whether this search path (absolute) may lead to other modules in place of standard ones."""
    for entry in path:
        if entry == _LIBRARY:
            return False
        if isinstance(entry, str) and _hides(entry):
            return True
    return True


def _hides(entry):
    try:
        status = os.stat(entry)
        if not stat.S_ISDIR(status.st_mode):
            return True  # an archive
        known = _listed.get(entry)
        if known is None or known[0] != status.st_mtime_ns:
            known = status.st_mtime_ns, any(map(_is_module_of_library, os.listdir(entry)))
            if time.time_ns() - status.st_mtime_ns > _RECENT:
                _listed[entry] = known
        return known[1]
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _is_module_of_library(file):
    name, _, suffix = file.partition('.')
    return name in sys.stdlib_module_names and (suffix in ('', 'py', 'pyc') or suffix.endswith('so'))


# ---- In a child ------------------------------------------------------------------------------------------------------


def report(wanted):
    """When the process object is there (`wanted`), or will not be: the descriptor is not left to the program."""
    global _report_fd
    if _report_fd < 0:
        return
    fd, _report_fd = _report_fd, -1
    if util.identity_of_descriptor(fd) != _report_file:
        return  # a descriptor that was passed to the child had to have this number
    try:
        if wanted and _may_report():
            names = [name for name in list(sys.modules) if name not in _known and _is_standard(name)]
            text = '\n'.join(names).encode('utf-8', 'surrogateescape')
            if names and len(text) <= _LONGEST_REPORT:
                os.write(fd, text)
    except OSError:
        pass  # the server is gone, or has enough
    finally:
        os.close(fd)


def _may_report():
    if sys.flags.verbose or 'importtime' in sys._xoptions:
        return False  # who asks for that wants to see each import
    return _state_of_import() == _import_state and not any(name in sys.modules for name in _PATCHERS)


def _state_of_import():
    return list(sys.meta_path), list(sys.path_hooks), builtins.__import__


def _is_standard(name):
    spec = getattr(sys.modules.get(name), '__spec__', None)
    if spec is None:  # typing.io is no module, and `typing` all the same
        package = name.rpartition('.')[0]
        return bool(package) and _is_standard(package)
    if spec.origin in ('built-in', 'frozen'):
        return True
    origin = spec.origin
    return isinstance(origin, str) and origin.startswith(_FOLDERS) and '-packages' + os.sep not in origin


# ---- In the server -----------------------------------------------------------------------------------------------------


def serve(report_fd):
    """When it is ready: children report to this descriptor."""
    global _report_fd, _report_file, _known, _import_state
    _report_fd, _report_file = report_fd, util.identity_of_descriptor(report_fd)
    _known = frozenset(sys.modules)
    _import_state = _state_of_import()


def warm_script(script):
    """Imports what this script will import first, in the children too."""
    folder = os.path.dirname(os.path.realpath(script))
    if is_shadowed([folder, *sys.path]) or not _finders_are_pythons():
        return
    try:
        code = compile(_head(script), script, 'exec', dont_inherit=True)
    except (OSError, SyntaxError, ValueError):
        return  # the program will say so itself
    _import(exec, code, {'__builtins__': {'__import__': _import_allowed}})


def warm_up(data):
    """Imports what a child has reported.  There are no reports after the first."""
    global _report_fd
    _report_fd = -1
    if _finders_are_pythons():
        _import(_import_each, data.decode('utf-8', 'surrogateescape').split('\n'))


def _finders_are_pythons():
    return all(_module_of(finder) in _FINDERS for finder in sys.meta_path)


def _module_of(finder):
    return (finder if isinstance(finder, type) else type(finder)).__module__


def _import(function, *arguments):
    try:
        function(*arguments)
    except BaseException:  # an import of another module, or what the children will meet themselves
        pass


def _is_allowed(name):
    return name.partition('.')[0] in ALLOWED


def _import_each(names):
    for name in names:
        if _is_allowed(name):
            __import__(name)


def _import_allowed(name, globals=None, locals=None, fromlist=None, level=0):
    if level or not _is_allowed(name):
        raise ImportError(f'{name} is left to the children')
    return __import__(name, fromlist=fromlist or ())


_LONGEST_HEAD = 1 << 14  # characters


def _head(script):
    """The import statements that a script begins with, behind its docstring, and nothing else."""
    with open(script, encoding='latin-1') as file:  # whatever it is, the names in question are ASCII
        lines = file.read(_LONGEST_HEAD).removeprefix('\xef\xbb\xbf').split('\n')
    while lines and _says_nothing(lines[0]):
        del lines[0]
    head = []
    for line in _after_docstring('\n'.join(lines)).split('\n'):
        if not _says_nothing(line):
            # Other lines continue one of these.  Behind a semicolon may be anything.
            if ';' in line or not line.startswith(('import ', 'from ', ' ', '\t', ')')):
                break
        head.append(line)
    return '\n'.join(head)


def _says_nothing(line):
    return not line.strip() or line.startswith('#')


def _after_docstring(text):
    for quote in '"""', "'''":
        if text.startswith(quote):
            docstring, _, rest = text[3:].partition(quote)
            return '' if '\\' in docstring else rest.lstrip(' ')  # an escaped quote is not its end
    return text
