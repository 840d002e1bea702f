#include "runtime/supervision/process_status.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <string_view>

#include "runtime/base/status_util.h"
#include "runtime/os/unique_fd.h"

namespace pyhost {
namespace {

constexpr char kPath[] = "/proc/thread-self/status";

// In the order in which the kernel writes them, which is what makes `credentials` comparable.
constexpr std::array<std::string_view, 13> kCredentialKeys = {
    "Uid", "Gid", "Groups", "NSpgid", "NSsid", "CapInh", "CapPrm",
    "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters"};

absl::StatusOr<std::string> ReadAll() {
  UniqueFd file(open(kPath, O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return ErrnoStatus(errno, "open /proc/thread-self/status (is /proc mounted?)");
  std::string text(16384, '\0');
  size_t size = 0;
  for (;;) {
    ssize_t count = read(file.get(), text.data() + size, text.size() - size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, "read /proc/thread-self/status");
    if (count == 0) break;
    size += static_cast<size_t>(count);
    if (size == text.size()) text.resize(2 * size);
  }
  text.resize(size);
  return text;
}

void TakeLine(std::string_view key, std::string_view value, ProcessStatus* status) {
  auto number = [&](int base) { return std::strtoull(std::string(value).c_str(), nullptr, base); };
  if (key == "Umask") status->umask = static_cast<uint32_t>(number(8));
  if (key == "SigIgn") status->ignored_signals = number(16);
  if (key == "SigBlk") status->blocked_signals = number(16);
  for (std::string_view wanted : kCredentialKeys) {
    if (key == wanted) status->credentials.append(key).append(value).append("\n");
  }
}

}  // namespace

absl::StatusOr<ProcessStatus> ProcessStatus::Read() {
  PYHOST_ASSIGN_OR_RETURN(std::string text, ReadAll());
  ProcessStatus status;
  std::string_view rest = text;
  while (!rest.empty()) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    size_t colon = line.find(':');
    if (colon != std::string_view::npos) TakeLine(line.substr(0, colon), line.substr(colon + 1), &status);
  }
  return status;
}

}  // namespace pyhost
