"""Print what the build needs to know of the chosen interpreter, one `key = value` per line.

Run by meson with the interpreter that pyhost is to embed.  sysconfig of that very interpreter is the only
trustworthy source: pkg-config describes whichever Python came first.
"""

import os
import sys
import sysconfig


def archive():
    """Path of the static libpython, or '' where it is not installed."""
    folder = sysconfig.get_config_var("LIBPL") or ""
    name = sysconfig.get_config_var("LIBRARY") or ""
    path = os.path.join(folder, name)
    return path if name.endswith(".a") and os.path.isfile(path) else ""


def libraries():
    """Names of the libraries (without -l) that libpython and its built-in modules need."""
    words = " ".join(
        sysconfig.get_config_var(key) or "" for key in ("MODLIBS", "LIBS", "SYSLIBS")
    ).split()
    return list(dict.fromkeys(word[2:] for word in words if word.startswith("-l")))


def library_folders():
    """Folders that the interpreter's own link line searches for those libraries."""
    words = (sysconfig.get_config_var("LIBS") or "").split()
    return list(dict.fromkeys(word[2:] for word in words if word.startswith("-L")))


def main():
    facts = {
        "version": "%d.%d" % sys.version_info[:2],
        "full_version": "%d.%d.%d" % sys.version_info[:3],
        "implementation": sys.implementation.name,
        "executable": sys.executable,
        "prefix": sys.base_prefix,
        "exec_prefix": sys.base_exec_prefix,
        "include": sysconfig.get_path("include"),
        "platinclude": sysconfig.get_path("platinclude"),
        "header": os.path.join(sysconfig.get_path("include"), "Python.h"),
        "archive": archive(),
        "archive_folder": sysconfig.get_config_var("LIBPL") or "",
        "libraries": ";".join(libraries()),
        "library_folders": ";".join(library_folders()),
        "free_threaded": str(sysconfig.get_config_var("Py_GIL_DISABLED") or 0),
    }
    for key, value in facts.items():
        print(f"{key} = {value}")


if __name__ == "__main__":
    main()
