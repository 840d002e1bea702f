#include "runtime/os/pidfd.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_util.h"

namespace pyhost {
namespace {

absl::Status CallError(int error, const std::string& call) {
  if (error == ENOSYS || error == EPERM) {
    return ErrnoStatus(error, absl::StrCat(call, " (refused by the kernel or by a sandbox)"));
  }
  return ErrnoStatus(error, call);
}

}  // namespace

absl::StatusOr<UniqueFd> OpenPidfd(pid_t pid) {
  UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!fd.valid()) return CallError(errno, absl::StrCat("pidfd_open of process ", pid));
  return fd;
}

absl::Status SendSignal(int pidfd, int signal) {
  if (syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) == 0) return absl::OkStatus();
  return CallError(errno, absl::StrCat("pidfd_send_signal(", signal, ")"));
}

absl::StatusOr<UniqueFd> TakeDescriptor(int pidfd, int fd) {
  UniqueFd copy(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd, fd, 0)));
  if (!copy.valid()) return CallError(errno, absl::StrCat("pidfd_getfd of descriptor ", fd));
  return copy;
}

bool PidfdIsReadable(int pidfd) {
  pollfd entry = {pidfd, POLLIN, 0};
  return poll(&entry, 1, 0) > 0 && (entry.revents & POLLIN) != 0;
}

std::optional<int> ZombieWaitStatus(pid_t pid) {
  char path[64], text[1024];
  std::snprintf(path, sizeof(path), "/proc/%d/stat", pid);
  UniqueFd file(open(path, O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return std::nullopt;
  ssize_t size = read(file.get(), text, sizeof(text) - 1);
  if (size <= 0) return std::nullopt;
  text[size] = '\0';
  // The name in brackets may hold anything, brackets too.  The state follows it; the wait status is the last field.
  const char* name_end = std::strrchr(text, ')');
  const char* last = std::strrchr(text, ' ');
  if (name_end == nullptr || name_end[1] == '\0' || name_end[2] != 'Z' || last <= name_end) return std::nullopt;
  // Reads 0 where we may not know, which is also what a clean exit looks like: a zero counts only for processes of our
  // own user.
  int status = std::atoi(last + 1);
  struct stat owner = {};
  if (status == 0 && (fstat(file.get(), &owner) != 0 || (owner.st_uid != geteuid() && geteuid() != 0))) {
    return std::nullopt;
  }
  return status;
}

bool ProcessMaps(pid_t pid, dev_t device, ino_t inode) {
  std::ifstream maps(absl::StrCat("/proc/", pid, "/maps"));
  if (!maps) return true;
  std::string line;
  bool any = false;
  while (std::getline(maps, line)) {
    unsigned major_number = 0, minor_number = 0;
    unsigned long long number = 0;
    any = true;
    if (std::sscanf(line.c_str(), "%*s %*s %*s %x:%x %llu", &major_number, &minor_number, &number) == 3 &&
        number == inode && makedev(major_number, minor_number) == device) {
      return true;
    }
  }
  return !any;
}

}  // namespace pyhost
