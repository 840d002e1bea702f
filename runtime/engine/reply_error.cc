#include "runtime/engine/reply_error.h"

#include <charconv>
#include <cstring>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "runtime/segment/host_table.h"
#include "runtime/supervision/wire.h"

namespace pyhost {
namespace {

absl::StatusCode CodeOf(std::string_view text) {
  int code = 0;
  std::from_chars(text.data(), text.data() + text.size(), code);
  const bool known = code > static_cast<int>(absl::StatusCode::kOk) &&
                     code <= static_cast<int>(absl::StatusCode::kUnauthenticated);
  return known ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown;
}

}  // namespace

absl::Status ExceptionStatus(std::string_view function, std::span<const std::byte> packed) {
  WireReader reader({reinterpret_cast<const char*>(packed.data()), packed.size()});
  const std::string_view code = reader.Text();
  const std::string type(reader.Text());
  const std::string message(reader.Text());
  const std::string traceback(reader.Text());
  if (!reader.ok()) return absl::DataLossError(absl::StrCat("malformed error of ", std::string(function)));
  std::string text = type.empty() ? message : absl::StrCat(type, message.empty() ? "" : ": ", message);
  if (!traceback.empty()) absl::StrAppend(&text, "\n", traceback);
  absl::Status status(CodeOf(code), absl::StrCat(std::string(function), ": ", text));
  if (!type.empty()) status.SetPayload(kExceptionTypeUrl, absl::Cord(type));
  if (!traceback.empty()) status.SetPayload(kTracebackUrl, absl::Cord(traceback));
  return status;
}

absl::Status LostStatus(std::string_view function, std::span<const std::byte> lost_worker) {
  LostWorker lost;
  if (lost_worker.size() != sizeof(lost)) return absl::DataLossError("malformed report of a lost worker");
  std::memcpy(&lost, lost_worker.data(), sizeof(lost));
  return absl::AbortedError(absl::StrCat("the worker (pid ", lost.pid, ") ", ExitStatus::Decode(lost.exit).ToString(),
                                         " running ", std::string(function)));
}

}  // namespace pyhost
