// What WorkerPool::Stats() tells.

#ifndef PYHOST_STATS_H_
#define PYHOST_STATS_H_

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "absl/time/time.h"

namespace pyhost {

struct WorkerStats {
  int number = 0;  // 0, 1, ...; a replacement has the number of its predecessor
  pid_t pid = 0;
  uint64_t calls = 0;                              // finished
  absl::Duration busy = absl::ZeroDuration();      // in scripts, of finished calls
  absl::Duration running = absl::ZeroDuration();   // since its present call began; zero when it has none
};

struct Stats {
  std::vector<WorkerStats> workers = {};
  uint64_t waiting = 0;      // calls that no worker has taken yet
  uint64_t outstanding = 0;  // calls without an outcome, waiting ones included
  uint64_t replaced = 0;     // workers that were started in the place of others
  // Of all pools of this process, in bytes.
  uint64_t shared_memory_used = 0;
  uint64_t shared_memory_limit = 0;
};

}  // namespace pyhost

#endif  // PYHOST_STATS_H_
