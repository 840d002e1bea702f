#include "runtime/os/crowding.h"

#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>

#include "runtime/base/deadline.h"
#include "runtime/os/text_file.h"

namespace pyhost {
namespace {

constexpr int64_t kLookEveryNanos = 10'000'000;
constexpr int kReadingsToBelieve = 3;

std::atomic<int64_t> next_look{0};
std::atomic<int> crowded_readings{0};  // in a row

void Look() {
  static const long processors = sysconf(_SC_NPROCESSORS_ONLN);
  const absl::StatusOr<std::string> text = ReadTextFile("/proc/loadavg");
  const std::optional<int> runnable = text.ok() ? RunnableThreads(*text) : std::nullopt;
  const int before = crowded_readings.load(std::memory_order_relaxed);
  crowded_readings.store(runnable.value_or(0) > processors ? before + (before < kReadingsToBelieve) : 0,
                         std::memory_order_relaxed);
}

}  // namespace

bool MachineIsCrowded() {
  const int64_t now = Deadline::MonotonicNanos();
  int64_t due = next_look.load(std::memory_order_relaxed);
  if (now >= due && next_look.compare_exchange_strong(due, now + kLookEveryNanos, std::memory_order_relaxed)) Look();
  return MachineWasCrowded();
}

bool MachineWasCrowded() { return crowded_readings.load(std::memory_order_relaxed) >= kReadingsToBelieve; }

// "0.20 0.18 0.12 2/345 11206": two are runnable.
std::optional<int> RunnableThreads(const std::string& loadavg) {
  int runnable = 0;
  char slash = 0;
  if (std::sscanf(loadavg.c_str(), "%*s %*s %*s %d%c", &runnable, &slash) != 2 || slash != '/') return std::nullopt;
  return runnable;
}

}  // namespace pyhost
