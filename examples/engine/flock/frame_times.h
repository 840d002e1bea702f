// FrameTimes: how long the frames of a run took, work alone, without the sleep until the next one.

#ifndef PYHOST_EXAMPLES_ENGINE_FLOCK_FRAME_TIMES_H_
#define PYHOST_EXAMPLES_ENGINE_FLOCK_FRAME_TIMES_H_

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace flock {

class FrameTimes {
 public:
  void Add(absl::Duration time) { times_.push_back(time); }
  // The time that `share` (0 to 1) of the frames do not exceed.
  absl::Duration Percentile(double share) const {
    std::vector<absl::Duration> sorted = times_;
    std::sort(sorted.begin(), sorted.end());
    const auto rank = static_cast<size_t>(share * static_cast<double>(sorted.size()));
    return sorted.empty() ? absl::ZeroDuration() : sorted[std::min(rank, sorted.size() - 1)];
  }

  static void PrintHeader() { std::printf("%-32s %7s %7s %7s %7s  ms a frame\n", "", "p50", "p90", "p99", "max"); }
  void Print(const std::string& name) const {
    std::printf("%-32s", name.c_str());
    for (double share : {0.5, 0.9, 0.99, 1.0}) std::printf(" %7.2f", absl::ToDoubleMilliseconds(Percentile(share)));
    std::printf("\n");
    std::fflush(stdout);
  }

 private:
  std::vector<absl::Duration> times_;
};

}  // namespace flock

#endif  // PYHOST_EXAMPLES_ENGINE_FLOCK_FRAME_TIMES_H_
