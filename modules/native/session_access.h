// The way from Python code to this process's session.

#ifndef PYHOST_MODULES_NATIVE_SESSION_ACCESS_H_
#define PYHOST_MODULES_NATIVE_SESSION_ACCESS_H_

#include "runtime/session/session.h"

namespace pyhost::native {

// The session of this process, created (segment, supervisor) when there is none yet; then a fork server for spawn is
// started too, unless it was created in order to fork.  Null with a Python error.
enum class SessionUse { kAny, kFork };
Session* EnsureSession(SessionUse use = SessionUse::kAny);

// The session this process is in already; null with a Python error when there is none.
Session* RequireSession();

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_SESSION_ACCESS_H_
