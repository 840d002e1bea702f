#include "runtime/broker/call_server.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/deadline.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/segment/segment.h"

namespace pyhost {
namespace {

// One worker's figures have one writer: no read-modify-write needed.
void Add(std::atomic<uint64_t>& figure, uint64_t amount) {
  figure.store(figure.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

void Subtract(std::atomic<uint64_t>& figure, uint64_t amount) { Add(figure, ~amount + 1); }

// Writes the message about to be popped into the worker's hand (pool_state.h, invariants 1 and 2).
class HandClaimer final : public Queue::Claimer {
 public:
  HandClaimer(const PoolView& view, HostId me) : view_(view), me_(me) {}

  void Claim(uint64_t position, uint64_t tag) override {
    PoolState& pool = *view_.state;
    const uint64_t claim = position + 1;
    if (pool.last_claim.load(std::memory_order_relaxed) == claim) VoidPrevious(claim);
    pool.last_claimer.store(me_.slot(), std::memory_order_release);
    pool.last_claim.store(claim, std::memory_order_release);
    PYHOST_CRASH_POINT("pool-claim-before-hand");
    Hand& hand = view_.hands[me_.slot()];
    hand.call.store(tag, std::memory_order_release);
    hand.claim.store(claim, std::memory_order_release);
    PYHOST_CRASH_POINT("pool-claim-before-commit");
  }

 private:
  // Somebody claimed this very message and did not commit: it is not in that hand.
  void VoidPrevious(uint64_t claim) {
    const uint32_t slot = view_.state->last_claimer.load(std::memory_order_relaxed);
    if (slot >= view_.hands.size() || slot == me_.slot()) return;
    view_.hands[slot].claim.compare_exchange_strong(claim, 0, std::memory_order_acq_rel);
  }

  const PoolView& view_;
  const HostId me_;
};

absl::Status EndOfCalls(uint32_t flags) {
  if ((flags & kPoolOwnerGone) != 0) return absl::OutOfRangeError("the process that owns the pool is gone");
  return absl::OutOfRangeError("the pool was terminated");
}

}  // namespace

absl::StatusOr<std::unique_ptr<CallServer>> CallServer::Open(Segment& segment, HostId me, Handle pool) {
  absl::StatusOr<PoolView> view = OpenPool(segment, pool);
  if (!view.ok()) return view.status();
  if (me.slot() >= view->hands.size()) {
    return absl::DataLossError(absl::StrCat(me.ToString(), " has no hand in a pool of ", view->hands.size()));
  }
  std::vector<Queue> queues;
  for (uint64_t value : {view->state->call_queue, view->state->reply_queue}) {
    const Handle handle = Handle::FromValue(value);
    absl::Status held = segment.refs().Retain(handle, me);
    absl::StatusOr<Queue> queue = held.ok() ? Queue::Open(segment, me, handle) : absl::StatusOr<Queue>(held);
    if (!queue.ok()) {
      if (held.ok()) segment.refs().Release(handle, me);
      for (const Queue& opened : queues) segment.refs().Release(opened.handle(), me);
      return queue.status();
    }
    queues.push_back(*queue);
  }
  if (absl::Status held = segment.refs().Retain(pool, me); !held.ok()) {
    for (const Queue& opened : queues) segment.refs().Release(opened.handle(), me);
    return held;
  }
  Hand& hand = view->hands[me.slot()];
  hand.claim.store(0, std::memory_order_relaxed);
  for (auto* figure : {&hand.running, &hand.calls, &hand.started_nanos, &hand.busy_nanos, &hand.pickling_nanos,
                       &hand.waiting_nanos, &hand.bytes_in, &hand.bytes_out}) {
    figure->store(0, std::memory_order_relaxed);
  }
  hand.limit_millis.store(0, std::memory_order_relaxed);
  hand.worker.store(me.value(), std::memory_order_release);
  return std::unique_ptr<CallServer>(new CallServer(segment, me, pool, *view, queues[0], queues[1]));
}

CallServer::~CallServer() {
  segment_.refs().Release(calls_.handle(), me_);
  segment_.refs().Release(replies_.handle(), me_);
  segment_.refs().Release(pool_, me_);
}

absl::StatusOr<Message> CallServer::Next(Wait wait) {
  if (in_hand_) {
    return absl::FailedPreconditionError(absl::StrCat(in_hand_.ToString(), " is not answered yet"));
  }
  for (;;) {
    absl::StatusOr<Message> message = Take(wait);
    if (!message.ok() || view_.tickets.Take(in_hand_)) return message;
    EmptyHand();
  }
}

absl::StatusOr<Message> CallServer::Take(Wait wait) {
  const int64_t before = Deadline::MonotonicNanos();
  HandClaimer claimer(view_, me_);
  absl::StatusOr<Message> message = PopAttentively(claimer, wait);
  taken_nanos_ = Deadline::MonotonicNanos();
  began_nanos_ = returned_nanos_ = 0;
  Add(hand().waiting_nanos, static_cast<uint64_t>(taken_nanos_ - before));
  if (!message.ok()) return message.status();
  PYHOST_CRASH_POINT("pool-after-take");
  if (const uint32_t flags = view_.state->flags.load(std::memory_order_acquire); (flags & kPoolEnded) != 0) {
    EmptyHand();
    return EndOfCalls(flags);
  }
  in_hand_ = CallId::FromValue(message->tag());
  settled_ = false;
  if (view_.state->attention.Took(taken_nanos_)) took_nanos_ = taken_nanos_;
  hand().started_nanos.store(static_cast<uint64_t>(taken_nanos_), std::memory_order_relaxed);
  hand().running.store(RunningWord(in_hand_), std::memory_order_release);
  Add(hand().bytes_in, message->payload().size());
  return message;
}

absl::StatusOr<Message> CallServer::PopAttentively(Queue::Claimer& claimer, Wait wait) {
  if (wait.deadline.is_immediate()) return calls_.PopClaiming(claimer, wait);
  absl::StatusOr<Message> message = calls_.PopClaimingAwake(claimer, wait);
  if (absl::IsDeadlineExceeded(message.status())) message = PopDozing(claimer, wait);
  return message;
}

absl::StatusOr<Message> CallServer::PopDozing(Queue::Claimer& claimer, Wait wait) {
  Attention& attention = view_.state->attention;
  attention.GivesUp(took_nanos_);
  for (int64_t nap = Attention::kFirstNap;; nap = std::min(2 * nap, Attention::kLongestNap)) {
    const uint64_t popped = calls_.popped();
    const int64_t now = Deadline::MonotonicNanos();
    if (!attention.BeginNap(now, now + nap)) break;
    absl::StatusOr<Message> message =
        calls_.PopClaimingAsleep(claimer, {wait.deadline.AtMost(absl::Nanoseconds(nap)), wait.interruptible});
    PYHOST_CRASH_POINT("pool-nap-before-end");
    attention.EndNap(now + nap);
    if (!absl::IsDeadlineExceeded(message.status()) || wait.deadline.Expired()) {
      // Somebody may have counted on this nap just now.
      if (message.ok() && calls_.depth() != 0) calls_.NotifyReaders(1);
      return message;
    }
    if (calls_.popped() == popped) break;  // Nobody else is at work.
  }
  return calls_.PopClaiming(claimer, wait);
}

void CallServer::Begin(uint32_t limit_millis) {
  began_nanos_ = Deadline::MonotonicNanos();
  hand().started_nanos.store(static_cast<uint64_t>(began_nanos_), std::memory_order_relaxed);
  if (limit_millis != 0) hand().limit_millis.store(limit_millis, std::memory_order_release);
}

void CallServer::BeginItem() {
  hand().started_nanos.store(static_cast<uint64_t>(Deadline::MonotonicNanos()), std::memory_order_relaxed);
}

void CallServer::End() {
  returned_nanos_ = Deadline::MonotonicNanos();
  hand().limit_millis.store(0, std::memory_order_release);
}

bool CallServer::Settle() {
  uint64_t expected = RunningWord(in_hand_);
  settled_ = settled_ || hand().running.compare_exchange_strong(expected, 0, std::memory_order_acq_rel);
  return settled_;
}

absl::Status CallServer::Reply(ReplyKind kind, std::span<const std::span<const std::byte>> parts,
                               std::span<const Handle> handles) {
  if (!in_hand_) return absl::FailedPreconditionError("there is no call to answer");
  if (!Settle()) return absl::AbortedError(absl::StrCat("the caller wants no answer to ", in_hand_.ToString()));
  const int64_t now = Deadline::MonotonicNanos();
  const int64_t returned = returned_nanos_ != 0 ? returned_nanos_ : now;
  const auto run_nanos = static_cast<uint64_t>(returned - (began_nanos_ != 0 ? began_nanos_ : taken_nanos_));
  const uint64_t pickling_nanos = static_cast<uint64_t>(now - taken_nanos_) - run_nanos;
  const ReplyHeader header{.kind = kind, .reserved = {}, .run_nanos = run_nanos};
  std::vector<std::span<const std::byte>> all;
  all.reserve(parts.size() + 1);
  all.push_back(AsBytes(header));
  all.insert(all.end(), parts.begin(), parts.end());
  // Counted before the caller can see the reply, so that its figures include it.
  uint64_t bytes = 0;
  for (const auto& part : parts) bytes += part.size();
  Add(hand().calls, 1);
  Add(hand().busy_nanos, run_nanos);
  Add(hand().pickling_nanos, pickling_nanos);
  Add(hand().bytes_out, bytes);
  PYHOST_CRASH_POINT("pool-before-reply");
  absl::Status status =
      replies_.Push({.parts = all, .handles = handles, .tag = in_hand_.value()}, Wait::Forever());
  if (!status.ok()) {
    Subtract(hand().calls, 1);
    Subtract(hand().busy_nanos, run_nanos);
    Subtract(hand().pickling_nanos, pickling_nanos);
    Subtract(hand().bytes_out, bytes);
    return status;
  }
  PYHOST_CRASH_POINT("pool-after-reply");
  EmptyHand();
  return absl::OkStatus();
}

absl::Status CallServer::ReportLost(ExitStatus status) {
  const absl::StatusOr<HostInfo> info = segment_.hosts().Info(me_);
  const LostWorker lost{.host = me_.value(),
                        .exit = status.Encode(),
                        .pid = info.ok() ? info->pid : 0,
                        .reserved = 0};
  const std::span<const std::byte> part = AsBytes(lost);
  return Reply(ReplyKind::kLost, {&part, 1}, {});
}

absl::Status CallServer::Notice(ReplyKind kind, std::span<const std::span<const std::byte>> parts,
                                std::span<const Handle> handles) {
  const ReplyHeader header{.kind = kind, .reserved = {}, .run_nanos = 0};
  std::vector<std::span<const std::byte>> all = {AsBytes(header)};
  all.insert(all.end(), parts.begin(), parts.end());
  return replies_.Push({.parts = all, .handles = handles, .tag = 0}, Wait::Try());
}

absl::Status CallServer::Report(std::span<const std::byte> report, bool* first) {
  if (absl::Status status = Notice(ReplyKind::kReport, {&report, 1}, {}); !status.ok()) return status;
  const uint32_t before = view_.state->flags.fetch_or(kPoolReported, std::memory_order_acq_rel);
  if (first != nullptr) *first = (before & kPoolReported) == 0;
  return absl::OkStatus();
}

void CallServer::EmptyHand() {
  hand().started_nanos.store(0, std::memory_order_relaxed);
  hand().running.store(0, std::memory_order_release);
  hand().claim.store(0, std::memory_order_release);
  in_hand_ = CallId();
}

}  // namespace pyhost
