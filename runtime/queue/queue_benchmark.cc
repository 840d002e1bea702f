// Speed of queues between two processes, with the machine's own limits beside it: a spinning cache line, a futex,
// a pipe, a memcpy.  Run on two idle cores, release build.

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "runtime/os/cpu.h"
#include "runtime/os/futex.h"
#include "runtime/queue/queue.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/testing/temp_segment.h"

namespace pyhost {
namespace {

using ::pyhost::testing::Child;
using ::pyhost::testing::TempSegment;

// A segment, a queue each way, and another process that runs `body(from_us, to_us)`.
class Pair {
 public:
  template <typename Body>
  explicit Pair(Body body, uint64_t max_items = 0)
      : segment_({.limit = uint64_t{1} << 30, .max_hosts = 64, .max_objects = 65536}) {
    RegisterQueueKind();
    out_ = *Queue::Create(*segment_, segment_.me(), max_items);
    in_ = *Queue::Create(*segment_, segment_.me(), max_items);
    child_ = segment_.StartHost(
        [&, body](HostId self) {
          Queue requests = *Queue::Open(*segment_, self, out_->handle());
          Queue replies = *Queue::Open(*segment_, self, in_->handle());
          body(requests, replies);
        },
        &id_);
  }
  ~Pair() {
    out_->Close();
    child_->Reap();
  }
  Queue& out() { return *out_; }
  Queue& in() { return *in_; }

 private:
  TempSegment segment_;
  std::optional<Queue> out_, in_;
  std::unique_ptr<Child> child_;
  HostId id_;
};

void Drain(Queue& from, Queue&) {
  while (from.Pop(Wait::Forever()).ok()) {
  }
}

// So that the consumer's rate counts, not the memory for a backlog.  Looks rarely: a look costs both sides.
class BacklogLimit {
 public:
  explicit BacklogLimit(const Queue& queue) : queue_(queue) {}
  void Pushed(int messages) {
    since_ += messages;
    if (since_ < 256) return;
    since_ = 0;
    while (queue_.depth() > 1024) {
      for (int pause = 0; pause < 32; ++pause) SpinPause();
    }
  }

