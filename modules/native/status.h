// The one table from absl::Status to Python exceptions.
//
//   DeadlineExceeded    TimeoutError          NotFound, DataLoss   OSError(ESTALE / EBADMSG)
//   ResourceExhausted   MemoryError           Unavailable          SessionError
//   InvalidArgument     ValueError            Unimplemented        NotImplementedError
//   FailedPrecondition  ValueError            OutOfRange           EOFError
//   Aborted             OwnerDiedError        PermissionDenied     PermissionError
//   Cancelled           the Python error that a signal handler raised (already set)
//
// A status with an errno payload (runtime/base/status_util.h) becomes OSError(errno, message), whatever its code.

#ifndef PYHOST_MODULES_NATIVE_STATUS_H_
#define PYHOST_MODULES_NATIVE_STATUS_H_

#include "absl/status/status.h"
#include "modules/native/python_ref.h"

namespace pyhost::native {

// Sets the Python error for a status that is not OK and returns null, for `return SetError(status);`.
PyObject* SetError(const absl::Status& status);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_STATUS_H_
