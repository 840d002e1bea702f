// Small helpers around absl::Status.
//
// Errors of system calls name the call and its object, and carry the errno as a payload, so that the
// bindings can raise OSError(errno, ...).

#ifndef PYHOST_RUNTIME_BASE_STATUS_UTIL_H_
#define PYHOST_RUNTIME_BASE_STATUS_UTIL_H_

#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pyhost {

// "<what>: <text of error>", e.g. ErrnoStatus(errno, "mmap segment 7 (64 MiB)").  The code is the one that
// absl::ErrnoToStatusCode gives.
absl::Status ErrnoStatus(int error, std::string_view what);

// The same for a message that already ends with the text of the error (it comes from another process, say).
absl::Status StatusWithErrno(int error, std::string_view message);

// The errno that ErrnoStatus put in, or 0.
int ErrnoOf(const absl::Status& status);

// The same status with `prefix` and ": " in front of its message; payloads stay.
absl::Status Annotate(const absl::Status& status, std::string_view prefix);

}  // namespace pyhost

// Returns the error of `expr` from the enclosing function, if it has one.
#define PYHOST_RETURN_IF_ERROR(expr)                        \
  do {                                                      \
    ::absl::Status pyhost_status_ = (expr);                 \
    if (!pyhost_status_.ok()) return pyhost_status_;        \
  } while (false)

// PYHOST_ASSIGN_OR_RETURN(std::string text, ReadText(path));
#define PYHOST_ASSIGN_OR_RETURN(lhs, expr) \
  PYHOST_ASSIGN_OR_RETURN_IMPL_(PYHOST_STATUS_CONCAT_(pyhost_status_or_, __LINE__), lhs, expr)
#define PYHOST_ASSIGN_OR_RETURN_IMPL_(status_or, lhs, expr) \
  auto status_or = (expr);                                  \
  if (!status_or.ok()) return status_or.status();           \
  lhs = *std::move(status_or)
#define PYHOST_STATUS_CONCAT_(a, b) PYHOST_STATUS_CONCAT_IMPL_(a, b)
#define PYHOST_STATUS_CONCAT_IMPL_(a, b) a##b

#endif  // PYHOST_RUNTIME_BASE_STATUS_UTIL_H_
