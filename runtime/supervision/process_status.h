// ProcessStatus: what /proc says of the calling thread that no single system call does.

#ifndef PYHOST_RUNTIME_SUPERVISION_PROCESS_STATUS_H_
#define PYHOST_RUNTIME_SUPERVISION_PROCESS_STATUS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pyhost {

struct ProcessStatus {
  uint32_t umask = 022;
  uint64_t ignored_signals = 0;
  uint64_t blocked_signals = 0;
  // Lines about user, groups, capabilities, seccomp and process group, as they stand there.
  std::string credentials;

  static absl::StatusOr<ProcessStatus> Read();
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SUPERVISION_PROCESS_STATUS_H_
