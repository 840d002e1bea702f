#include "host/builtin_modules.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstring>

PyMODINIT_FUNC PyInit__pyhost();

// What the symbols are that libpython lacks: only modules that are not in the table any more would call it.
extern "C" [[noreturn]] void pyhost_missing_from_libpython();
void pyhost_missing_from_libpython() {
  Py_FatalError("pyhost: a built-in module was used that this libpython cannot have");
}

namespace pyhost::host {

#ifdef PYHOST_HAS_BLAKE2
PyObject* InitBlake2();  // blake2_module.cc
#endif

namespace {

using InitFunction = PyObject* (*)();

#ifdef PYHOST_MISSING_BUILTINS
constexpr const char* kMissing[] = {PYHOST_MISSING_BUILTINS};

bool IsMissing(const char* name) {
  for (const char* missing : kMissing) {
    if (std::strcmp(name, missing) == 0) return true;
  }
  return false;
}

// Our own module in a missing one's place; null where there is none.  hashlib has the others' hashes from OpenSSL.
InitFunction Replacement([[maybe_unused]] const char* name) {
#ifdef PYHOST_HAS_BLAKE2
  if (std::strcmp(name, "_blake2") == 0) return InitBlake2;
#endif
  return nullptr;
}

void MendTable() {
  struct _inittab* kept = PyImport_Inittab;
  for (struct _inittab* entry = PyImport_Inittab; entry->name != nullptr; ++entry) {
    InitFunction function = entry->initfunc;
    if (IsMissing(entry->name)) {
      function = Replacement(entry->name);
      if (function == nullptr) continue;
    }
    *kept++ = {entry->name, function};
  }
  *kept = {nullptr, nullptr};
}
#else
void MendTable() {}
#endif

}  // namespace

void AddBuiltinModules() {
  MendTable();
  if (PyImport_AppendInittab("_pyhost", PyInit__pyhost) < 0) Py_FatalError("pyhost: out of memory");
}

}  // namespace pyhost::host
