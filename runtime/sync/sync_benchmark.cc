// Cost of the locks that users see, with std::mutex beside them.

#include <mutex>
#include <semaphore>
#include <thread>

#include "benchmark/benchmark.h"
#include "runtime/sync/event.h"
#include "runtime/sync/mutex.h"
#include "runtime/sync/semaphore.h"
#include "runtime/testing/temp_segment.h"

namespace pyhost {
namespace {

using ::pyhost::testing::TempSegment;

// glibc leaves the atomic operations of a std::mutex out while a process has one thread alone, which would make
// the comparison meaningless.
class SecondThread {
 public:
  SecondThread() : thread_([this] { end_.acquire(); }) {}
  ~SecondThread() {
    end_.release();
    thread_.join();
  }

 private:
  std::binary_semaphore end_{0};
  std::thread thread_;
};

void BM_StdMutex(benchmark::State& state) {
  SecondThread second;
  std::mutex mutex;
  for (auto _ : state) {
    mutex.lock();
    benchmark::ClobberMemory();
    mutex.unlock();
  }
}
BENCHMARK(BM_StdMutex);

void BM_StdRecursiveMutex(benchmark::State& state) {
  SecondThread second;
  std::recursive_mutex mutex;
  for (auto _ : state) {
    mutex.lock();
    benchmark::ClobberMemory();
    mutex.unlock();
  }
}
BENCHMARK(BM_StdRecursiveMutex);

void Uncontended(benchmark::State& state, Mutex::Type type) {
  TempSegment segment;
  Mutex mutex = *Mutex::Create(*segment, segment.me(), type);
  for (auto _ : state) {
    if (!mutex.Acquire(Wait::Forever()).ok()) state.SkipWithError("acquire");
    benchmark::ClobberMemory();
    if (!mutex.Release().ok()) state.SkipWithError("release");
  }
}
void BM_MutexPlain(benchmark::State& state) { Uncontended(state, Mutex::Type::kPlain); }
void BM_MutexRecursive(benchmark::State& state) { Uncontended(state, Mutex::Type::kRecursive); }
BENCHMARK(BM_MutexPlain);
BENCHMARK(BM_MutexRecursive);

void BM_Semaphore(benchmark::State& state) {
  TempSegment segment;
  Semaphore semaphore = *Semaphore::Create(*segment, segment.me(), 1);
  for (auto _ : state) {
    if (!semaphore.Acquire(Wait::Forever()).ok()) state.SkipWithError("acquire");
    if (!semaphore.Release().ok()) state.SkipWithError("release");
  }
}
BENCHMARK(BM_Semaphore);

// Another process takes and gives the same mutex all the time.
void BM_MutexContended(benchmark::State& state) {
  TempSegment segment;
  Mutex mutex = *Mutex::Create(*segment, segment.me(), Mutex::Type::kPlain);
  Event stop = *Event::Create(*segment, segment.me());
  HostId id;
  auto child = segment.StartHost(
      [&](HostId self) {
        Mutex same = *Mutex::Open(*segment, self, mutex.handle());
        Event end = *Event::Open(*segment, self, stop.handle());
        while (!end.is_set()) {
          if (!same.Acquire(Wait::Forever()).ok() || !same.Release().ok()) return;
        }
      },
      &id);
  for (auto _ : state) {
    if (!mutex.Acquire(Wait::Forever()).ok() || !mutex.Release().ok()) state.SkipWithError("mutex");
  }
  stop.Set();
  child->Reap();
}
BENCHMARK(BM_MutexContended)->UseRealTime();

}  // namespace
}  // namespace pyhost