 private:
  const Queue& queue_;
  int since_ = 0;
};

void BM_QueueThroughput(benchmark::State& state) {
  Pair pair(Drain);
  const std::vector<std::byte> payload(state.range(0));
  const std::array<std::span<const std::byte>, 1> parts = {payload};
  const MessageView message{.parts = parts, .handles = {}};
  BacklogLimit limit(pair.out());
  for (auto _ : state) {
    if (!pair.out().Push(message, Wait::Forever()).ok()) state.SkipWithError("push");
    limit.Pushed(1);
  }
  while (!pair.out().empty()) SpinPause();
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_QueueThroughput)->Arg(8)->Arg(64)->Arg(1024)->UseRealTime();

void BM_QueueThroughputBatches(benchmark::State& state) {
  Pair pair([](Queue& from, Queue&) {
    while (from.PopBatch(64, Wait::Forever()).ok()) {
    }
  });
  const std::vector<std::byte> payload(64);
  const std::array<std::span<const std::byte>, 1> parts = {payload};
  const std::vector<MessageView> messages(state.range(0), {.parts = parts, .handles = {}});
  BacklogLimit limit(pair.out());
  for (auto _ : state) {
    absl::Status status;
    pair.out().PushBatch(messages, Wait::Forever(), &status);
    limit.Pushed(static_cast<int>(messages.size()));
  }
  while (!pair.out().empty()) SpinPause();
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_QueueThroughputBatches)->Arg(16)->Arg(64)->UseRealTime();

void BM_PipeThroughput(benchmark::State& state) {
  int fds[2];
  if (pipe(fds) != 0) return state.SkipWithError("pipe");
  std::vector<char> payload(state.range(0));
  {
    Child child([&] {
      close(fds[1]);
      std::vector<char> buffer(payload.size());
      while (read(fds[0], buffer.data(), buffer.size()) > 0) {
      }
    });
    close(fds[0]);
    for (auto _ : state) {
      if (write(fds[1], payload.data(), payload.size()) < 0) state.SkipWithError("write");
    }
    close(fds[1]);
    child.Reap();
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_PipeThroughput)->Arg(64)->UseRealTime();

void Echo(Queue& from, Queue& to) {
  const std::byte payload[64] = {};
  const std::array<std::span<const std::byte>, 1> parts = {payload};
  while (from.Pop(Wait::Forever()).ok()) {
    if (!to.Push({.parts = parts, .handles = {}}, Wait::Forever()).ok()) return;
  }
}

void BM_QueueRoundTripAwake(benchmark::State& state) {
  Pair pair(Echo);
  const std::byte payload[64] = {};
  const std::array<std::span<const std::byte>, 1> parts = {payload};
  for (auto _ : state) {
    if (!pair.out().Push({.parts = parts, .handles = {}}, Wait::Forever()).ok()) state.SkipWithError("push");
    benchmark::DoNotOptimize(pair.in().Pop(Wait::Forever()));
  }
}
BENCHMARK(BM_QueueRoundTripAwake)->UseRealTime();

// Both sides fall asleep between the messages.
void BM_QueueRoundTripAsleep(benchmark::State& state) {
  Pair pair(Echo);
  const std::byte payload[64] = {};
  const std::array<std::span<const std::byte>, 1> parts = {payload};
  for (auto _ : state) {
    state.PauseTiming();
    usleep(300);
    state.ResumeTiming();
    if (!pair.out().Push({.parts = parts, .handles = {}}, Wait::Forever()).ok()) state.SkipWithError("push");
    benchmark::DoNotOptimize(pair.in().Pop(Wait::Forever()));
  }
}
BENCHMARK(BM_QueueRoundTripAsleep)->Iterations(2000)->UseRealTime();

struct Words {
  alignas(64) std::atomic<uint32_t> ping;
  alignas(64) std::atomic<uint32_t> pong;
};

class SharedWords {
 public:
  SharedWords()
      : words_(new(mmap(nullptr, sizeof(Words), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Words{}) {
  }
  ~SharedWords() { munmap(words_, sizeof(Words)); }
  Words* operator->() { return words_; }

 private:
  Words* words_;
};

constexpr uint32_t kStop = ~0u;

void BM_SpinRoundTrip(benchmark::State& state) {
  SharedWords words;
  Child child([&] {
    for (uint32_t next = 1;; ++next) {
      uint32_t seen;
      while ((seen = words->ping.load(std::memory_order_acquire)) != next) {
        if (seen == kStop) return;
      }
      words->pong.store(next, std::memory_order_release);
    }
  });
  uint32_t round = 0;
  for (auto _ : state) {
    words->ping.store(++round, std::memory_order_release);
    while (words->pong.load(std::memory_order_acquire) != round) {
    }
  }
  words->ping.store(kStop);
  child.Reap();
}
BENCHMARK(BM_SpinRoundTrip)->UseRealTime();

void BM_FutexRoundTrip(benchmark::State& state) {
  SharedWords words;
  Child child([&] {
    for (uint32_t next = 1;; ++next) {
      uint32_t seen;
      while ((seen = words->ping.load()) != next) {
        if (seen == kStop) return;
        futex::Wait(words->ping, seen, Deadline::Never());
      }
      words->pong.store(next);
      futex::Wake(words->pong, 1);
    }
  });
  uint32_t round = 0;
  for (auto _ : state) {
    state.PauseTiming();
    usleep(300);
    state.ResumeTiming();
    words->ping.store(++round);
    futex::Wake(words->ping, 1);
    for (uint32_t seen; (seen = words->pong.load()) != round;) {
      futex::Wait(words->pong, seen, Deadline::Never());
    }
  }
  words->ping.store(kStop);
  futex::Wake(words->ping, 1);
  child.Reap();
}
BENCHMARK(BM_FutexRoundTrip)->Iterations(2000)->UseRealTime();

// 64 MiB to another process that looks at the first and last byte and answers.
void BM_QueueLargeReadInPlace(benchmark::State& state) {
  Pair pair([](Queue& from, Queue& to) {
    for (;;) {
      absl::StatusOr<Message> message = from.Pop(Wait::Forever());
      if (!message.ok()) return;
      const std::array parts = {message->payload().first(1), message->payload().last(1)};
      if (!to.Push({.parts = parts, .handles = {}}, Wait::Forever()).ok()) return;
    }
  });
  const std::vector<std::byte> payload(64 << 20, std::byte{7});
  const std::array<std::span<const std::byte>, 1> parts = {payload};
  const auto send = [&] {
    if (!pair.out().Push({.parts = parts, .handles = {}}, Wait::Forever()).ok()) state.SkipWithError("push");
    benchmark::DoNotOptimize(pair.in().Pop(Wait::Forever()));
  };
  // The memory is first touched here, as memcpy's is: two blocks, as the receiver may not have given the last one back.
  for (int i = 0; i < 4; ++i) send();
  for (auto _ : state) send();
  state.SetBytesProcessed(state.iterations() * payload.size());
}
BENCHMARK(BM_QueueLargeReadInPlace)->UseRealTime();

void BM_MemcpyWarm(benchmark::State& state) {
  const std::vector<std::byte> from(64 << 20, std::byte{7});
  std::vector<std::byte> to(from.size());
  for (auto _ : state) {
    memcpy(to.data(), from.data(), from.size());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * from.size());
}
BENCHMARK(BM_MemcpyWarm)->UseRealTime();

void BM_QueuePushPopAlone(benchmark::State& state) {
  TempSegment segment;
  RegisterQueueKind();
  Queue queue = *Queue::Create(*segment, segment.me());
  const std::byte payload[64] = {};
  const std::array<std::span<const std::byte>, 1> parts = {payload};
  for (auto _ : state) {
    if (!queue.Push({.parts = parts, .handles = {}}, Wait::Try()).ok()) state.SkipWithError("push");
    benchmark::DoNotOptimize(queue.Pop(Wait::Try()));
  }
}
BENCHMARK(BM_QueuePushPopAlone);

void BM_QueueCreateDrop(benchmark::State& state) {
  TempSegment segment;
  RegisterQueueKind();
  for (auto _ : state) {
    Queue queue = *Queue::Create(*segment, segment.me());
    segment.objects().Drop(queue.handle(), segment.me(), segment.me());
  }
}
BENCHMARK(BM_QueueCreateDrop);

}  // namespace
}  // namespace pyhost

