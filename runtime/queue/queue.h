// Queue: many-producer, many-consumer FIFO of messages in the segment (see queue/README part in
// runtime/README.md for the frame and the memory picture).
//
// Two OwnerLocks: one for producers, one for consumers; with one of each they never meet.  A message is
// published by one store of `tail`, taken by one store of `head`; a process that dies before its store has
// done nothing.
//
// Ordering promise: what a thread wrote before Push() is visible to the thread whose Pop() returned that
// message.  FIFO per producer; messages of one PushBatch stay together in order (not necessarily adjacent
// when the queue is bounded).
//
// A Queue is a cheap view of an object; it does not count references (segment/handle_refs.h does, from Create's
// hold on: the caller of Create gives it to segment.refs().Adopt).
// Thread- and process-safe.

#ifndef PYHOST_RUNTIME_QUEUE_QUEUE_H_
#define PYHOST_RUNTIME_QUEUE_QUEUE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/base/wait.h"

namespace pyhost {

class ConsumerEnd;
class ProducerEnd;
class Segment;
struct FrameView;
struct QueueCount;
struct QueueState;

// What is pushed.  `parts` are gathered into one payload.  `handles` are the objects the message carries
// (out-of-band buffers, queues, locks); the pusher holds each of them during Push.
struct MessageView {
  std::span<const std::span<const std::byte>> parts;
  std::span<const Handle> handles;
  uint64_t tag = 0;  // free for the user of the queue (call id, message kind)
};

// What is popped: owns its payload, and one count on each of `handles` in segment.refs() (HandleRefs: never
// ObjectTable::Hold/Drop directly, the process may hold the same object otherwise).
// Move-only.  The destructor gives back what was not taken.
class Message {
 public:
  Message() {}
  Message(Message&& other) noexcept;
  Message& operator=(Message&& other) noexcept;
  ~Message();

  // Valid while the Message lives and is not moved from.  Inline payloads were copied out, large ones are
  // read in place.
  std::span<const std::byte> payload() const { return payload_; }
  std::span<const Handle> handles() const { return handles_; }
  uint64_t tag() const { return tag_; }
  HostId sender() const { return sender_; }

  // The counts in segment.refs() pass to the caller; handles() is empty afterwards.
  std::vector<Handle> TakeHandles() { return std::exchange(handles_, {}); }
  // The object of a large payload, none when it was inline.  For who wants the payload to outlive the
  // Message: segment.refs().Retain(payload_object(), me).
  Handle payload_object() const { return payload_object_; }

 private:
  friend class Queue;
  // Payloads up to this size need no allocation.
  static constexpr size_t kSmallBytes = 128;

  // Copies what the frame says and retains its handles for `me`; on error *this is empty.
  absl::Status Take(Segment& segment, HostId me, const FrameView& frame);
  absl::Status RetainHandles(const FrameView& frame);
  absl::Status ReadInPlace(const FrameView& frame);
  void CopyInline(std::span<const std::byte> payload);
  void MoveFrom(Message& other);
  void Reset();

  Segment* segment_ = nullptr;
  HostId me_;
  HostId sender_;
  uint64_t tag_ = 0;
  std::span<const std::byte> payload_;
  Handle payload_object_;
  std::vector<Handle> handles_;
  std::unique_ptr<std::byte[]> large_;
  std::byte small_[kSmallBytes];  // only what payload_ covers is ever read
};

class Queue {
 public:
  static constexpr uint64_t kMaxMessageBytes = uint64_t{1} << 40;
  static constexpr size_t kMaxHandles = 4096;

  // `max_items` 0 = unbounded.  The new queue is held by `me`.
  static absl::StatusOr<Queue> Create(Segment& segment, HostId me, uint64_t max_items = 0);
  // A view of an existing queue that `me` holds.
  static absl::StatusOr<Queue> Open(Segment& segment, HostId me, Handle handle);

  Handle handle() const { return handle_; }

  // Blocks while a bounded queue is full.  Errors: DeadlineExceeded (full until the deadline),
  // FailedPrecondition (closed), ResourceExhausted (no memory), InvalidArgument (too large, too many handles),
  // the interruptible's own error.  On error nothing was pushed.
  absl::Status Push(const MessageView& message, Wait wait);
  // Returns how many were pushed before an error or the deadline; `*status` says why it stopped.
  size_t PushBatch(std::span<const MessageView> messages, Wait wait, absl::Status* status);

