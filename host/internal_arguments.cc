#include "host/internal_arguments.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "runtime/base/crash_point.h"

namespace pyhost::host {

UniqueFd TakeDescriptorArgument(int argc, char** argv, std::string_view name) {
  const std::string start = "--" + std::string(name) + "=";
  for (int i = 1; i < argc; ++i) {
    std::string_view word = argv[i];
    if (!word.starts_with(start)) continue;
    int fd = std::atoi(argv[i] + start.size());
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) return UniqueFd(fd);
  }
  return UniqueFd();
}

void FillStandardStreams() {
  int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  while (fd >= 0 && fd <= 2) fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (fd > 2) close(fd);
}

int ReportInternalError(std::string_view who, const absl::Status& status) {
  std::fprintf(stderr, "pyhost: %s: %s\n", std::string(who).c_str(), std::string(status.message()).c_str());
  return 1;
}

void ArmCrashPoint([[maybe_unused]] const std::string& role) {
#ifdef PYHOST_CRASH_POINTS
  const char* wish = std::getenv("PYHOST_CRASH");
  if (wish == nullptr || !std::string_view(wish).starts_with(role + "/")) return;
  const char* point = wish + role.size() + 1;
  const char* colon = std::strchr(point, ':');
  if (colon != nullptr && unlink(colon + 1) == 0) {
    crash_point::Arm(std::string_view(point, static_cast<size_t>(colon - point)));
  }
#endif
}

}  // namespace pyhost::host
