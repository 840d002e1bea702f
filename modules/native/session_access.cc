#include "modules/native/session_access.h"

#include <string>

#include "modules/native/python_ref.h"
#include "modules/native/server_settings.h"
#include "modules/native/status.h"

namespace pyhost::native {
namespace {

// The program that children run: multiprocessing.spawn's executable (set_executable), else sys.executable.
bool ProgramPath(std::string* path) {
  PyObject* executable = PySys_GetObject("_pyhost_program");
  if (executable == nullptr) executable = PySys_GetObject("executable");
  if (executable == nullptr || !PyUnicode_Check(executable) || PyUnicode_GET_LENGTH(executable) == 0) {
    PyErr_SetString(PyExc_RuntimeError, "sys.executable does not name the pyhost program: children cannot be started");
    return false;
  }
  PyRef bytes = PyRef::Steal(PyUnicode_EncodeFSDefault(executable));
  if (!bytes) return false;
  path->assign(PyBytes_AS_STRING(bytes.get()), static_cast<size_t>(PyBytes_GET_SIZE(bytes.get())));
  return true;
}

}  // namespace

Session* EnsureSession(SessionUse use) {
  if (Session* session = Session::Current(); session != nullptr && session->me()) return session;
  SessionOptions options;
  if (!ProgramPath(&options.program)) return nullptr;
  absl::StatusOr<Session*> session = Session::Ensure(options);
  if (session.ok()) {
    if (use != SessionUse::kFork) WarmServer(*session);
    return *session;
  }
  SetError(session.status());
  return nullptr;
}

Session* RequireSession() {
  Session* session = Session::Current();
  if (session != nullptr && session->me()) return session;
  PyErr_SetString(PyExc_RuntimeError, "this process is in no pyhost session");
  return nullptr;
}

}  // namespace pyhost::native
