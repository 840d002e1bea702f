// The built-in modules that pyhost adds to CPython's own.

#ifndef PYHOST_HOST_BUILTIN_MODULES_H_
#define PYHOST_HOST_BUILTIN_MODULES_H_

namespace pyhost::host {

// Adds them to Python's table.  Call once, before Python is initialised.
void AddBuiltinModules();

}  // namespace pyhost::host

#endif  // PYHOST_HOST_BUILTIN_MODULES_H_
