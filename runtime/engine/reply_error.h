// What a call's outcome says when it is no value, as a Status.

#ifndef PYHOST_RUNTIME_ENGINE_REPLY_ERROR_H_
#define PYHOST_RUNTIME_ENGINE_REPLY_ERROR_H_

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "runtime/broker/call_frame.h"
#include "runtime/segment/segment.h"

namespace pyhost {

// Payloads of a Status that a script's exception became.
inline constexpr char kExceptionTypeUrl[] = "pyhost/exception-type";
inline constexpr char kTracebackUrl[] = "pyhost/traceback";

// `packed`: what pyhost.engine.describe() made of an exception raised by `function`.
absl::Status ExceptionStatus(std::string_view function, std::span<const std::byte> packed);

// The worker ended in the middle of the call, or before it began: "worker 2 (pid 811) killed by SIGSEGV running
// brain:plan".  Aborted.
absl::Status LostStatus(std::string_view function, std::span<const std::byte> lost_worker);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_ENGINE_REPLY_ERROR_H_
