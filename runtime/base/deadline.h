// Deadline: the one timeout type.  A relative timeout is converted once, at the edge; everything below
// passes the same Deadline on, so that a retry never restarts the clock.
//
// Based on CLOCK_MONOTONIC, which is also what futex waits use.  Value type, thread-safe as an int.

#ifndef PYHOST_RUNTIME_BASE_DEADLINE_H_
#define PYHOST_RUNTIME_BASE_DEADLINE_H_

#include <cstdint>
#include <limits>
#include <time.h>

#include "absl/time/time.h"

namespace pyhost {

class Deadline {
 public:
  static constexpr Deadline Never() { return Deadline(std::numeric_limits<int64_t>::max()); }
  // Already expired: "try once, do not wait".
  static constexpr Deadline Now() { return Deadline(0); }
  // Negative and zero durations give an expired deadline, an infinite one gives Never().
  static Deadline After(absl::Duration timeout);

  // Nanoseconds of CLOCK_MONOTONIC now.
  static int64_t MonotonicNanos();

  constexpr bool is_never() const { return nanos_ == std::numeric_limits<int64_t>::max(); }
  constexpr bool is_immediate() const { return nanos_ == 0; }
  bool Expired() const { return is_immediate() || (!is_never() && MonotonicNanos() >= nanos_); }
  // The earlier of this and `now + patience`.
  Deadline AtMost(absl::Duration patience) const;
  absl::Duration Remaining() const;
  timespec ToMonotonicTimespec() const;  // Undefined for Never().

  friend constexpr bool operator==(Deadline, Deadline) = default;

 private:
  explicit constexpr Deadline(int64_t nanos) : nanos_(nanos) {}
  int64_t nanos_;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_BASE_DEADLINE_H_
