// _pyhost.Memory: bytes in the segment as a Python buffer.  Picklable by handle; the memory lives until the
// last process dropped its last object (or view) of it.

#ifndef PYHOST_MODULES_NATIVE_MEMORY_OBJECT_H_
#define PYHOST_MODULES_NATIVE_MEMORY_OBJECT_H_

#include <cstdint>

#include "modules/native/module_state.h"
#include "modules/native/python_ref.h"
#include "modules/native/session_access.h"
#include "runtime/base/ids.h"

namespace pyhost::native {

// A new Memory of `size` bytes, contents undefined.  Null with a Python error.
PyObject* CreateMemory(ModuleState* state, Session* session, uint64_t size);

// A new Python object for a Memory object that this host holds through segment.refs(); takes a count of its own.
// Null with a Python error.  A read-only one exports read-only buffers.
PyObject* NewMemory(ModuleState* state, Handle handle, bool readonly);

// The same for an out-of-band buffer of a message, which is this process's alone: known by its address from now on
// (ModuleState::received), until the Python object is gone.
PyObject* NewReceivedMemory(ModuleState* state, Handle handle, bool readonly);

// The same as a copy-on-write view: what this process writes to it stays here.
PyObject* NewPrivateMemory(ModuleState* state, Handle handle, bool readonly);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_MEMORY_OBJECT_H_
