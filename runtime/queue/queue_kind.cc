// What the object table needs to know of queues: how one is destroyed, repaired after a death, and what
// it carries.

#include <functional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "runtime/base/crash_point.h"
#include "runtime/queue/chunk.h"
#include "runtime/queue/ends.h"
#include "runtime/queue/queue.h"
#include "runtime/queue/queue_layout.h"
#include "runtime/segment/object_table.h"
#include "runtime/segment/segment.h"
#include "runtime/segment/segment_map.h"

namespace pyhost {
namespace {

using Visit = absl::FunctionRef<void(Handle)>;

// All that the published frames carry.  Stops at nonsense: what lies behind it cannot be known.  More bytes than the
// segment has are nonsense too, and the end of a walk that would go round for ever.
void VisitFrames(Segment& segment, const QueueState& state, Visit visit) {
  const QueueCount head = ObserveHead(state);
  QueuePosition at = state.heads[head.side()];
  uint64_t walked = 0;
  for (uint64_t left = ObserveTail(state).messages() - head.messages(); left > 0; --left) {
    absl::StatusOr<FrameView> frame = ReadFrame(segment, at);
    if (!frame.ok() || (walked += frame->size) > segment.map().total_bytes()) return;
    if (frame->kind == FrameKind::kObject) visit(frame->payload_object);
    for (size_t i = 0; i < frame->handle_count; ++i) visit(frame->handle(i));
  }
}

// The chunks from the head's to the tail's, and the spare.
void VisitChunks(Segment& segment, const QueueState& state, Visit visit) {
  const uint64_t last = state.tails[ObserveTail(state).side()].chunk;
  uint64_t offset = state.heads[ObserveHead(state).side()].chunk;
  uint64_t steps = segment.map().max_objects();  // damage could have made a circle of them
  for (bool more = true; more && steps > 0; --steps) {
    const Chunk chunk = ChunkAt(segment, offset);
    if (chunk.header == nullptr) break;
    more = offset != last;
    offset = chunk.header->next.load(std::memory_order_acquire);
    visit(Handle::FromValue(chunk.header->handle));
  }
  const Chunk spare = ChunkAt(segment, state.spare.load(std::memory_order_acquire));
  if (spare.header != nullptr) visit(Handle::FromValue(spare.header->handle));
}

void VisitCarried(Segment& segment, const QueueState& state, Visit visit) {
  if ((state.flags.load(std::memory_order_relaxed) & kQueueCarries) != 0) VisitFrames(segment, state, visit);
  VisitChunks(segment, state, visit);
}

bool IsDestroyed(const QueueState& state) {
  return (state.flags.load(std::memory_order_acquire) & kQueueDestroyed) != 0;
}

QueueState* StateOf(Segment& segment, Handle handle) {
  absl::StatusOr<QueueState*> state = segment.objects().StateAs<QueueState>(handle);
  return state.ok() ? *state : nullptr;
}

// Nobody else can reach the queue any more: no locks.  Who dies here is followed by another, who must neither let go twice
// of what another queue carries too, nor look into chunks that are somebody else's by then: it is noted first, once and for
// all.  A transit that the dead one did not come to end is put right by the recount.
void Destroy(Segment& segment, HostId me, Handle handle) {
  QueueState* state = StateOf(segment, handle);
  if (state == nullptr) return;
  if (IsDestroyed(*state)) return;
  std::vector<Handle> carried;
  VisitCarried(segment, *state, [&](Handle one) { carried.push_back(one); });
  state->flags.fetch_or(kQueueDestroyed, std::memory_order_release);
  PYHOST_CRASH_POINT("queue-destroy-noted");
  for (Handle one : carried) segment.objects().EndTransit(one, me);
}

bool EndsWith(const QueueState& state, HostId host) {
  return state.ends_with[0].load() == host.value() || state.ends_with[1].load() == host.value();
}

void Recover(Segment& segment, HostId me, Handle handle, HostId dead) {
  QueueState* state = StateOf(segment, handle);
  if (state == nullptr) return;
  if (state->push_lock.TakeOver(dead, me)) {
    RepairProducerEnd(segment, *state);
    state->push_lock.Unlock(me);
  }
  if (state->pop_lock.TakeOver(dead, me)) {
    RepairConsumerEnd(*state);
    state->pop_lock.Unlock(me);
  }
  // It may have died between its commit and the wake-up, or with a wake-up in hand.
  state->readable.Recover(dead);
  state->writable.Recover(dead);
  if (EndsWith(*state, dead)) {
    if (absl::StatusOr<Queue> queue = Queue::Open(segment, me, handle); queue.ok()) queue->Close();
  }
}

void VisitTransits(Segment& segment, HostId me, Handle handle,
                   const std::function<void(Handle)>& visit) {
  QueueState* state = StateOf(segment, handle);
  if (state == nullptr) return;
  ProducerLock producers(segment, me, *state);
  ConsumerLock consumers(segment, me, *state);
  if (!IsDestroyed(*state)) VisitCarried(segment, *state, visit);
}

}  // namespace

void RegisterQueueKind() {
  RegisterKind(ObjectKind::kQueue,
               {.destroy = Destroy, .recover = Recover, .visit_transits = VisitTransits});
}

}  // namespace pyhost
