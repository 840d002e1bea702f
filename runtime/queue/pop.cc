// The consumers' half of Queue (queue.h).

#include <algorithm>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_format.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/status_util.h"
#include "runtime/os/cpu.h"
#include "runtime/os/futex.h"
#include "runtime/queue/ends.h"
#include "runtime/queue/queue.h"
#include "runtime/segment/object_table.h"
#include "runtime/segment/segment.h"

namespace pyhost {

// One call of a Pop function.
struct Queue::PopRequest {
  Message* out;                 // [0, max)
  size_t max;
  Claimer* claimer = nullptr;
  size_t taken = 0;
  absl::Status status = absl::OkStatus();  // why it ended without a message
};

namespace {

// A consumer that only drains is quicker than its producer.  If it took every message in the moment when it comes, the
// cache lines that tell of messages would change sides with each of them, which costs both several times a push.  So
// such a consumer trails: finding the queue empty, it stays away for kDistanceNanos, and finds a dozen messages then.
// Whether it pays is found out by trying, seldom, as it costs a consumer that answers each message that time.
constexpr int64_t kDistanceNanos = 1'000;
constexpr uint16_t kLeastProbeGap = 16, kMostProbeGap = 2048;

bool ShouldTrail(QueueState& state) {
  if (state.trailing.load(std::memory_order_relaxed) != 0) return true;
  const auto waits = static_cast<uint16_t>(state.waits.load(std::memory_order_relaxed) + 1);
  const bool probe = waits >= std::max(kLeastProbeGap, state.probe_gap.load(std::memory_order_relaxed));
  state.waits.store(probe ? 0 : waits, std::memory_order_relaxed);
  return probe;
}

void LearnWhetherToTrail(QueueState& state, bool found_several) {
  const uint16_t gap = state.probe_gap.load(std::memory_order_relaxed);
  const auto longer = static_cast<uint16_t>(std::clamp(gap * 2, int{kLeastProbeGap}, int{kMostProbeGap}));
  state.trailing.store(found_several, std::memory_order_relaxed);
  state.probe_gap.store(found_several ? 0 : longer, std::memory_order_relaxed);
}

// The handles that a popped frame carried; their transits end after the commit.
class PoppedHandles {
 public:
  void Add(const FrameView& frame) {
    if (frame.kind == FrameKind::kObject) handles_.push_back(frame.payload_object);
    for (size_t i = 0; i < frame.handle_count; ++i) handles_.push_back(frame.handle(i));
  }
  void EndTransits(Segment& segment, HostId me) {
    for (Handle handle : handles_) {
      PYHOST_CRASH_POINT("queue-pop-before-transit-end");
      segment.objects().EndTransit(handle, me);
    }
  }

 private:
  absl::InlinedVector<Handle, 4> handles_;
};

}  // namespace

bool Queue::Readable() const { return ObserveTail(*state_).messages() != ObserveHead(*state_).messages(); }

// Closed, and nothing will ever come any more.  `closed` is set after the last push, so it is read first.
bool Queue::Drained() const { return closed() && !Readable(); }

absl::StatusOr<Message> Queue::Pop(Wait wait) {
  absl::StatusOr<Message> message{Message()};
  PopRequest request{.out = &*message, .max = 1};
  if (absl::Status popped = PopInto(request, wait); !popped.ok()) message = std::move(popped);
  return message;
}

absl::StatusOr<Message> Queue::PopClaiming(Claimer& claimer, Wait wait) {
  absl::StatusOr<Message> message{Message()};
  PopRequest request{.out = &*message, .max = 1, .claimer = &claimer};
  if (absl::Status popped = PopInto(request, wait); !popped.ok()) message = std::move(popped);
  return message;
}

absl::StatusOr<Message> Queue::PopClaimingAwake(Claimer& claimer, Wait wait) {
  absl::StatusOr<Message> message{Message()};
  PopRequest request{.out = &*message, .max = 1, .claimer = &claimer};
  const bool done = TakeSome(request, QueueCount{0}) || PopSoon(request) ||
                    state_->readable.AwaitSpinning(
                        me_, wait, [&] { return TryPop(request); }, [&] { return Readable(); });
  if (!done) return absl::DeadlineExceededError(absl::StrFormat("pop from %s, which is empty", handle_.ToString()));
  if (!request.status.ok()) message = std::move(request.status);
  return message;
}

absl::StatusOr<Message> Queue::PopClaimingAsleep(Claimer& claimer, Wait wait) {
  absl::StatusOr<Message> message{Message()};
  PopRequest request{.out = &*message, .max = 1, .claimer = &claimer};
  absl::Status waited = state_->readable.AwaitAsleep(wait, [&] { return TryPop(request); });
  if (!waited.ok()) return Annotate(waited, absl::StrFormat("pop from %s, which is empty", handle_.ToString()));
  if (!request.status.ok()) message = std::move(request.status);
  return message;
}

absl::StatusOr<std::vector<Message>> Queue::PopBatch(size_t max, Wait wait) {
  constexpr size_t kAtOnce = 64;
  if (max == 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("pop from %s: a batch of 0 messages", handle_.ToString()));
  }
  std::vector<Message> messages;
  while (messages.size() < max && (messages.empty() || !empty())) {
    const size_t before = messages.size();
    // No more than there are: messages that come to nothing cost something, too.
    const size_t wanted = std::clamp<size_t>(depth(), 1, std::min(kAtOnce, max - before));
    messages.resize(before + wanted);
    PopRequest request{.out = messages.data() + before, .max = wanted};
    absl::Status popped = PopInto(request, before == 0 ? wait : Wait::Try());
    messages.resize(before + request.taken);
    if (!popped.ok() && messages.empty()) return popped;
    if (request.taken < wanted) break;
  }
  return messages;
}

