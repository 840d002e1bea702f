// fork_hooks.h: the session is told of every fork of its process.
//
// From the hook before a fork to the one after it the forking thread holds locks that others may be waiting for, with the
// GIL.  No Python code may run in between, or they would have the GIL and wait for ever: so these hooks are the first that
// are registered, which makes them the last before a fork and the first after it.

#ifndef PYHOST_MODULES_NATIVE_FORK_HOOKS_H_
#define PYHOST_MODULES_NATIVE_FORK_HOOKS_H_

#include "modules/native/python_ref.h"

namespace pyhost::native {

// Registers them, once a process, for its main interpreter (no other may fork).  `posix`: that module, which may still
// be executing.  -1 with a Python error set.
int RegisterForkHooks(PyObject* posix);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_FORK_HOOKS_H_
