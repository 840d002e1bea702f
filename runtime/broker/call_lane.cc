#include "runtime/broker/call_lane.h"

#include <algorithm>
#include <span>
#include <utility>

#include "runtime/base/crash_point.h"
#include "runtime/base/deadline.h"
#include "runtime/base/mutex_lock.h"
#include "runtime/base/status_util.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/segment/segment.h"

namespace pyhost {

absl::StatusOr<std::unique_ptr<CallLane>> CallLane::Create(Segment& segment, CallClient& client,
                                                           uint32_t tickets) {
  const HostId me = client.me();
  PYHOST_ASSIGN_OR_RETURN(const Handle pool, CreatePool(segment, me, tickets, client.reply_queue()));
  PYHOST_CRASH_POINT("lane-pool-created");
  const auto open = [&]() -> absl::StatusOr<std::unique_ptr<CallLane>> {
    PYHOST_ASSIGN_OR_RETURN(PoolView view, OpenPool(segment, pool));
    const Handle queue = Handle::FromValue(view.state->call_queue);
    PYHOST_RETURN_IF_ERROR(segment.refs().Retain(queue, me));
    PYHOST_CRASH_POINT("lane-queue-held");
    absl::StatusOr<Queue> calls = Queue::Open(segment, me, queue);
    if (calls.ok()) return std::unique_ptr<CallLane>(new CallLane(segment, me, pool, view, *calls));
    segment.refs().Release(queue, me);
    return calls.status();
  };
  absl::StatusOr<std::unique_ptr<CallLane>> lane = open();
  if (!lane.ok()) segment.refs().Release(pool, me);
  return lane;
}

CallLane::~CallLane() {
  Terminate();
  segment_.refs().Release(calls_.handle(), me_);
  PYHOST_CRASH_POINT("lane-queue-released");
  segment_.refs().Release(pool_, me_);
}

// ---- Calls -------------------------------------------------------------------------------------------------------

absl::Status CallLane::Push(const MessageView& call) {
  MutexLock lock(mutex_);
  if (closing_) return absl::FailedPreconditionError("the lane is closed");
  return kept_back_.empty() && MayGo(CallId::FromValue(call.tag)) ? PushNow(call) : KeepBack(call);
}

absl::Status CallLane::PushNow(const MessageView& call) {
  view_.tickets.Issue(CallId::FromValue(call.tag));
  PYHOST_CRASH_POINT("lane-ticket-issued");
  absl::Status pushed = calls_.PushQuietly(call);
  PYHOST_CRASH_POINT("lane-pushed");
  return pushed;
}

bool CallLane::Cancel(CallId call) {
  MutexLock lock(mutex_);
  if (kept_back_.contains(call.value())) {
    Forget(call);
    return true;
  }
  const bool cancelled = view_.tickets.Cancel(call);
  PYHOST_CRASH_POINT("lane-cancelled");
  return cancelled;
}

uint64_t CallLane::queued() const {
  MutexLock lock(mutex_);
  return calls_.depth() + kept_back_.size();
}

// ---- Calls that are kept back ------------------------------------------------------------------------------------

bool CallLane::MayGo(CallId call) {
  const CallId holder = view_.tickets.HolderOf(call);
  if (!holder) return true;
  // In this order: a worker has a call in its hand before the call leaves the queue.
  if (!calls_.empty() || IsInAHand(holder)) return false;
  view_.tickets.Revoke(holder);  // Its worker died before it looked at the ticket.
  return true;
}

bool CallLane::IsInAHand(CallId call) const {
  return std::any_of(view_.hands.begin(), view_.hands.end(), [&](const Hand& hand) {
    return hand.claim.load(std::memory_order_acquire) != 0 && hand.call.load(std::memory_order_acquire) == call.value();
  });
}

absl::Status CallLane::KeepBack(const MessageView& call) {
  KeptBack kept;
  for (const auto& part : call.parts) kept.payload.append(reinterpret_cast<const char*>(part.data()), part.size());
  for (Handle handle : call.handles) {
    if (absl::Status held = segment_.refs().Retain(handle, me_); !held.ok()) {
      for (Handle before : kept.handles) segment_.refs().Release(before, me_);
      return held;
    }
    kept.handles.push_back(handle);
  }
  kept_back_[call.tag] = std::move(kept);
  keeps_back_ = true;
  return absl::OkStatus();
}

void CallLane::Forget(CallId call) {
  auto kept = kept_back_.extract(call.value());
  for (Handle handle : kept.mapped().handles) segment_.refs().Release(handle, me_);
  keeps_back_ = !kept_back_.empty();
  if (closing_ && kept_back_.empty()) calls_.Close();
}

bool CallLane::PushOneKeptBack() {
  MutexLock lock(mutex_);
  if (kept_back_.empty()) return false;
  const auto& [tag, kept] = *kept_back_.begin();
  const CallId call = CallId::FromValue(tag);
  if (!MayGo(call)) return false;
  const std::span<const std::byte> part = std::as_bytes(std::span(kept.payload));
  // No memory: there will be some when calls that are on their way have been served.
  if (!PushNow({.parts = {&part, 1}, .handles = kept.handles, .tag = tag}).ok()) return false;
  Forget(call);
  return true;
}

// Not under one lock, which who submits would have to wait for.
bool CallLane::Refill(uint32_t most) {
  for (uint32_t pushed = 0; pushed < most && PushOneKeptBack(); ++pushed) {
  }
  return keeps_back();
}

// ---- Workers -----------------------------------------------------------------------------------------------------

const Hand* CallLane::HandOf(HostId worker) const {
  if (worker.slot() >= view_.hands.size()) return nullptr;
  const Hand& hand = view_.hands[worker.slot()];
  return hand.worker.load(std::memory_order_acquire) == worker.value() ? &hand : nullptr;
}

CallId CallLane::RunningOn(HostId worker) const {
  const Hand* hand = HandOf(worker);
  if (hand == nullptr || hand->claim.load(std::memory_order_acquire) == 0) return {};
  return CallId::FromValue(hand->call.load(std::memory_order_acquire));
}

void CallLane::AddFigures(WorkerFigures* figures) const {
  const Hand* hand = HandOf(figures->worker);
  if (hand == nullptr) return;
  figures->calls += hand->calls.load(std::memory_order_relaxed);
  figures->busy_nanos += hand->busy_nanos.load(std::memory_order_relaxed);
  figures->waiting_nanos += hand->waiting_nanos.load(std::memory_order_relaxed);
  figures->bytes_in += hand->bytes_in.load(std::memory_order_relaxed);
  figures->bytes_out += hand->bytes_out.load(std::memory_order_relaxed);
  const CallId running = RunningOn(figures->worker);
  if (!running) return;
  const uint64_t started = hand->started_nanos.load(std::memory_order_relaxed);
  const auto now = static_cast<uint64_t>(Deadline::MonotonicNanos());
  figures->in_hand = running;
  figures->running_nanos = started == 0 || started > now ? 0 : now - started;
}

void CallLane::Close() {
  MutexLock lock(mutex_);
  closing_ = true;
  if (kept_back_.empty()) calls_.Close();
}

void CallLane::Terminate() {
  {
    MutexLock lock(mutex_);
    closing_ = true;
    while (!kept_back_.empty()) Forget(CallId::FromValue(kept_back_.begin()->first));
  }
  view_.state->flags.fetch_or(kPoolTerminated, std::memory_order_acq_rel);
  PYHOST_CRASH_POINT("lane-terminated");
  calls_.Close();
}

}  // namespace pyhost
