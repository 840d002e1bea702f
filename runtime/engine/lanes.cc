#include "runtime/engine/lanes.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_util.h"
#include "runtime/segment/host_table.h"
#include "runtime/segment/segment.h"

namespace pyhost {
namespace {

// So many calls of a lane can be on their way to workers.
constexpr uint32_t kTickets = 16 * 1024;
constexpr uint32_t kTicketsOwn = 64;

}  // namespace

absl::StatusOr<std::unique_ptr<Lanes>> Lanes::Create(Segment& segment, CallClient& client, int workers) {
  std::unique_ptr<Lanes> lanes(new Lanes(segment));
  const size_t count = kShared + static_cast<size_t>(workers);
  for (size_t lane = 0; lane < count; ++lane) {
    const uint32_t tickets = lane < kShared ? kTickets : kTicketsOwn;
    PYHOST_ASSIGN_OR_RETURN(lanes->lanes_.emplace_back(), CallLane::Create(segment, client, tickets));
  }
  return lanes;
}

std::vector<Handle> Lanes::HandlesFor(int worker) const {
  std::vector<Handle> handles = {lanes_[kShared + static_cast<size_t>(worker)]->handle()};
  for (size_t lane = 0; lane < kShared; ++lane) handles.push_back(lanes_[lane]->handle());
  return handles;
}

// ---- Calls -------------------------------------------------------------------------------------------------------

absl::Status Lanes::PushInto(size_t lane, const MessageView& call) {
  PYHOST_RETURN_IF_ERROR(lanes_[lane]->Push(call));
  if (lanes_[lane]->keeps_back()) keeps_back_ = true;
  return absl::OkStatus();
}

absl::Status Lanes::Push(Priority priority, const MessageView& call) {
  const auto lane = static_cast<size_t>(priority);
  if (lane >= kShared) return absl::InvalidArgumentError(absl::StrCat("no priority: ", static_cast<int>(priority)));
  PYHOST_RETURN_IF_ERROR(PushInto(lane, call));
  uint32_t before = unannounced_.load(std::memory_order_relaxed);
  while (before != kAll && !unannounced_.compare_exchange_weak(before, before + 1)) {
  }
  return absl::OkStatus();
}

absl::Status Lanes::PushTo(int worker, const MessageView& call) {
  PYHOST_RETURN_IF_ERROR(PushInto(kShared + static_cast<size_t>(worker), call));
  unannounced_.store(kAll);
  return absl::OkStatus();
}

void Lanes::Announce() {
  if (unannounced_.load(std::memory_order_relaxed) == 0) return;
  if (const uint32_t calls = unannounced_.exchange(0)) wait_lane().NotifyReaders(calls);
}

bool Lanes::Refill() {
  constexpr uint32_t kAtOnce = 4096;
  if (!keeps_back_.exchange(false)) return false;
  bool left = false;
  for (const auto& lane : lanes_) left = lane->Refill(kAtOnce) || left;
  unannounced_.store(kAll);  // Also for a lane that ends with the last call that it kept back.
  if (left) keeps_back_ = true;
  Announce();
  return left;
}

bool Lanes::Cancel(CallId call) {
  return std::any_of(lanes_.begin(), lanes_.end(), [&](const auto& lane) { return lane->Cancel(call); });
}

bool Lanes::Runs(HostId worker, CallId call) const {
  return std::any_of(lanes_.begin(), lanes_.end(), [&](const auto& lane) { return lane->RunningOn(worker) == call; });
}

bool Lanes::AwaitReport(HostId worker, Deadline deadline) const {
  return segment_.hosts().WaitForRecovery(worker, {deadline, nullptr}).ok();
}

WorkerFigures Lanes::FiguresOf(HostId worker) const {
  WorkerFigures figures;
  figures.worker = worker;
  for (const auto& lane : lanes_) lane->AddFigures(&figures);
  return figures;
}

uint64_t Lanes::queued() const {
  uint64_t queued = 0;
  for (const auto& lane : lanes_) queued += lane->queued();
  return queued;
}

void Lanes::Close() {
  for (const auto& lane : lanes_) lane->Close();
  wait_lane().NotifyReaders(kAll);
}

void Lanes::Terminate() {
  for (const auto& lane : lanes_) lane->Terminate();
  wait_lane().NotifyReaders(kAll);
}

}  // namespace pyhost