  // For who pushes much and wakes once: pushes to an unbounded queue and wakes nobody.  A call of NotifyReaders follows.
  absl::Status PushQuietly(const MessageView& message);
  // Wakes consumers for so many messages; with the greatest number, all of them, to look for themselves.
  void NotifyReaders(uint32_t messages);
  // Wakes a consumer for one message, unless that took a system call and spare() says that it is needless.
  void NotifyReaderUnless(absl::FunctionRef<bool()> spare);

  // Blocks while the queue is empty.  DeadlineExceeded; OutOfRange when closed and drained.
  absl::StatusOr<Message> Pop(Wait wait);
  // At least one, at most `max`; waits only for the first.
  absl::StatusOr<std::vector<Message>> PopBatch(size_t max, Wait wait);
  // Like Pop, and calls `claim(message)` under the consumer lock just before the commit point: the place to
  // record in shared memory who has the message now.  `position` names this message in this queue for ever;
  // a claim whose position is still >= head() after its claimer died did not happen.
  class Claimer {
   public:
    virtual ~Claimer() = default;
    virtual void Claim(uint64_t position, uint64_t tag) = 0;
  };
  absl::StatusOr<Message> PopClaiming(Claimer& claimer, Wait wait);
  // The same for who would rather not sleep now: DeadlineExceeded once spinning is not worth it any more.
  absl::StatusOr<Message> PopClaimingAwake(Claimer& claimer, Wait wait);
  // The same for who only sleeps, for a short time.
  absl::StatusOr<Message> PopClaimingAsleep(Claimer& claimer, Wait wait);
  uint64_t pushed() const;  // messages since the beginning
  uint64_t popped() const;  // messages taken so far: the position of the next one

  // No push succeeds any more; what is inside can still be popped.  Wakes everybody.  Idempotent.
  void Close();
  bool closed() const;
  uint64_t depth() const;  // messages inside, a snapshot
  bool empty() const { return depth() == 0; }
  uint64_t max_items() const;

  // The queue closes when `host` ends, in whatever way: nobody waits for a partner who is gone.  For two hosts at most
  // (FailedPrecondition for a third); each is said before the other can use the queue.
  absl::Status EndWith(HostId host);
  // The other one of the two: none if there is none yet.
  HostId Partner(HostId one) const;

  // Waits until a Pop would find something (or the queue is closed), taking nothing.
  absl::Status WaitReadable(Wait wait);
  // The same, and ends with OkStatus too once `stopped` is true: who sets it calls WakeConsumers() then, which has
  // everybody look again who waits for a message.
  absl::Status WaitReadable(Wait wait, const std::atomic<bool>& stopped);
  void WakeConsumers();
  // For consumers of several queues, who all wait at this one: waits until take() has taken something, from here (without
  // waiting) or elsewhere.  Whoever pushes elsewhere calls NotifyReaders here.
  absl::Status AwaitTaken(const std::function<bool()>& take, Wait wait);

 private:
  Queue(Segment* segment, HostId me, Handle handle, QueueState* state)
      : segment_(segment), me_(me), handle_(handle), state_(state) {}

  // Push: prepares (large payloads are copied before any lock is taken), then publishes.
  struct Prepared;
  absl::Status Prepare(const MessageView& message, Prepared* prepared);
  absl::Status CopyToObject(Prepared* prepared);
  size_t PushPrepared(std::span<const Prepared> prepared, Wait wait, absl::Status* status);
  bool Writable() const;
  size_t PushSome(std::span<const Prepared> prepared, absl::Status* status);
  absl::Status Write(const Prepared& prepared, ProducerEnd& end);
  // Pop.  True: done, with messages or an error; false: nothing there.
  struct PopRequest;
  bool Readable() const;
  bool Drained() const;
  absl::Status PopInto(PopRequest& request, Wait wait);
  bool PopSoon(PopRequest& request);
  bool PopTrailing(PopRequest& request);
  bool TryPop(PopRequest& request);
  void CloseIfPartnerIsGone();
  bool TakeSome(PopRequest& request, QueueCount seen_tail);
  void TakeUnderLock(PopRequest& request, QueueCount seen_tail);

  Segment* segment_;
  HostId me_;
  Handle handle_;
  QueueState* state_;
};

// Registers the queue's destroy/recover/visit functions with the object table.  Called by Session start-up.
void RegisterQueueKind();

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_QUEUE_QUEUE_H_
