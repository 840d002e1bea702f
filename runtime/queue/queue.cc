#include "runtime/queue/queue.h"

#include <atomic>

#include "absl/strings/str_format.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/status_util.h"
#include "runtime/queue/chunk.h"
#include "runtime/queue/ends.h"
#include "runtime/queue/queue_layout.h"
#include "runtime/segment/host_table.h"
#include "runtime/segment/object_table.h"
#include "runtime/segment/segment.h"

namespace pyhost {
namespace {

// Both locks, because a recount of transits by another host must see the first chunk either not at all or linked.
absl::Status GiveFirstChunk(Segment& segment, HostId me, QueueState& state) {
  ProducerLock producers(segment, me, state);
  ConsumerLock consumers(segment, me, state);
  PYHOST_ASSIGN_OR_RETURN(const uint64_t chunk, NewChunk(segment, me, kFirstChunkBytes));
  state.tails[0] = {chunk, 0};
  state.freed_chunk.store(chunk, std::memory_order_relaxed);
  state.heads[0] = {chunk, 0};
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Queue> Queue::Create(Segment& segment, HostId me, uint64_t max_items) {
  PYHOST_ASSIGN_OR_RETURN(const Handle handle,
                          segment.objects().Create(ObjectKind::kQueue, 0, me));
  absl::StatusOr<QueueState*> state = segment.objects().StateAs<QueueState>(handle);
  if (!state.ok()) return state.status();
  (*state)->max_messages.store(max_items, std::memory_order_relaxed);
  (*state)->bounded.store(max_items != 0, std::memory_order_relaxed);
  (*state)->flags.store(max_items != 0 ? kQueueBounded : 0, std::memory_order_relaxed);
  absl::Status ready = GiveFirstChunk(segment, me, **state);
  if (!ready.ok()) {
    segment.objects().Drop(handle, me, me);
    return Annotate(ready, "create a queue");
  }
  return Queue(&segment, me, handle, *state);
}

absl::StatusOr<Queue> Queue::Open(Segment& segment, HostId me, Handle handle) {
  if (handle.kind() != ObjectKind::kQueue) {
    return absl::InvalidArgumentError(absl::StrFormat("%s is no queue", handle.ToString()));
  }
  PYHOST_ASSIGN_OR_RETURN(QueueState * state, segment.objects().StateAs<QueueState>(handle));
  return Queue(&segment, me, handle, state);
}

void Queue::Close() {
  {
    ProducerLock lock(*segment_, me_, *state_);
    state_->flags.fetch_or(kQueueClosed, std::memory_order_relaxed);
    PYHOST_CRASH_POINT("queue-half-closed");
    state_->closed.store(1, std::memory_order_release);
  }
  PYHOST_CRASH_POINT("queue-closed");
  state_->readable.NotifyAll();
  state_->writable.NotifyAll();
}

bool Queue::closed() const { return state_->closed.load(std::memory_order_acquire) != 0; }

absl::Status Queue::EndWith(HostId host) {
  for (std::atomic<uint32_t>& place : state_->ends_with) {
    uint32_t none = 0;
    if (place.compare_exchange_strong(none, host.value())) return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrFormat("%s ends with two hosts already", handle_.ToString()));
}

HostId Queue::Partner(HostId one) const {
  const HostId first = HostId::FromValue(state_->ends_with[0].load());
  const HostId second = HostId::FromValue(state_->ends_with[1].load());
  return first == one ? second : first;
}

// Recovery closes it (queue_kind.cc).  This is for the case that nobody is left who would recover anything.
void Queue::CloseIfPartnerIsGone() {
  for (const std::atomic<uint32_t>& place : state_->ends_with) {
    const HostId host = HostId::FromValue(place.load());
    if (host && host != me_ && !closed() && segment_->hosts().ProcessIsGone(host)) Close();
  }
}

// The head first: it can only fall behind the tail meanwhile.
uint64_t Queue::depth() const {
  const uint64_t head = ObserveHead(*state_).messages();
  return ObserveTail(*state_).messages() - head;
}

uint64_t Queue::pushed() const { return ObserveTail(*state_).messages(); }

uint64_t Queue::popped() const { return ObserveHead(*state_).messages(); }

uint64_t Queue::max_items() const { return state_->max_messages.load(std::memory_order_relaxed); }

absl::Status Queue::WaitReadable(Wait wait) {
  static constexpr std::atomic<bool> kNever{false};
  return WaitReadable(wait, kNever);
}

absl::Status Queue::WaitReadable(Wait wait, const std::atomic<bool>& stopped) {
  absl::Status waited =
      state_->readable.Await(me_, wait, [&] { return Readable() || closed() || stopped.load(); });
  // A wake-up that reached this one is passed on: it takes nothing.
  state_->readable.Notify();
  if (waited.ok()) return waited;
  return Annotate(waited, absl::StrFormat("wait for %s, which is empty", handle_.ToString()));
}

void Queue::WakeConsumers() { state_->readable.NotifyAll(); }

}  // namespace pyhost
