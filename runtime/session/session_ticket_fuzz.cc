// Fuzz target: the words of a command line make a session ticket or an InvalidArgument; a ticket that was written down
// reads the same.  Each line of the input is a word.

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "runtime/session/session.h"
#include "runtime/testing/fuzz_target.h"

namespace pyhost {
namespace {

using testing::Require;
using testing::TextOf;

std::vector<std::string> Lines(std::string_view text) {
  std::vector<std::string> lines;
  for (size_t end = 0; end != std::string_view::npos; text.remove_prefix(end == std::string_view::npos ? 0 : end + 1)) {
    end = text.find('\n');
    lines.emplace_back(text.substr(0, end));
  }
  return lines;
}

absl::StatusOr<SessionTicket> Read(std::vector<std::string> words) {
  words.insert(words.begin(), "pyhost");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  return SessionTicket::FromArguments(static_cast<int>(argv.size()), argv.data());
}

PYHOST_FUZZ_TARGET(SessionTicket, "runtime/session/session_ticket_corpus", kTruncated) {
  const absl::StatusOr<SessionTicket> ticket = Read(Lines(TextOf(input)));
  if (!ticket.ok()) return Require(absl::IsInvalidArgument(ticket.status()), "a bad ticket is InvalidArgument");
  Require(ticket->segment_fd >= 0 && ticket->control_fd >= 0 && ticket->me, "a ticket names segment, socket and host");
  const std::vector<std::string> written = ticket->ToArguments();
  const absl::StatusOr<SessionTicket> again = Read(written);
  Require(again.ok() && again->ToArguments() == written, "a ticket reads as it was written");
}

}  // namespace
}  // namespace pyhost
