// ThreadToken: names a thread within its process for ever.  Unlike a thread id of the system it is never given to
// a later thread, and it costs no system call.
//
// In a forked child the forking thread keeps its token; its host id differs, so it owns nothing of its parent's.

#ifndef PYHOST_RUNTIME_SYNC_THREAD_TOKEN_H_
#define PYHOST_RUNTIME_SYNC_THREAD_TOKEN_H_

#include <atomic>
#include <cstdint>

namespace pyhost {

// Never 0.
inline uint32_t ThreadToken() {
  static std::atomic<uint32_t> last{0};
  static thread_local uint32_t token = 0;
  while (token == 0) token = last.fetch_add(1, std::memory_order_relaxed) + 1;
  return token;
}

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SYNC_THREAD_TOKEN_H_
