#include "runtime/os/process.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "runtime/base/deadline.h"
#include "runtime/base/status_util.h"
#include "runtime/os/text_file.h"

namespace pyhost {

absl::StatusOr<ProcessStat> ParseProcessStat(std::string_view text) {
  // "811 (a name) with ) R 1 ...": everything after the last parenthesis is numbers and one letter.
  const size_t name_end = text.rfind(')');
  if (name_end == std::string_view::npos) {
    return absl::DataLossError("text of a /proc stat file without a command name");
  }
  absl::string_view rest(text.data() + name_end + 1, text.size() - name_end - 1);
  constexpr int kState = 3, kParent = 4, kStartTime = 22;  // numbers of fields
  ProcessStat stat;
  bool well_formed = true;
  // Without a list of all fields: a fork reads this, and memory first touched in a fork is copied.
  for (int field = kState; field <= kStartTime && well_formed; ++field) {
    rest = absl::StripLeadingAsciiWhitespace(rest);
    const absl::string_view word = rest.substr(0, rest.find_first_of(" \n"));
    rest.remove_prefix(word.size());
    if (field == kState) stat.state = word.size() == 1 ? word[0] : '?';
    well_formed = field == kState       ? word.size() == 1
                  : field == kParent    ? absl::SimpleAtoi(word, &stat.parent)
                  : field == kStartTime ? absl::SimpleAtoi(word, &stat.start_time)
                                        : !word.empty();
  }
  if (!well_formed) return absl::DataLossError("text of a /proc stat file with missing or malformed fields");
  return stat;
}

absl::StatusOr<ProcessStat> GetProcessStat(pid_t pid) {
  PYHOST_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(absl::StrCat("/proc/", pid, "/stat")));
  return ParseProcessStat(text);
}

bool ProcessIsGone(pid_t pid, uint64_t start_time) {
  if (pid <= 0) return false;
  if (kill(pid, 0) != 0 && errno == ESRCH) return true;
  const absl::StatusOr<ProcessStat> stat = GetProcessStat(pid);
  if (!stat.ok()) {
    // Gone meanwhile, or /proc is not there: ask once more the way that always works.
    return kill(pid, 0) != 0 && errno == ESRCH;
  }
  return stat->ended() || (start_time != 0 && stat->start_time != start_time);
}

void AwaitStopped(pid_t pid) {
  constexpr absl::Duration kPatience = absl::Milliseconds(100);
  const Deadline deadline = Deadline::After(kPatience);
  while (!deadline.Expired()) {
    const absl::StatusOr<ProcessStat> stat = GetProcessStat(pid);
    if (!stat.ok() || stat->state == 'T' || stat->ended()) return;
    absl::SleepFor(absl::Microseconds(50));
  }
}

uint64_t PidNamespace() {
  struct stat info;
  return stat("/proc/self/ns/pid", &info) == 0 ? info.st_ino : 0;
}

uint64_t PrivateMemoryBytes() {
  const absl::StatusOr<std::string> text = ReadTextFile("/proc/self/statm");  // size resident shared ..., in pages
  if (!text.ok()) return 0;
  const std::vector<absl::string_view> fields = absl::StrSplit(*text, ' ');
  uint64_t resident = 0, shared = 0;
  if (fields.size() < 3 || !absl::SimpleAtoi(fields[1], &resident) || !absl::SimpleAtoi(fields[2], &shared)) return 0;
  return resident <= shared ? 0 : (resident - shared) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace pyhost
