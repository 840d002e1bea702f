#include "host/builtin_modules.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstring>

PyMODINIT_FUNC PyInit__pyhost();

namespace pyhost::host {

#ifdef PYHOST_HAS_BLAKE2
PyObject* InitBlake2();  // blake2_module.cc
#endif
#ifdef PYHOST_HAS_HASHES
PyObject* InitMd5();  // hash_modules.cc
PyObject* InitSha1();
PyObject* InitSha2();
PyObject* InitSha3();
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

struct Replacement {
  const char* name;
  InitFunction function;
};

// Our own modules in the places of missing ones.
constexpr Replacement kReplacements[] = {
#ifdef PYHOST_HAS_BLAKE2
    {"_blake2", InitBlake2},
#endif
#ifdef PYHOST_HAS_HASHES
    {"_md5", InitMd5},
    {"_sha1", InitSha1},
    {"_sha2", InitSha2},
    {"_sha3", InitSha3},
#endif
};

InitFunction ReplacementOf(const char* name) {
  for (const Replacement& replacement : kReplacements) {
    if (std::strcmp(name, replacement.name) == 0) return replacement.function;
  }
  Py_FatalError("pyhost: the build has no replacement for a built-in module that libpython lacks");
}

void MendTable() {
  for (struct _inittab* entry = PyImport_Inittab; entry->name != nullptr; ++entry) {
    if (IsMissing(entry->name)) entry->initfunc = ReplacementOf(entry->name);
  }
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
