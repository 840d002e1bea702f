#include "runtime/broker/call_lane.h"

#include <utility>

#include "runtime/base/crash_point.h"
#include "runtime/base/deadline.h"
#include "runtime/base/mutex_lock.h"
#include "runtime/base/status_util.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/segment/segment.h"

namespace pyhost {

absl::StatusOr<std::unique_ptr<CallLane>> CallLane::Create(Segment& segment, CallClient& client,
                                                           uint32_t cancellable) {
  const HostId me = client.me();
  PYHOST_ASSIGN_OR_RETURN(const Handle pool, CreatePool(segment, me, cancellable, client.reply_queue()));
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

absl::Status CallLane::Push(const MessageView& call) {
  MutexLock lock(mutex_);
  view_.tickets.Issue(CallId::FromValue(call.tag));
  PYHOST_CRASH_POINT("lane-ticket-issued");
  absl::Status pushed = calls_.PushQuietly(call);
  PYHOST_CRASH_POINT("lane-pushed");
  return pushed;
}

bool CallLane::Cancel(CallId call) {
  MutexLock lock(mutex_);
  const bool cancelled = view_.tickets.Cancel(call);
  PYHOST_CRASH_POINT("lane-cancelled");
  return cancelled;
}

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

void CallLane::Terminate() {
  view_.state->flags.fetch_or(kPoolTerminated, std::memory_order_acq_rel);
  PYHOST_CRASH_POINT("lane-terminated");
  calls_.Close();
}

}  // namespace pyhost
