"""Modules of the standard library that main modules import: the spawn server imports them too, so that later children find them.

Most of what a child of spawn does, where the main module is that of a real program, is to import again what the program
imports: 2 ms for json, 8 for concurrent.futures, 25 for asyncio.  Of the standard library's modules that is work
without an effect of its own, so it need not be repeated:

  child    after the main module is imported: if the server has nothing warm, it writes what of the standard library was
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
_known = frozenset()  # the modules that every child begins with
_warm = None  # (sys.path of who reported, names); None: nothing yet
# Where the standard library is, and what stands for parts of it here.
_FOLDERS = os.path.dirname(os.__file__) + os.sep, os.path.dirname(os.path.dirname(__file__)) + os.sep


def serve(report_fd):
    """In the server, when it is ready: children report to this descriptor."""
    global _report_fd, _report_file, _known
    _report_fd, _report_file = report_fd, util.identity_of_descriptor(report_fd)
    _known = frozenset(sys.modules)


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
    """After the main module was imported (`wanted`), or not: the descriptor is not left to the program."""
    global _report_fd
    if _report_fd < 0:
        return
    fd, _report_fd = _report_fd, -1
    if util.identity_of_descriptor(fd) != _report_file:
        return  # a descriptor that was passed to the child had to have this number
    try:
        if wanted and _warm is None and _may_report():
            names = [name for name, module in list(sys.modules.items()) if name not in _known and _is_standard(module)]
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


def _is_standard(module):
    spec = getattr(module, '__spec__', None)
    origin = getattr(spec, 'origin', None)
    if origin in ('built-in', 'frozen'):
        return True
    return isinstance(origin, str) and origin.startswith(_FOLDERS) and '-packages' + os.sep not in origin


# ---- In the server -----------------------------------------------------------------------------------------------------


def warm_up(data):
    """Imports what a child has reported.  There are no reports after the first."""
    global _warm, _report_fd
    _report_fd = -1
    path, *names = data.decode('utf-8', 'surrogateescape').split('\n')
    before = frozenset(sys.modules)
    try:
        for name in names:
            if name.partition('.')[0] in ALLOWED:
                __import__(name)
    except BaseException:  # whatever it is, the children will meet it themselves
        fits = False
    else:
        fits = True
    new = tuple(name for name in list(sys.modules) if name not in before)
    # Something else was imported in place of what the child has: a module of the program's, in its own folder.
    if not fits or not frozenset(new).issubset(names) or not all(map(_is_allowed, new)):
        _forget(new)
        new = ()
    _warm = path, new


def _is_allowed(name):
    return name.startswith('_') or name.partition('.')[0] in ALLOWED
