// StartAttributes: what a child takes over from the process that starts it, as if it had been launched by it:
// Capture() in the starter, Apply() in the child, which was forked by somebody else.
//
// What the interpreter keeps copies of (os.environ, sys.std*, signal.getsignal) is the host's business
// (host/child.cc).  Capture is thread-safe; Apply changes the whole process and wants a single thread.

#ifndef PYHOST_RUNTIME_SUPERVISION_START_ATTRIBUTES_H_
#define PYHOST_RUNTIME_SUPERVISION_START_ATTRIBUTES_H_

#include <sched.h>
#include <sys/resource.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/os/unique_fd.h"

namespace pyhost {

struct ProcessStatus;

struct StartAttributes {
  // What descriptors[i] of the start's datagram become in the child: a number, or this.
  static constexpr int kWorkingDirectory = -1;

  uint32_t umask = 022;
  uint64_t ignored_signals = 0;  // bit n-1 = signal n
  uint64_t blocked_signals = 0;
  int nice = 0;
  int policy = 0;  // of scheduling
  // What cannot be read here is the same everywhere.
  int oom_score_adjustment = 0;
  int timer_slack = 0;  // nanoseconds
  int personality = 0;
  std::array<rlimit, RLIM_NLIMITS> limits = {};
  cpu_set_t affinity = {};
  std::vector<std::string> environment;
  std::vector<int> descriptors;

  static absl::StatusOr<StartAttributes> Capture(const ProcessStatus& status);

  std::string Encode() const;
  static absl::StatusOr<StartAttributes> Decode(std::string_view bytes);

  // `now`: as this process is, so that only what differs is changed.  Errors name the call, value and limit.  The
  // descriptors are placed first, then everything else; the signal mask is left to ApplySignalMask, for the moment when
  // the child is ready for signals.
  absl::Status Apply(std::vector<UniqueFd> received, const StartAttributes& now) const;
  absl::Status ApplySignalMask() const;

 private:
  absl::Status TakeDescriptors(std::vector<UniqueFd> received) const;
  absl::Status ApplyLimits(const StartAttributes& now) const;
  absl::Status ApplyScheduling(const StartAttributes& now) const;
  absl::Status ApplyOtherSettings(const StartAttributes& now) const;
  void ApplyEnvironment(const StartAttributes& now) const;
  void ApplySignals(const StartAttributes& now) const;
};

// Descriptors 0 to 2 (those that are open), the working directory, and `passed`: opened for sending, with the
// numbers that StartAttributes::descriptors lists for them.
class StartDescriptors {
 public:
  static absl::StatusOr<StartDescriptors> Open(std::span<const int> passed);
  const std::vector<int>& numbers() const { return numbers_; }
  const std::vector<int>& fds() const { return fds_; }
  // Sends `fd`, which stays the caller's, to be `number` in the child.
  void Replace(int number, int fd);

 private:
  std::vector<int> numbers_;
  std::vector<int> fds_;
  UniqueFd working_directory_;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SUPERVISION_START_ATTRIBUTES_H_
