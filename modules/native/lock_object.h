// _pyhost.Lock for other C++: taken and released without a call through Python.

#ifndef PYHOST_MODULES_NATIVE_LOCK_OBJECT_H_
#define PYHOST_MODULES_NATIVE_LOCK_OBJECT_H_

#include "modules/native/python_ref.h"

namespace pyhost::native {

// Whether acquire() and release() of `lock`, which may be anything, are those of _pyhost.Lock: its class is one of ours,
// and neither a subclass nor somebody else has put others in their place.
bool HasOwnLocking(PyObject* lock);

// For a lock with HasOwnLocking().  False with the Python error that its acquire() or release() would raise.
bool AcquireLock(PyObject* lock);
bool ReleaseLock(PyObject* lock);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_LOCK_OBJECT_H_
