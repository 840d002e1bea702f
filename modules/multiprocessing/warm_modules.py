"""Modules of the standard library that main modules import: the spawn server imports them too, so that children find them.

Most of what a child of spawn does, where the main module is that of a real program, is to import again what the program
imports: 2 ms for json, 8 for concurrent.futures, 25 for asyncio.  Of the standard library's modules that is work
without an effect of its own, so it need not be repeated:

  server   before it is ready, if it was launched early for a script: imports what that script imports before it does anything
           else.  So will each child, in that order, and finds it done (warm_script)
  child    when its main module and those of what it is to run are imported: writes what else of the standard library was
           imported to the server's socket, and with which sys.path (report)
  server   after a few starts, when none has come for a moment: imports it, with its own sys.path, and freezes it (warm_up)
  child    later ones have it from the fork.  One whose sys.path is another forgets it all before its main module is imported,
           for a folder there may have a module of the same name (adapt)

Left to the children: what is not in ALLOWED (reads the environment or a terminal when imported, starts threads, warns), and
everything outside of the standard library: what its import does cannot be known.  `-X preload=` names such modules.
"""

import os
import sys

from . import util

__all__ = ()

ALLOWED = frozenset('''
    __future__ abc annotationlib argparse array ast asyncio base64 binascii bisect bz2 calendar cmath code codecs codeop collections colorsys
    compileall compression concurrent configparser contextlib contextvars copy copyreg csv dataclasses datetime decimal difflib dis
    email encodings enum errno fcntl filecmp fileinput fnmatch fractions functools gc genericpath getopt getpass gettext glob grp
    graphlib gzip hashlib heapq hmac html http importlib inspect io ipaddress itertools json keyword linecache logging lzma
    marshal math mimetypes mmap multiprocessing netrc ntpath numbers opcode operator os pathlib pickle pickletools pkgutil platform plistlib
    posixpath pprint pwd py_compile queue quopri random re reprlib resource runpy sched secrets select selectors shelve
    shlex shutil signal socket socketserver sqlite3 sre_compile sre_constants sre_parse ssl stat statistics string stringprep
    struct subprocess symtable tarfile tempfile textwrap threading time timeit token tokenize tomllib traceback tracemalloc types
    typing unicodedata unittest urllib uuid warnings wave weakref xml zipfile zipimport zlib'''.split())

# Libraries that want to be there before what they replace is imported.
_PATCHERS = 'gevent', 'eventlet'

_LONGEST_REPORT = 1 << 16  # bytes

# Of the server, and inherited by its children.
_report_fd = -1
_report_file = None  # which descriptor that is, for a child may have been given another of its number
_known = frozenset()  # the modules that every child begins with, whatever its script
_warm = None  # (the sys.path that it is for, names); None: nothing yet
# Where the standard library is, and what stands for parts of it here.
_FOLDERS = os.path.dirname(os.__file__) + os.sep, os.path.dirname(os.path.dirname(__file__)) + os.sep


def serve(report_fd):
    """In the server, when it is ready: children report to this descriptor."""
    global _report_fd, _report_file, _known
    _report_fd, _report_file = report_fd, util.identity_of_descriptor(report_fd)
    _known = frozenset(sys.modules).difference(_warm[1] if _warm else ())


def _forget(names):
    """As if these modules had never been imported: their packages do not know them either."""
    for name in names:
        module = sys.modules.pop(name, None)
        package, _, last = name.rpartition('.')
        known = vars(sys.modules[package]) if package in sys.modules else {}
        if module is not None and known.get(last) is module:
            del known[last]


def _path():
    return '\0'.join(entry for entry in sys.path if isinstance(entry, str))


# ---- In a child ------------------------------------------------------------------------------------------------------


def adapt():
    """Before the main module is imported: forgets what is warm if this child looks for modules elsewhere."""
    global _warm
    if _warm is None or _warm[0] == _path():
        return
    _forget(_warm[1])
    _warm = '', ()


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
            text = '\n'.join([_path(), *names]).encode('utf-8', 'surrogateescape')
            if names and len(text) <= _LONGEST_REPORT:
                os.write(fd, text)
    except OSError:
        pass  # the server is gone, or has enough
    finally:
        os.close(fd)


def _may_report():
    if sys.flags.verbose or 'importtime' in sys._xoptions:
        return False  # who asks for that wants to see each import
    return not any(name in sys.modules for name in _PATCHERS)


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


class _AnotherModule(Exception):
    """None of ALLOWED."""


def warm_script(script):
    """Imports what this script will import first, in the children too.

    Nothing is kept of which the script's folder may have another version, and nothing imported where the search path may.
    """
    global _warm
    folder = os.path.dirname(os.path.realpath(script))
    before = frozenset(sys.modules)
    try:
        if any(_names_in(ahead) & sys.stdlib_module_names for ahead in _ahead_of_library()):
            return
        own, code = _names_in(folder), compile(_head(script), script, 'exec', dont_inherit=True)
    except (OSError, SyntaxError, ValueError):
        return  # the program will say so itself
    fits = _is_done(exec, code, {'__builtins__': {'__import__': _import_allowed}})
    _warm = '\0'.join([folder, *sys.path]), _keep(before, fits, lambda name: name.partition('.')[0] not in own)


def _import_allowed(name, globals=None, locals=None, fromlist=None, level=0):
    if level or name.partition('.')[0] not in ALLOWED:
        raise _AnotherModule(name)
    return __import__(name, fromlist=fromlist or ())


def _ahead_of_library():
    """The folders that are searched before the standard library's."""
    library = sys.path.index(os.path.dirname(os.__file__))
    return filter(os.path.isdir, sys.path[:library])


def _names_in(folder):
    return {entry.partition('.')[0] for entry in os.listdir(folder)}


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
            return text[3:].partition(quote)[2].lstrip(' ')
    return text


def warm_up(data):
    """Imports what a child has reported.  There are no reports after the first."""
    global _warm, _report_fd
    _report_fd = -1
    path, *names = data.decode('utf-8', 'surrogateescape').split('\n')
    if _warm and _warm[0] != path:
        _forget(_warm[1])
        _warm = None
    before = frozenset(sys.modules)
    fits = _is_done(_import_each, names)
    # Something else may have been imported in place of what the child has: a module of the program's, in its own folder.
    new = _keep(before, fits, frozenset(names).__contains__)
    _warm = path, new + (_warm[1] if _warm else ())


def _is_done(function, *arguments):
    """Whether it imports what it is to import."""
    try:
        function(*arguments)
    except _AnotherModule:
        pass
    except BaseException:  # whatever it is, the children will meet it themselves
        return False
    return True


def _import_each(names):
    for name in names:
        if name.partition('.')[0] in ALLOWED:
            __import__(name)


def _keep(before, fits, is_the_same):
    """The modules imported since `before`; none, if they do not fit or the children may have others in their place."""
    new = tuple(name for name in list(sys.modules) if name not in before)
    if fits and all(_is_allowed(name) and is_the_same(name) and _is_standard(name) for name in new):
        return new
    _forget(new)
    return ()


def _is_allowed(name):
    return name.startswith('_') or name.partition('.')[0] in ALLOWED
