// The built-in modules: CPython's own without those that this libpython cannot have (host/missing_builtins.py), and
// pyhost's.

#ifndef PYHOST_HOST_BUILTIN_MODULES_H_
#define PYHOST_HOST_BUILTIN_MODULES_H_

namespace pyhost::host {

// Makes them Python's table.  Call once, before Python is initialised.
void AddBuiltinModules();

}  // namespace pyhost::host

#endif  // PYHOST_HOST_BUILTIN_MODULES_H_
