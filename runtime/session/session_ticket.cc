#include <charconv>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/session/session.h"

namespace pyhost {
namespace {

// "--name=value"
std::string Word(const char* name, const std::string& value) { return absl::StrCat("--", name, "=", value); }
std::string Word(const char* name, int64_t value) { return Word(name, std::to_string(value)); }

template <typename Number>
bool ParseNumber(std::string_view text, Number* number) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size();
}

bool ParseHost(std::string_view text, HostId* host) {
  uint32_t value = 0;
  if (!ParseNumber(text, &value)) return false;
  *host = HostId::FromValue(value);
  return host->generation() <= HostId::kMaxGeneration;
}

bool ParseProfile(std::string_view text, ServerProfile* profile) {
  absl::StatusOr<ServerProfile> parsed = ServerProfile::FromArgument(text);
  if (parsed.ok()) *profile = *parsed;
  return parsed.ok();
}

// False: the word is ours, and its value makes no sense.
bool TakeWord(std::string_view name, std::string_view value, SessionTicket* ticket) {
  if (name == "segment") return ParseNumber(value, &ticket->segment_fd);
  if (name == "control") return ParseNumber(value, &ticket->control_fd);
  if (name == "host") return ParseHost(value, &ticket->me);
  if (name == "supervisor") return ParseHost(value, &ticket->supervisor);
  if (name == "root") return ParseHost(value, &ticket->root);
  if (name == "control-number") return ParseNumber(value, &ticket->control_number);
  if (name == "segment-number") return ParseNumber(value, &ticket->segment_number);
  if (name == "profile") return ParseProfile(value, &ticket->profile);
  if (name == "program") ticket->program = value;
  return true;
}

}  // namespace

std::vector<std::string> SessionTicket::ToArguments() const {
  return {Word("segment", segment_fd),
          Word("control", control_fd),
          Word("host", me.value()),
          Word("supervisor", supervisor.value()),
          Word("root", root.value()),
          Word("control-number", control_number),
          Word("segment-number", segment_number),
          Word("profile", profile.ToArgument()),
          Word("program", program)};
}

absl::StatusOr<SessionTicket> SessionTicket::FromArguments(int argc, char** argv) {
  SessionTicket ticket;
  for (int i = 1; i < argc; ++i) {
    std::string_view word = argv[i];
    size_t equals = word.find('=');
    if (!word.starts_with("--") || equals == std::string_view::npos) continue;
    if (!TakeWord(word.substr(2, equals - 2), word.substr(equals + 1), &ticket)) {
      return absl::InvalidArgumentError(absl::StrCat("bad argument of an internal mode: ", argv[i]));
    }
  }
  if (ticket.segment_fd < 0 || ticket.control_fd < 0 || !ticket.me) {
    return absl::InvalidArgumentError("an internal mode was started by hand: it is for pyhost's own processes");
  }
  return ticket;
}

}  // namespace pyhost
