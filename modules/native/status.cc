#include "modules/native/status.h"

#include <cerrno>
#include <string>

#include "modules/native/module_state.h"
#include "runtime/base/status_util.h"

namespace pyhost::native {
namespace {

PyObject* SetOsError(PyObject* type, int error_number, const std::string& message) {
  PyRef arguments = PyRef::Steal(Py_BuildValue("(is)", error_number, message.c_str()));
  if (arguments) PyErr_SetObject(type, arguments.get());
  return nullptr;
}

PyObject* SetMessage(PyObject* type, const std::string& message) {
  PyErr_SetString(type, message.c_str());
  return nullptr;
}

}  // namespace

PyObject* SetError(const absl::Status& status) {
  if (status.code() == absl::StatusCode::kCancelled && PyErr_Occurred()) return nullptr;
  const std::string message(status.message());
  if (int error_number = ErrnoOf(status); error_number != 0) {
    return SetOsError(PyExc_OSError, error_number, message);
  }
  ModuleState* state = GetState();
  if (state == nullptr) return nullptr;
  switch (status.code()) {
    case absl::StatusCode::kDeadlineExceeded:
      return SetMessage(PyExc_TimeoutError, message);
    case absl::StatusCode::kResourceExhausted:
      return SetMessage(PyExc_MemoryError, message);
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
      return SetMessage(PyExc_ValueError, message);
    case absl::StatusCode::kOutOfRange:
      return SetMessage(PyExc_EOFError, message);
    case absl::StatusCode::kAborted:
      return SetMessage(state->owner_died_error.get(), message);
    case absl::StatusCode::kNotFound:
      return SetOsError(PyExc_OSError, ESTALE, message);
    case absl::StatusCode::kDataLoss:
      return SetOsError(PyExc_OSError, EBADMSG, message);
    case absl::StatusCode::kPermissionDenied:
      return SetOsError(PyExc_OSError, EPERM, message);
    case absl::StatusCode::kUnavailable:
      return SetOsError(state->session_error.get(), EPIPE, message);
    case absl::StatusCode::kUnimplemented:
      return SetMessage(PyExc_NotImplementedError, message);
    default:
      return SetMessage(PyExc_RuntimeError, status.ToString());
  }
}

}  // namespace pyhost::native
