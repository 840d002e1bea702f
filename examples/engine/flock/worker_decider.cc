#include "worker_decider.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace flock {

absl::StatusOr<std::unique_ptr<WorkerDecider>> WorkerDecider::Start(WorkerSettings settings) {
  pyhost::Options options;
  options.workers = settings.workers;
  options.python_path = {settings.scripts};
  options.preload.assign(std::begin(kScripts), std::end(kScripts));
  options.preload.push_back("numpy");
  absl::StatusOr<pyhost::WorkerPool> pool = pyhost::WorkerPool::Start(std::move(options));
  if (!pool.ok()) return pool.status();
  std::unique_ptr<WorkerDecider> decider(new WorkerDecider(std::move(settings), *std::move(pool)));
  absl::Status status = decider->MakeGroups();
  if (!status.ok()) return status;
  return decider;
}

absl::Status WorkerDecider::MakeGroups() {
  const auto agents = pool_.Allocate<float>({settings_.agents, kAgentColumns});
  if (!agents.ok()) return agents.status();
  const auto steering = pool_.Allocate<float>({settings_.agents, kSteeringColumns});
  if (!steering.ok()) return steering.status();
  agents_ = *agents;
  steering_ = *steering;
  const int64_t rows = settings_.agents / static_cast<int64_t>(kGroups);
  for (size_t i = 0; i < kGroups; ++i) {
    const int64_t first = rows * static_cast<int64_t>(i);
    groups_[i].agents = *agents_.Rows(first, rows);
    groups_[i].steering = *steering_.Rows(first, rows);
    groups_[i].function = absl::StrCat(kScripts[i], ":decide");
  }
  return absl::OkStatus();
}

void WorkerDecider::Decide(int frame) {
  for (Group& group : groups_) {
    if (group.outcome) continue;  // Still at an earlier frame.
    group.asked_in = frame;
    // Scripts may look at the agents, and write their own group's steering alone.
    const pyhost::SharedArray<const float> agents = group.agents;
    group.outcome =
        pool_.With({.deadline = settings_.deadline}).Call<void>(group.function, agents, group.steering, frame);
  }
  pool_.Flush();
  const absl::Time end = absl::Now() + settings_.patience;
  for (size_t i = 0; i < kGroups; ++i) Collect(i, end);
}

void WorkerDecider::Collect(size_t index, absl::Time end) {
  Group& group = groups_[index];
  const bool was_ready = group.outcome->Ready();
  const absl::Duration patience = end - absl::Now();
  if (!was_ready && patience <= absl::ZeroDuration()) {
    ++missed_;
    return;
  }
  const absl::Status outcome = group.outcome->Get(patience);
  // Our patience ended, not the call.
  if (!was_ready && absl::IsDeadlineExceeded(outcome) && !group.outcome->Ready() && absl::Now() >= end) {
    ++missed_;
    return;
  }
  group.outcome.reset();
  if (!outcome.ok() && settings_.on_failure) settings_.on_failure(group.asked_in, kScripts[index], outcome);
}

absl::Status WorkerDecider::Reload(const char* script) {
  auto outcomes = pool_.Reload(script).Get();
  if (!outcomes.ok()) return outcomes.status();
  absl::Status status;
  for (const absl::Status& outcome : *outcomes) status.Update(outcome);
  return status;
}

}  // namespace flock
