// Which fork server this process's starts go to: method, interpreter options, and what forkserver preloads.

#ifndef PYHOST_MODULES_NATIVE_SERVER_SETTINGS_H_
#define PYHOST_MODULES_NATIVE_SERVER_SETTINGS_H_

#include <string>

#include "modules/native/python_ref.h"
#include "runtime/session/session.h"
#include "runtime/supervision/protocol.h"

namespace pyhost::native {

// The spec for a start by `method` now.  False with a Python error.
bool MakeServerSpec(Session* session, const std::string& method, ServerSpec* spec);

// Has the spawn server started in the background, unless the program has chosen another method.  Errors are left to the
// first start.
void WarmServer(Session* session);

int BindServers(PyObject* module);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_SERVER_SETTINGS_H_
