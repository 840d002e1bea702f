// Errors of finalizers that run when modules are already cleared.
//
// python3 lets such objects go before their modules, or never; a child that keeps its server's modules (child_exit.h)
// finalizes them last.  A finalizer that fails because it finds None where a module's name stood tells a user nothing, and is
// not reported; any other error goes to sys.unraisablehook as always.

#ifndef PYHOST_HOST_TEARDOWN_ERRORS_H_
#define PYHOST_HOST_TEARDOWN_ERRORS_H_

#include "modules/native/python_ref.h"

namespace pyhost::host {

// While it lives, unraisable errors raised by code whose module has been cleared are dropped.  Needs the GIL.
class TeardownErrors {
 public:
  TeardownErrors();
  ~TeardownErrors();
  TeardownErrors(const TeardownErrors&) = delete;
  TeardownErrors& operator=(const TeardownErrors&) = delete;

 private:
  native::PyRef before_;  // the program's hook
};

}  // namespace pyhost::host

#endif  // PYHOST_HOST_TEARDOWN_ERRORS_H_
