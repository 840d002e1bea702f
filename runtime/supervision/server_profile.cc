#include "runtime/supervision/server_profile.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_util.h"
#include "runtime/os/scheduling.h"
#include "runtime/os/text_file.h"
#include "runtime/os/unique_fd.h"

namespace pyhost {
namespace {

constexpr const char* kNamespaces[] = {"user", "mnt",  "pid_for_children", "net", "ipc", "uts",
                                       "cgroup", "time_for_children"};

void Mix(uint64_t value, uint64_t* hash) {
  for (int shift = 0; shift < 64; shift += 8) *hash = (*hash ^ ((value >> shift) & 0xff)) * 0x100000001b3;
}

void MixFile(const std::string& path, uint64_t* hash) {
  struct stat file = {};
  if (stat(path.c_str(), &file) != 0) return;
  Mix(file.st_dev, hash);
  Mix(file.st_ino, hash);
}

// Each is a link whose text names it: to read that takes a third of the time that looking at the namespace does.
void MixNamespaces(uint64_t* hash) {
  const UniqueFd folder(open("/proc/thread-self/ns", O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (const char* name : kNamespaces) {
    char text[64];  // "pid:[4026531836]"
    // One that does not exist on this kernel counts as the same everywhere.
    const ssize_t size = readlinkat(folder.get(), name, text, sizeof(text));
    for (ssize_t i = 0; i < size; ++i) Mix(static_cast<unsigned char>(text[i]), hash);
  }
}

// What cannot be read counts as the same everywhere, too.
void MixText(const std::string& path, uint64_t* hash) {
  absl::StatusOr<std::string> text = ReadTextFile(path);
  for (unsigned char byte : text.ok() ? *text : std::string()) Mix(byte, hash);
}

}  // namespace

absl::StatusOr<ServerProfile> ServerProfile::Capture(const ProcessStatus& status) {
  ServerProfile profile;
  profile.identity = 0xcbf29ce484222325;
  for (unsigned char byte : status.credentials) Mix(byte, &profile.identity);
  MixNamespaces(&profile.identity);
  MixFile("/", &profile.identity);
  MixText("/proc/thread-self/cgroup", &profile.identity);
  PYHOST_ASSIGN_OR_RETURN(const Scheduling scheduling, Scheduling::OfAFork());
  profile.nice = scheduling.nice;
  profile.policy = scheduling.policy;
  if (scheduling.is_realtime()) {
    Mix(static_cast<uint64_t>(scheduling.policy), &profile.identity);
    Mix(static_cast<uint64_t>(scheduling.priority), &profile.identity);
  }
  for (int resource = 0; resource < RLIM_NLIMITS; ++resource) {
    rlimit limit = {};
    if (getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0) {
      return ErrnoStatus(errno, absl::StrCat("getrlimit of resource ", resource));
    }
    profile.hard_limits[resource] = limit.rlim_max;
  }
  return profile;
}

bool ServerProfile::CanServe(const ServerProfile& starter) const {
  if (identity != starter.identity || nice > starter.nice) return false;
  if (policy == SCHED_IDLE && starter.policy != SCHED_IDLE) return false;
  for (int resource = 0; resource < RLIM_NLIMITS; ++resource) {
    if (hard_limits[resource] < starter.hard_limits[resource]) return false;
  }
  return true;
}

std::string ServerProfile::ToArgument() const {
  std::string text = absl::StrCat(identity, ",", nice, ",", policy);
  for (rlim_t limit : hard_limits) absl::StrAppend(&text, ",", limit);
  return text;
}

absl::StatusOr<ServerProfile> ServerProfile::FromArgument(std::string_view argument) {
  std::istringstream stream{std::string(argument)};
  ServerProfile profile;
  char comma;
  stream >> profile.identity >> comma >> profile.nice >> comma >> profile.policy;
  for (rlim_t& limit : profile.hard_limits) stream >> comma >> limit;
  if (!stream) return absl::InvalidArgumentError(absl::StrCat("not a server profile: ", std::string(argument)));
  return profile;
}

}  // namespace pyhost
