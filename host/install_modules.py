"""Install pyhost's Python modules beside the program, with their bytecode.

Run by `meson install`: install_modules.py SOURCE FOLDER, where FOLDER lies in the install prefix.  What an earlier
installation left in FOLDER is replaced as a whole, so that no module of an older pyhost stays importable.
"""

import compileall
import os
import pathlib
import shutil
import sys

PACKAGES = ("multiprocessing", "concurrent", "pyhost")


def install(source, folder, destdir):
    """Copy each package that there is, then compile it under the path that it will be run from."""
    target = pathlib.Path(destdir + str(folder)) if destdir else folder
    for package in PACKAGES:
        shutil.rmtree(target / package, ignore_errors=True)
        if (source / package).is_dir():
            shutil.copytree(source / package, target / package, ignore=shutil.ignore_patterns("__pycache__", "*.build"))
    target.mkdir(parents=True, exist_ok=True)
    if not compileall.compile_dir(target, quiet=1, force=True, stripdir=destdir or None):
        sys.exit(f"install_modules.py: cannot compile the modules in {target}")


if __name__ == "__main__":
    install(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), os.environ.get("DESTDIR", ""))
