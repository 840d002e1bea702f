// The core's speed, each beside the limit it is measured against.

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <new>
#include <thread>

#include "benchmark/benchmark.h"
#include "runtime/os/futex.h"
#include "runtime/sync/owner_lock.h"
#include "runtime/sync/waiter.h"
#include "runtime/testing/temp_segment.h"

namespace pyhost {
namespace {

using testing::TempSegment;

TempSegment& TheSegment() {
  static auto* segment = new TempSegment({.limit = 256 << 20, .max_hosts = 1024, .max_objects = 1 << 16});
  return *segment;
}

template <typename T>
T* NewShared() {
  return new (mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) T{};
}

// ---- Locks ----

// glibc leaves the atomic operations of a mutex out while a program has one thread only.
void MakeMultiThreaded() {
  static const bool once = [] {
    std::thread([] { pause(); }).detach();
    return true;
  }();
  benchmark::DoNotOptimize(once);
}

void BM_StdMutex(benchmark::State& state) {
  static std::mutex mutex;
  MakeMultiThreaded();
  for (auto _ : state) {
    mutex.lock();
    benchmark::ClobberMemory();
    mutex.unlock();
  }
}
BENCHMARK(BM_StdMutex)->ThreadRange(1, 2)->UseRealTime();

void BM_OwnerLock(benchmark::State& state) {
  static auto* lock = NewShared<OwnerLock>();
  TempSegment& segment = TheSegment();
  for (auto _ : state) {
    if (lock->Lock(segment.hosts(), segment.me()) == OwnerLock::Acquired::kOwnerDied) state.SkipWithError("died");
    benchmark::ClobberMemory();
    lock->Unlock(segment.me());
  }
}
BENCHMARK(BM_OwnerLock)->ThreadRange(1, 2)->UseRealTime();

// ---- Objects ----

void BM_CreateDrop(benchmark::State& state) {
  TempSegment& segment = TheSegment();
  const auto size = static_cast<uint64_t>(state.range(0));
  for (auto _ : state) {
    absl::StatusOr<Handle> handle = segment.objects().Create(ObjectKind::kMemory, size, segment.me());
    segment.objects().Drop(*handle, segment.me(), segment.me());
  }
}
BENCHMARK(BM_CreateDrop)->Arg(0)->Arg(64)->Arg(2048)->Arg(4096)->Arg(65536)->Arg(1 << 20)->Arg(64 << 20);

// ---- Waking ----

struct PingPong {
  std::atomic<uint32_t> ping;
  WaitPoint pinged;
  alignas(64) std::atomic<uint32_t> pong;
  WaitPoint ponged;
};

// Round trips with another process, which answers until 0xffffffff comes.
void BM_SpinningPingPong(benchmark::State& state) {
  auto* shared = NewShared<PingPong>();
  testing::Child child([shared] {
    for (uint32_t round = 1;; ++round) {
      uint32_t seen;
      while ((seen = shared->ping.load(std::memory_order_acquire)) < round) SpinPause();
      shared->pong.store(round, std::memory_order_release);
      if (seen == ~0u) return;
    }
  });
  uint32_t round = 0;
  for (auto _ : state) {
    shared->ping.store(++round, std::memory_order_release);
    while (shared->pong.load(std::memory_order_acquire) != round) SpinPause();
  }
  shared->ping.store(~0u);
  child.Reap();
}
BENCHMARK(BM_SpinningPingPong)->UseRealTime();

void BM_FutexPingPong(benchmark::State& state) {
  auto* shared = NewShared<PingPong>();
  const auto await = [](std::atomic<uint32_t>& word, uint32_t round) {
    for (;;) {
      const uint32_t seen = word.load(std::memory_order_acquire);
      if (seen >= round) return seen;
      futex::Wait(word, seen, Deadline::Never());
    }
  };
  testing::Child child([&] {
    for (uint32_t round = 1;; ++round) {
      if (await(shared->ping, round) == ~0u) return;
      shared->pong.store(round, std::memory_order_release);
      futex::Wake(shared->pong, 1);
    }
  });
  uint32_t round = 0;
  for (auto _ : state) {
    shared->ping.store(++round, std::memory_order_release);
    futex::Wake(shared->ping, 1);
    await(shared->pong, round);
  }
  shared->ping.store(~0u);
  futex::Wake(shared->ping, 1);
  child.Reap();
}
BENCHMARK(BM_FutexPingPong)->UseRealTime();

void BM_WaitPointPingPong(benchmark::State& state) {
  auto* shared = NewShared<PingPong>();
  const HostId me = TheSegment().me();
  const HostId other = TheSegment().NewHost();
  const auto await = [](WaitPoint& point, std::atomic<uint32_t>& word, HostId who, uint32_t round) {
    uint32_t seen = 0;
    static_cast<void>(point.Await(who, Wait::Forever(), [&] {
      seen = word.load(std::memory_order_acquire);
      return seen >= round;
    }));
    return seen;
  };
  testing::Child child([&] {
    for (uint32_t round = 1;; ++round) {
      if (await(shared->pinged, shared->ping, other, round) == ~0u) return;
      shared->pong.store(round, std::memory_order_release);
      shared->ponged.Notify();
    }
  });
  uint32_t round = 0;
  for (auto _ : state) {
    shared->ping.store(++round, std::memory_order_release);
    shared->pinged.Notify();
    await(shared->ponged, shared->pong, me, round);
  }
  shared->ping.store(~0u);
  shared->pinged.Notify();
  child.Reap();
  TheSegment().Bury(other, testing::Exited(0));
}
BENCHMARK(BM_WaitPointPingPong)->UseRealTime();

void BM_NotifyNobody(benchmark::State& state) {
  auto* point = NewShared<WaitPoint>();
  for (auto _ : state) point->Notify();
}
BENCHMARK(BM_NotifyNobody);

}  // namespace
}  // namespace pyhost

