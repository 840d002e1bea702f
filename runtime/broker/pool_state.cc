#include "runtime/broker/pool_state.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <new>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/crash_point.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/segment/host_table.h"
#include "runtime/segment/object_table.h"
#include "runtime/segment/segment.h"
#include "runtime/segment/segment_map.h"

namespace pyhost {
namespace {

Handle CallQueueOf(const PoolState& state) { return Handle::FromValue(state.call_queue); }
Handle ReplyQueueOf(const PoolState& state) { return Handle::FromValue(state.reply_queue); }

// A queue that only the pool keeps alive.
absl::StatusOr<Handle> CreatePoolQueue(Segment& segment, HostId me) {
  absl::StatusOr<Queue> queue = Queue::Create(segment, me);
  if (!queue.ok()) return queue.status();
  const Handle handle = queue->handle();
  segment.refs().Adopt(handle, me);
  absl::Cleanup release = [&] { segment.refs().Release(handle, me); };
  if (absl::Status status = segment.objects().AddTransit(handle); !status.ok()) return status;
  return handle;
}

// A queue that another pool has too.
absl::StatusOr<Handle> SharePoolQueue(Segment& segment, Handle queue) {
  if (absl::Status status = segment.objects().AddTransit(queue); !status.ok()) return status;
  return queue;
}

void DestroyPool(Segment& segment, HostId me, Handle handle) {
  absl::StatusOr<PoolState*> state = segment.objects().StateAs<PoolState>(handle);
  if (!state.ok()) return;
  // Who dies here is followed by another, who must not end a transit twice: the queue may be another pool's too.  A count
  // left too high is put right by the recount.
  for (uint64_t* queue : {&(*state)->call_queue, &(*state)->reply_queue}) {
    if (const Handle handle = Handle::FromValue(std::exchange(*queue, 0))) segment.objects().EndTransit(handle, me);
  }
}

// The call that `hand` held when its worker died; none when it held none.
CallId TakeLostCall(const Queue& calls, Hand& hand) {
  const uint64_t popped = calls.popped();  // Before the hand: invariant (3).
  const uint64_t claim = hand.claim.load(std::memory_order_acquire);
  const CallId call = CallId::FromValue(hand.call.load(std::memory_order_acquire));
  return claim != 0 && claim <= popped ? call : CallId();
}

absl::Status PushLost(Segment& segment, HostId me, Handle replies, CallId call, HostId dead) {
  absl::StatusOr<Queue> queue = Queue::Open(segment, me, replies);
  if (!queue.ok()) return queue.status();
  const absl::StatusOr<HostInfo> info = segment.hosts().Info(dead);
  const ReplyHeader header{.kind = ReplyKind::kLost, .reserved = {}, .run_nanos = 0};
  const LostWorker lost{.host = dead.value(),
                        .exit = segment.hosts().Exit(dead).Encode(),
                        .pid = info.ok() ? info->pid : 0,
                        .reserved = 0};
  const std::array parts = {AsBytes(header), AsBytes(lost)};
  return queue->Push({.parts = parts, .handles = {}, .tag = call.value()}, Wait::Try());
}

void CloseCalls(Segment& segment, HostId me, const PoolState& state) {
  absl::StatusOr<Queue> queue = Queue::Open(segment, me, CallQueueOf(state));
  if (queue.ok()) queue->Close();
}

void RecoverWorker(Segment& segment, HostId me, const PoolView& pool, HostId dead) {
  if (dead.slot() >= pool.hands.size()) return;
  Hand& hand = pool.hands[dead.slot()];
  if (hand.worker.load(std::memory_order_acquire) != dead.value()) return;
  absl::StatusOr<Queue> calls = Queue::Open(segment, me, CallQueueOf(*pool.state));
  if (!calls.ok()) return;
  const CallId lost = TakeLostCall(*calls, hand);
  if (lost && !PushLost(segment, me, ReplyQueueOf(*pool.state), lost, dead).ok()) {
    return;  // No memory for it: the hand stays as it is, and the caller finds the call there (CollectLost).
  }
  PYHOST_CRASH_POINT("pool-recover-after-lost");
  hand.claim.store(0, std::memory_order_release);
  hand.worker.store(0, std::memory_order_release);
}

void RecoverPool(Segment& segment, HostId me, Handle handle, HostId dead) {
  absl::StatusOr<PoolView> pool = OpenPool(segment, handle);
  if (!pool.ok()) return;
  if (pool->state->owner == dead.value()) {
    pool->state->flags.fetch_or(kPoolOwnerGone | kPoolTerminated, std::memory_order_acq_rel);
    CloseCalls(segment, me, *pool->state);
    return;
  }
  RecoverWorker(segment, me, *pool, dead);
}

void VisitPool(Segment& segment, HostId, Handle handle, const std::function<void(Handle)>& visit) {
  absl::StatusOr<PoolState*> state = segment.objects().StateAs<PoolState>(handle);
  if (!state.ok()) return;
  for (Handle queue : {CallQueueOf(**state), ReplyQueueOf(**state)}) {
    if (queue) visit(queue);
  }
}

// They are worth this part of a session's memory and no more, so that little memory is left to what cannot do without.
uint32_t TicketsThatFit(const Segment& segment) {
  constexpr uint64_t kPart = 32;
  return static_cast<uint32_t>(std::min<uint64_t>(segment.map().block_bytes() / kPart / sizeof(Tickets::Word), UINT32_MAX));
}

}  // namespace

absl::StatusOr<Handle> CreatePool(Segment& segment, HostId me, uint32_t most_tickets, Handle replies) {
  const uint32_t hand_count = segment.hosts().capacity();
  const uint32_t ticket_count = std::min(most_tickets, TicketsThatFit(segment));
  const size_t size = hand_count * sizeof(Hand) + ticket_count * sizeof(Tickets::Word);
  absl::StatusOr<Handle> pool = segment.objects().Create(ObjectKind::kPool, size, me);
  if (!pool.ok()) return pool.status();
  segment.refs().Adopt(*pool, me);
  absl::Cleanup release = [&] { segment.refs().Release(*pool, me); };  // Destroys the queues made so far.

  absl::StatusOr<PoolState*> state = segment.objects().StateAs<PoolState>(*pool);
  absl::StatusOr<std::span<std::byte>> block = segment.objects().Block(*pool);
  if (!state.ok()) return state.status();
  if (!block.ok()) return block.status();
  for (uint32_t i = 0; i < hand_count; ++i) new (block->data() + i * sizeof(Hand)) Hand{};
  (*state)->owner = me.value();
  std::byte* tickets = block->data() + hand_count * sizeof(Hand);
  for (uint32_t i = 0; i < ticket_count; ++i) new (tickets + i * sizeof(Tickets::Word)) Tickets::Word(0);
  (*state)->hand_count = hand_count;
  (*state)->ticket_count = ticket_count;
  absl::StatusOr<Handle> calls = CreatePoolQueue(segment, me);
  if (!calls.ok()) return calls.status();
  (*state)->call_queue = calls->value();
  absl::StatusOr<Handle> answers = replies ? SharePoolQueue(segment, replies) : CreatePoolQueue(segment, me);
  if (!answers.ok()) return answers.status();
  (*state)->reply_queue = answers->value();
  std::move(release).Cancel();
  return *pool;
}

absl::StatusOr<PoolView> OpenPool(Segment& segment, Handle pool) {
  if (pool.kind() != ObjectKind::kPool) {
    return absl::InvalidArgumentError(absl::StrCat(pool.ToString(), " is no pool"));
  }
  absl::StatusOr<PoolState*> state = segment.objects().StateAs<PoolState>(pool);
  if (!state.ok()) return state.status();
  absl::StatusOr<std::span<std::byte>> block = segment.objects().Block(pool);
  if (!block.ok()) return block.status();
  const uint32_t hand_count = (*state)->hand_count;
  const uint32_t ticket_count = (*state)->ticket_count;
  const uint64_t size = uint64_t{hand_count} * sizeof(Hand) + uint64_t{ticket_count} * sizeof(Tickets::Word);
  if (block->size() < size ||
      reinterpret_cast<uintptr_t>(block->data()) % alignof(Hand) != 0) {
    return absl::DataLossError(absl::StrCat(pool.ToString(), ": ", hand_count, " hands and ", ticket_count,
                                            " tickets in a block of ", block->size(), " bytes"));
  }
  auto* tickets = reinterpret_cast<Tickets::Word*>(block->data() + hand_count * sizeof(Hand));
  return PoolView{*state, {reinterpret_cast<Hand*>(block->data()), hand_count}, Tickets({tickets, ticket_count})};
}

void RegisterPoolKind() {
  RegisterKind(ObjectKind::kPool, {.destroy = DestroyPool, .recover = RecoverPool, .visit_transits = VisitPool});
}

}  // namespace pyhost
