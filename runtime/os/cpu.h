// How many processors this process may really use, and how to spin on one politely.
//
// Thread-safe.

#ifndef PYHOST_RUNTIME_OS_CPU_H_
#define PYHOST_RUNTIME_OS_CPU_H_

namespace pyhost {

// The least of the affinity mask and of the CPU quotas (cgroup v1 and v2) of this process and its ancestors; at
// least 1.  A quota of 1.5 processors counts as 1.  Reads files: use SpinningPays() on hot paths.
int UsableCores();

// Whether another thread can make progress while this one spins: two usable cores or more.  Determined
// with the first call of a process.
bool SpinningPays();
// The same for who holds a lock and must not read files: true as long as nobody has determined it.
bool SpinningMayPay();
// Determines it again: after a change of affinity, and in a child after fork.
void RefreshUsableCores();

// One turn of a spin loop.
inline void SpinPause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#else
  asm volatile("" ::: "memory");
#endif
}

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_OS_CPU_H_
