#include "runtime/engine/reply_error.h"

#include <charconv>

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

absl::Status LostStatus(std::string_view function, const LostWorker& lost, std::string_view fault) {
  std::string text = absl::StrCat(std::string(function), ": the worker (pid ", lost.pid, ") ",
                                  ExitStatus::Decode(lost.exit).ToString(), " running it");
  if (!fault.empty()) absl::StrAppend(&text, "\n", std::string(fault));
  return absl::AbortedError(text);
}

absl::Status OverdueStatus(std::string_view function, int32_t pid, std::string_view fault) {
  std::string text = absl::StrCat(std::string(function), ": not done within its deadline; its worker (pid ", pid,
                                  ") was ended and is replaced");
  if (!fault.empty()) absl::StrAppend(&text, ".  It was at:\n", std::string(fault));
  return absl::DeadlineExceededError(text);
}

}  // namespace pyhost
