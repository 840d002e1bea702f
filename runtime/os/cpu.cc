#include "runtime/os/cpu.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>

#include "runtime/os/cgroup.h"
#include "runtime/os/crowding.h"

namespace pyhost {
namespace {

enum class Spinning { kUnknown, kPays, kDoesNotPay };
std::atomic<Spinning> spinning{Spinning::kUnknown};

int CoresInAffinityMask() {
  // The kernel refuses masks smaller than its own: grow until it fits.
  for (int cpus = CPU_SETSIZE; cpus <= 1 << 20; cpus *= 2) {
    cpu_set_t* mask = CPU_ALLOC(cpus);
    const size_t size = CPU_ALLOC_SIZE(cpus);
    const int count = sched_getaffinity(0, size, mask) == 0 ? CPU_COUNT_S(size, mask) : 0;
    CPU_FREE(mask);
    if (count > 0) return count;
  }
  return 1;
}

}  // namespace

int UsableCores() {
  int cores = CoresInAffinityMask();
  if (const std::optional<double> quota = CgroupCpuLimit()) {
    cores = std::min(cores, static_cast<int>(std::min(*quota, 1e6)));
  }
  return std::max(cores, 1);
}

bool SpinningPays() {
  if (spinning.load(std::memory_order_relaxed) == Spinning::kUnknown) RefreshUsableCores();
  return spinning.load(std::memory_order_relaxed) == Spinning::kPays && !MachineIsCrowded();
}

bool SpinningMayPay() {
  return spinning.load(std::memory_order_relaxed) != Spinning::kDoesNotPay && !MachineWasCrowded();
}

void RefreshUsableCores() {
  spinning.store(UsableCores() >= 2 ? Spinning::kPays : Spinning::kDoesNotPay, std::memory_order_relaxed);
}

}  // namespace pyhost
