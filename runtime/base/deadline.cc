#include "runtime/base/deadline.h"

#include <algorithm>

namespace pyhost {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
constexpr int64_t kNanosPerSecond = 1'000'000'000;

// now + duration, saturating; never 0, which means "at once".
int64_t NanosAfter(int64_t now, absl::Duration duration) {
  if (duration <= absl::ZeroDuration()) return 0;
  const int64_t nanos = absl::ToInt64Nanoseconds(duration);  // saturates
  if (nanos >= kNever - now) return kNever;
  return std::max<int64_t>(now + nanos, 1);
}

}  // namespace

int64_t Deadline::MonotonicNanos() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNanosPerSecond + now.tv_nsec;
}

Deadline Deadline::After(absl::Duration timeout) {
  return Deadline(NanosAfter(MonotonicNanos(), timeout));
}

Deadline Deadline::AtMost(absl::Duration patience) const {
  if (is_immediate()) return *this;
  return Deadline(std::min(nanos_, NanosAfter(MonotonicNanos(), patience)));
}

absl::Duration Deadline::Remaining() const {
  if (is_never()) return absl::InfiniteDuration();
  if (is_immediate()) return absl::ZeroDuration();
  return absl::Nanoseconds(std::max<int64_t>(nanos_ - MonotonicNanos(), 0));
}

timespec Deadline::ToMonotonicTimespec() const {
  timespec time;
  time.tv_sec = nanos_ / kNanosPerSecond;
  time.tv_nsec = nanos_ % kNanosPerSecond;
  return time;
}

}  // namespace pyhost
