// Crowding: more threads of the machine want to run than it has processors.
//
// Spinning is then worse than sleeping.  Whom we wait for may not run before our time slice ends; a spinner that was
// preempted counts as "looking right now" with wakers, who make no system call for it; and the kernel runs a woken sleeper
// at once, on the processor that its waker is about to give up.  With two busy programs beside, on two
// processors, a round trip over two events took 80 us with spinning and 8 us without.
//
// The kernel's count of runnable threads is in /proc/loadavg.  It is read at most once in 10 ms, by who is about to spin; it
// fluctuates, so two readings in a row must say "crowded", and one that says otherwise ends it.  The count is that of the
// machine, hence it is compared with the processors of the machine; crowding within a subset of them goes unnoticed.
//
// Thread-safe.

#ifndef PYHOST_RUNTIME_OS_CROWDING_H_
#define PYHOST_RUNTIME_OS_CROWDING_H_

#include <optional>
#include <string>

namespace pyhost {

// Whether the machine is crowded, as far as was seen in the last 10 ms.  Reads a file now and then.
bool MachineIsCrowded();
// The same as it was last seen: for who must not read files.
bool MachineWasCrowded();

// The runnable threads that a text like that of /proc/loadavg counts; nothing if it says nothing of them.
std::optional<int> RunnableThreads(const std::string& loadavg);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_OS_CROWDING_H_
