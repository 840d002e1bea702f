#include "runtime/engine/lanes.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_util.h"
#include "runtime/segment/host_table.h"
#include "runtime/segment/segment.h"

namespace pyhost {
namespace {

// So many of the newest calls of a lane can be cancelled while they wait.
constexpr uint32_t kCancellable = 16 * 1024;
constexpr uint32_t kCancellableOwn = 64;

}  // namespace

absl::StatusOr<std::unique_ptr<Lanes>> Lanes::Create(Segment& segment, CallClient& client) {
  std::unique_ptr<Lanes> lanes(new Lanes(segment, client));
  for (std::shared_ptr<CallLane>& lane : lanes->shared_) {
    PYHOST_ASSIGN_OR_RETURN(lane, CallLane::Create(segment, client, kCancellable));
  }
  return lanes;
}

absl::StatusOr<std::shared_ptr<CallLane>> Lanes::NewOwnLane() {
  PYHOST_ASSIGN_OR_RETURN(std::shared_ptr<CallLane> lane, CallLane::Create(segment_, client_, kCancellableOwn));
  return lane;
}

std::vector<Handle> Lanes::HandlesFor(const CallLane& own) const {
  std::vector<Handle> handles = {own.handle()};
  for (const std::shared_ptr<CallLane>& lane : shared_) handles.push_back(lane->handle());
  return handles;
}

void Lanes::AddOwnLane(HostId worker, std::shared_ptr<CallLane> lane) {
  MutexLock lock(mutex_);
  if (closed_) lane->Close();
  own_[worker.value()] = std::move(lane);
}

void Lanes::DropOwnLane(HostId worker, const absl::Status& lost) {
  std::shared_ptr<CallLane> lane;
  {
    MutexLock lock(mutex_);
    auto found = own_.find(worker.value());
    if (found == own_.end()) return;
    lane = std::move(found->second);
    own_.erase(found);
  }
  lane->Close();
  for (CallId call : lane->TakeQueued()) client_.Settle(call, lost);
}

std::vector<HostId> Lanes::workers() const {
  MutexLock lock(mutex_);
  std::vector<HostId> workers;
  for (const auto& [worker, lane] : own_) workers.push_back(HostId::FromValue(worker));
  return workers;
}

std::vector<std::shared_ptr<CallLane>> Lanes::All() const {
  std::vector<std::shared_ptr<CallLane>> all(shared_.begin(), shared_.end());
  MutexLock lock(mutex_);
  for (const auto& [worker, lane] : own_) all.push_back(lane);
  return all;
}

// ---- Calls -------------------------------------------------------------------------------------------------------

absl::Status Lanes::Push(Priority priority, const MessageView& call) {
  const auto lane = static_cast<size_t>(priority);
  if (lane >= shared_.size()) return absl::InvalidArgumentError(absl::StrCat("no priority: ", lane));
  PYHOST_RETURN_IF_ERROR(shared_[lane]->Push(call));
  uint32_t before = unannounced_.load(std::memory_order_relaxed);
  while (before != kAll && !unannounced_.compare_exchange_weak(before, before + 1)) {
  }
  return absl::OkStatus();
}

absl::Status Lanes::PushTo(HostId worker, const MessageView& call) {
  MutexLock lock(mutex_);
  auto found = own_.find(worker.value());
  if (found == own_.end()) return absl::AbortedError("the worker has ended");
  PYHOST_RETURN_IF_ERROR(found->second->Push(call));
  unannounced_.store(kAll);
  return absl::OkStatus();
}

void Lanes::Announce() {
  if (unannounced_.load(std::memory_order_relaxed) == 0) return;
  if (const uint32_t calls = unannounced_.exchange(0)) wait_lane().NotifyReaders(calls);
}

bool Lanes::Cancel(CallId call) {
  const auto all = All();
  return std::any_of(all.begin(), all.end(), [&](const auto& lane) { return lane->Cancel(call); });
}

HostId Lanes::WorkerRunning(CallId call) const {
  const auto all = All();
  for (HostId worker : workers()) {
    for (const auto& lane : all) {
      if (lane->RunningOn(worker) == call) return worker;
    }
  }
  return {};
}

bool Lanes::AwaitReport(HostId worker, Deadline deadline) const {
  return segment_.hosts().WaitForRecovery(worker, {deadline, nullptr}).ok();
}

WorkerFigures Lanes::FiguresOf(HostId worker) const {
  WorkerFigures figures;
  figures.worker = worker;
  for (const auto& lane : All()) lane->AddFigures(&figures);
  return figures;
}

uint64_t Lanes::queued() const {
  uint64_t queued = 0;
  for (const auto& lane : All()) queued += lane->queued();
  return queued;
}

void Lanes::Close() {
  {
    MutexLock lock(mutex_);
    closed_ = true;
  }
  for (const auto& lane : All()) lane->Close();
  wait_lane().NotifyReaders(kAll);
}

void Lanes::Terminate() {
  for (const auto& lane : All()) lane->Terminate();
  wait_lane().NotifyReaders(kAll);
}

}  // namespace pyhost