absl::Status Queue::PopInto(PopRequest& request, Wait wait) {
  // Not by way of Readable(): with a backlog, the consumers' own copy of the tail says that there is more.
  if (TakeSome(request, QueueCount{0})) return request.status;
  if (!wait.deadline.is_immediate() && PopSoon(request)) return request.status;
  absl::Status waited = state_->readable.Await(
      me_, wait, [&] { return TryPop(request); },
      [&] {
        CloseIfPartnerIsGone();
        return absl::OkStatus();
      },
      [&] { return Readable(); });
  if (waited.ok()) return request.status;
  return Annotate(waited, absl::StrFormat("pop from %s, which is empty", handle_.ToString()));
}

absl::Status Queue::AwaitTaken(const std::function<bool()>& take, Wait wait) {
  return state_->readable.Await(me_, wait, take);
}

// Looks for about a microsecond before the wait proper begins: with a producer at work the next message is
// nearly there, and registering as a waiter would cost the producer its cache line.
bool Queue::PopSoon(PopRequest& request) {
  constexpr int kQuickLooks = 50, kLooks = 65;
  if (futex::MayShareProcessor()) return false;
  if (ShouldTrail(*state_) && SpinningPays() && PopTrailing(request)) return true;
  for (int look = 0; look < kLooks; ++look) {
    if (TryPop(request)) return true;
    if (look < kQuickLooks) continue;
    // Not asked before: an answer that is nearly there comes sooner than this one.
    if (look == kQuickLooks && !SpinningPays()) return false;
    SpinPause();
  }
  return false;
}

// Stays away for a moment, then looks: with a producer at work there are several messages by then.
bool Queue::PopTrailing(PopRequest& request) {
  const int64_t end = Deadline::MonotonicNanos() + kDistanceNanos;
  do {
    SpinPause();
  } while (Deadline::MonotonicNanos() < end);
  const bool done = TryPop(request);
  LearnWhetherToTrail(*state_, done && (request.taken > 1 || Readable()));
  return done;
}

bool Queue::TryPop(PopRequest& request) {
  const QueueCount tail = ObserveTail(*state_);
  if (tail.messages() != ObserveHead(*state_).messages()) return TakeSome(request, tail);
  if (!Drained()) return false;
  request.status = absl::OutOfRangeError(
      absl::StrFormat("pop from %s: the queue is closed and empty", handle_.ToString()));
  return true;
}

bool Queue::TakeSome(PopRequest& request, QueueCount seen_tail) {
  TakeUnderLock(request, seen_tail);
  if (request.taken == 0) return !request.status.ok();
  if (state_->bounded.load(std::memory_order_relaxed) != 0) {
    state_->writable.Notify(static_cast<uint32_t>(request.taken));
  }
  return true;
}

// Takes what is there.
void Queue::TakeUnderLock(PopRequest& request, QueueCount seen_tail) {
  ConsumerLock lock(*segment_, me_, *state_);
  PYHOST_CRASH_POINT("queue-pop-locked");
  ConsumerEnd end(*segment_, me_, handle_, *state_, seen_tail);
  PoppedHandles handles;
  bool moved = false;
  while (request.taken < request.max && request.status.ok() && end.HasNext()) {
    const uint64_t position = end.position();
    absl::StatusOr<FrameView> frame = end.Next();
    if (!frame.ok()) {
      request.status = frame.status();
      break;
    }
    moved = true;
    handles.Add(*frame);
    Message& message = request.out[request.taken];
    absl::Status taken = message.Take(*segment_, me_, *frame);
    PYHOST_CRASH_POINT("queue-pop-taken");
    if (!taken.ok()) {
      // What the frame names is gone.  The message is lost, and said to be; the queue goes on.
      request.status = Annotate(taken, absl::StrFormat("pop from %s: message %u is lost",
                                                       handle_.ToString(), position));
      break;
    }
    if (request.claimer != nullptr) request.claimer->Claim(position, message.tag());
    ++request.taken;
  }
  if (!moved) return;
  if (request.taken != 0) request.status = absl::OkStatus();
  end.Commit();
  handles.EndTransits(*segment_, me_);
  if (state_->spare.load(std::memory_order_relaxed) != 0 && !end.HasNext()) {
    FreeSpare(*segment_, me_, *state_);
  }
}

}  // namespace pyhost
