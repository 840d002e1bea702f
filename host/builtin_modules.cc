#include "host/builtin_modules.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifdef PYHOST_HAS_NATIVE
PyMODINIT_FUNC PyInit__pyhost();
#endif

namespace pyhost::host {

void AddBuiltinModules() {
#ifdef PYHOST_HAS_NATIVE
  if (PyImport_AppendInittab("_pyhost", PyInit__pyhost) < 0) Py_FatalError("pyhost: out of memory");
#endif
}

}  // namespace pyhost::host
