// _pyhost.ChildStart: one start of a child by the methods spawn and forkserver.

#ifndef PYHOST_MODULES_NATIVE_CHILD_START_OBJECT_H_
#define PYHOST_MODULES_NATIVE_CHILD_START_OBJECT_H_

#include "modules/native/module_state.h"

namespace pyhost::native {

int BindChildStart(PyObject* module, ModuleState* state);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_CHILD_START_OBJECT_H_
