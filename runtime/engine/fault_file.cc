#include "runtime/engine/fault_file.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "runtime/base/deadline.h"
#include "runtime/base/status_util.h"
#include "runtime/os/unix_socket.h"

namespace pyhost {
namespace {

constexpr off_t kMostBytes = 8 * 1024;

off_t SizeOf(int fd) {
  struct stat status = {};
  return fstat(fd, &status) == 0 ? status.st_size : 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<FaultFile>> FaultFile::Create() {
  UniqueFd fd(memfd_create("pyhost-faults", MFD_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, "memfd_create for a worker's faults");
  PYHOST_ASSIGN_OR_RETURN(fd, MoveToHighNumber(std::move(fd)));
  return std::unique_ptr<FaultFile>(new FaultFile(std::move(fd)));
}

int FaultFile::DumpSignal() { return SIGRTMIN + 7; }

std::string FaultFile::Read() const {
  const off_t size = SizeOf(fd_.get());
  const off_t begin = std::max<off_t>(0, size - kMostBytes);
  std::string text(static_cast<size_t>(size - begin), '\0');
  const ssize_t got = pread(fd_.get(), text.data(), text.size(), begin);
  text.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return text;
}

void FaultFile::AwaitDump() const {
  constexpr absl::Duration kPatience = absl::Milliseconds(20);
  const Deadline deadline = Deadline::After(kPatience);
  std::string before;
  while (!deadline.Expired()) {
    absl::SleepFor(absl::Microseconds(200));
    std::string now = Read();
    if (!now.empty() && now == before) return;  // All of it is there.
    before = std::move(now);
  }
}

}  // namespace pyhost
