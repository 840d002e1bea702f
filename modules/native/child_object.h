// _pyhost.Child: a started process, as its starter sees it (runtime/supervision/child_process.h).

#ifndef PYHOST_MODULES_NATIVE_CHILD_OBJECT_H_
#define PYHOST_MODULES_NATIVE_CHILD_OBJECT_H_

#include <memory>

#include "modules/native/module_state.h"
#include "modules/native/python_ref.h"
#include "runtime/supervision/child_process.h"

namespace pyhost::native {

// A new Python object that owns `child`; null with a Python error.
PyObject* NewChild(ModuleState* state, std::unique_ptr<ChildProcess> child);

int BindChild(PyObject* module, ModuleState* state);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_CHILD_OBJECT_H_
