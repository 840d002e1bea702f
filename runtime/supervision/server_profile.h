// ServerProfile: what a fork cannot change safely about a process.  A fork server may stand in for a launch only
// while the starter's profile allows it; otherwise the starter launches the child itself.
//
// Exact: user, groups, capabilities, process group and session, namespaces, cgroups, root directory, seccomp, real-time
// scheduling.  One-sided: a child can be made nicer, more idle and more limited than its server, not less.

#ifndef PYHOST_RUNTIME_SUPERVISION_SERVER_PROFILE_H_
#define PYHOST_RUNTIME_SUPERVISION_SERVER_PROFILE_H_

#include <sys/resource.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/supervision/process_status.h"

namespace pyhost {

struct ServerProfile {
  uint64_t identity = 0;  // hash of the exact part
  int nice = 0;
  int policy = 0;
  std::array<rlim_t, RLIM_NLIMITS> hard_limits = {};

  // Of the calling thread.
  static absl::StatusOr<ServerProfile> Capture(const ProcessStatus& status);
  bool CanServe(const ServerProfile& starter) const;

  // As one word of a command line.
  std::string ToArgument() const;
  static absl::StatusOr<ServerProfile> FromArgument(std::string_view argument);
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SUPERVISION_SERVER_PROFILE_H_
