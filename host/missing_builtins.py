"""Print what a static libpython lacks: `modules = a;b` (built-in modules that cannot work) and `symbols = x;y`.

    missing_builtins.py ARCHIVE [NM]

Debian's archives of Python 3.13 and newer were made without the objects of HACL*, the library behind _blake2, _md5,
_sha1, _sha2 and _sha3 (python/cpython#131298).  The program is linked nevertheless: these modules leave its table, and
host/builtin_modules.cc says what stands in for them.
"""

import subprocess
import sys

# Names that only libpython itself can define; all others come from the C library and its like.
OWN_PREFIXES = ("Py", "_Py", "python_")
INIT = "PyInit_"


def symbols_by_member(archive, nm):
    """(member, type, symbol) for every line of nm's portable format."""
    command = [nm, "--print-file-name", "--format=posix", archive]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for line in listing.splitlines():
        place, separator, rest = line.partition(": ")
        words = rest.split()
        if separator and len(words) >= 2:
            yield place, words[1], words[0]


def missing(archive, nm):
    """Sorted names of the broken modules and of the undefined symbols."""
    defined, wanted, modules = set(), {}, {}
    for member, kind, symbol in symbols_by_member(archive, nm):
        if kind == "U":
            if symbol.startswith(OWN_PREFIXES):
                wanted.setdefault(symbol, set()).add(member)
            continue
        if kind in "wv":  # weak and undefined
            continue
        defined.add(symbol)
        if symbol.startswith(INIT):
            modules.setdefault(member, set()).add(symbol[len(INIT):])
    symbols = sorted(set(wanted) - defined)
    broken = set()
    for symbol in symbols:
        for member in wanted[symbol]:
            if member not in modules:
                sys.exit(f"{archive}: {member} needs {symbol}, which is not in the archive: it cannot be linked")
            broken |= modules[member]
    return sorted(broken), symbols


def main():
    archive, nm = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "nm"
    modules, symbols = missing(archive, nm)
    print("modules = " + ";".join(modules))
    print("symbols = " + ";".join(symbols))


if __name__ == "__main__":
    main()
