// What hosts cost that wait.

#include <time.h>
#include <unistd.h>

#include <memory>
#include <vector>

#include "benchmark/benchmark.h"
#include "runtime/queue/queue.h"
#include "runtime/testing/temp_segment.h"

namespace pyhost {
namespace {

using ::pyhost::testing::Child;
using ::pyhost::testing::TempSegment;

double ProcessorSeconds(pid_t pid) {
  clockid_t clock;
  timespec time = {};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0) return 0;
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

// Eight hosts wait for messages for ten seconds.  `share`: of one processor's time, all of them together.
void BM_IdleHosts(benchmark::State& state) {
  constexpr int kHosts = 8;
  constexpr double kSeconds = 10;
  RegisterQueueKind();
  TempSegment segment;
  Queue started = *Queue::Create(*segment, segment.me());
  std::vector<Queue> queues;
  std::vector<std::unique_ptr<Child>> hosts;
  for (int i = 0; i < kHosts; ++i) {
    queues.push_back(*Queue::Create(*segment, segment.me()));
    HostId id;
    hosts.push_back(segment.StartHost(
        [&](HostId self) {
          Queue own = *Queue::Open(*segment, self, queues.back().handle());
          if (!Queue::Open(*segment, self, started.handle())->Push({.parts = {}, .handles = {}}, Wait::Forever()).ok()) return;
          while (own.Pop(Wait::Forever()).ok()) {
          }
        },
        &id));
  }
  for (int i = 0; i < kHosts; ++i) benchmark::DoNotOptimize(started.Pop(Wait::Forever()));
  usleep(1'000'000);  // what they do before they have settled is not idling
  for (auto _ : state) {
    double before = 0, after = 0;
    for (const auto& host : hosts) before += ProcessorSeconds(host->pid());
    usleep(static_cast<useconds_t>(kSeconds * 1e6));
    for (const auto& host : hosts) after += ProcessorSeconds(host->pid());
    state.counters["share"] = (after - before) / kSeconds;
  }
  for (Queue& queue : queues) queue.Close();
  for (const auto& host : hosts) host->Reap();
}
BENCHMARK(BM_IdleHosts)->Iterations(1)->Repetitions(1);

}  // namespace
}  // namespace pyhost
