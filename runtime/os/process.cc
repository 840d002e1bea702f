#include "runtime/os/process.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

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
  const absl::string_view rest(text.data() + name_end + 1, text.size() - name_end - 1);
  const std::vector<absl::string_view> fields = absl::StrSplit(rest, absl::ByAnyChar(" \n"), absl::SkipEmpty());
  constexpr size_t kState = 0;       // field 3 of the file
  constexpr size_t kParent = 1;      // field 4
  constexpr size_t kStartTime = 19;  // field 22
  ProcessStat stat;
  if (fields.size() <= kStartTime || fields[kState].size() != 1 ||
      !absl::SimpleAtoi(fields[kParent], &stat.parent) ||
      !absl::SimpleAtoi(fields[kStartTime], &stat.start_time)) {
    return absl::DataLossError("text of a /proc stat file with missing or malformed fields");
  }
  stat.state = fields[kState][0];
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
