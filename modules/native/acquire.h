// acquire() and `with` of Lock and Semaphore, which wait alike.

#ifndef PYHOST_MODULES_NATIVE_ACQUIRE_H_
#define PYHOST_MODULES_NATIVE_ACQUIRE_H_

#include <array>

#include "modules/native/fast_arguments.h"
#include "modules/native/gil_wait.h"
#include "modules/native/shared_object.h"

namespace pyhost::native {

// True: acquired.  False: not within the deadline.  Null with a Python error.
template <typename View>
PyObject* AcquireUntil(PyObject* self, Deadline deadline) {
  std::optional<View> view = OpenShared<View>(self);
  if (!view) return nullptr;
  GilWait gil;
  const absl::Status status = view->Acquire(gil.Until(deadline));
  if (status.ok()) Py_RETURN_TRUE;
  if (absl::IsDeadlineExceeded(status)) Py_RETURN_FALSE;
  return SetError(status);
}

// acquire(block=True, timeout=None)
template <typename View>
PyObject* Acquire(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  static constexpr std::array kNames = {"block", "timeout"};
  FastArguments<kNames.size()> given;
  Deadline deadline = Deadline::Never();
  if (!given.Parse("acquire", kNames, 0, args, count, keywords) || !ParseBlockTimeout(given[0], given[1], &deadline)) {
    return nullptr;
  }
  return AcquireUntil<View>(self, deadline);
}

// __enter__()
template <typename View>
PyObject* Enter(PyObject* self, PyObject*) {
  return AcquireUntil<View>(self, Deadline::Never());
}

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_ACQUIRE_H_
