// Crash points: named places at which a test makes the process die by SIGKILL, to prove the crash rule
// (runtime/README.md).  `PYHOST_CRASH_POINT("queue-push-before-commit");` is nothing at all unless the
// build option `crash_points` is on (tests and sanitizer builds).
//
// Arm() makes the `nth` arrival (1 = first) at the point kill the calling process, or stop it until it is continued (SIGSTOP);
// one point at a time.
// Arrivals are counted per process.  Not thread-safe: arm before starting threads.

#ifndef PYHOST_RUNTIME_BASE_CRASH_POINT_H_
#define PYHOST_RUNTIME_BASE_CRASH_POINT_H_

#include <signal.h>

#include <string_view>

namespace pyhost::crash_point {

void Arm(std::string_view name, int nth = 1, int signal = SIGKILL);
void Disarm();
void Reached(const char* name);  // Used by the macro only.

}  // namespace pyhost::crash_point

#ifdef PYHOST_CRASH_POINTS
#define PYHOST_CRASH_POINT(name) ::pyhost::crash_point::Reached(name)
#else
#define PYHOST_CRASH_POINT(name) static_cast<void>(0)
#endif

#endif  // PYHOST_RUNTIME_BASE_CRASH_POINT_H_
