// What the symbols are that a static libpython lacks (host/missing_builtins.py): linked into every program that embeds it.

#define PY_SSIZE_T_CLEAN
#include <Python.h>

// Only modules whose table entries host/builtin_modules.cc replaces would call it.
extern "C" [[noreturn]] void pyhost_missing_from_libpython();
void pyhost_missing_from_libpython() {
  Py_FatalError("pyhost: a built-in module was used that this libpython cannot have");
}
