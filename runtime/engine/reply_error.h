// What a call's outcome says when it is no value, as a Status.

#ifndef PYHOST_RUNTIME_ENGINE_REPLY_ERROR_H_
#define PYHOST_RUNTIME_ENGINE_REPLY_ERROR_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "runtime/broker/call_frame.h"

namespace pyhost {

// Payloads of a Status that a script's exception became.
inline constexpr char kExceptionTypeUrl[] = "pyhost/exception-type";
inline constexpr char kTracebackUrl[] = "pyhost/traceback";

// `packed`: what pyhost.engine.describe() made of an exception raised by `function`.
absl::Status ExceptionStatus(std::string_view function, std::span<const std::byte> packed);

// The worker ended in the middle of the call: "the worker (pid 811) killed by SIGSEGV running brain:plan", and what it wrote
// about where it was (`fault`, may be empty).  Aborted.
absl::Status LostStatus(std::string_view function, const LostWorker& lost, std::string_view fault);
// ... because the call's deadline was over.  DeadlineExceeded.
absl::Status OverdueStatus(std::string_view function, int32_t pid, std::string_view fault);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_ENGINE_REPLY_ERROR_H_
