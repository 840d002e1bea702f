#include "runtime/os/text_file.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "absl/cleanup/cleanup.h"
#include "runtime/base/status_util.h"

namespace pyhost {

absl::StatusOr<std::string> ReadTextFile(const std::string& path) {
  constexpr size_t kLimit = 1 << 20;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "open " + path);
  absl::Cleanup close_fd = [fd] { close(fd); };
  std::string text;
  char buffer[4096];
  while (text.size() < kLimit) {
    const ssize_t got = read(fd, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, "read " + path);
    if (got == 0) break;
    text.append(buffer, static_cast<size_t>(got));
  }
  return text;
}

}  // namespace pyhost
