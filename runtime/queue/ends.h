// The two ends of a queue: how a producer adds frames to the chain of chunks and how a consumer takes them out.
// Each lives on the stack of a thread that holds the lock of its end, works on a private copy of the
// position, and changes the queue by Commit() alone.  Dropped without Commit() it has done nothing.
//
// The memory orderings of the queue, all of them here:
//   PublishTail / ObserveTail   release / acquire: frames, links of chunks and counted transits before the count
//   PublishHead / ObserveHead   release / acquire: the consumer's reads of a frame before its bytes are given back
//   freed_chunk, freed_at       release / acquire, for the same reason; freed_at is written first on a change of
//                               chunk, so that a producer that sees its own chunk never sees another's position

#ifndef PYHOST_RUNTIME_QUEUE_ENDS_H_
#define PYHOST_RUNTIME_QUEUE_ENDS_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/queue/chunk.h"
#include "runtime/queue/frame.h"
#include "runtime/queue/queue_layout.h"
#include "runtime/segment/segment.h"

namespace pyhost {

inline QueueCount ObserveTail(const QueueState& state) {
  return {state.tail.load(std::memory_order_acquire)};
}
inline QueueCount ObserveHead(const QueueState& state) {
  return {state.head.load(std::memory_order_acquire)};
}
inline void PublishTail(QueueState& state, QueueCount count) {
  state.tail.store(count.word, std::memory_order_release);
}
inline void PublishHead(QueueState& state, QueueCount count) {
  state.head.store(count.word, std::memory_order_release);
}

// Hold the lock of an end; repair it first if its last owner died.
class ProducerLock {
 public:
  ProducerLock(Segment& segment, HostId me, QueueState& state);
  ~ProducerLock() { state_.push_lock.Unlock(me_); }
  ProducerLock(const ProducerLock&) = delete;
  ProducerLock& operator=(const ProducerLock&) = delete;

 private:
  QueueState& state_;
  HostId me_;
};

class ConsumerLock {
 public:
  ConsumerLock(Segment& segment, HostId me, QueueState& state);
  ~ConsumerLock() { state_.pop_lock.Unlock(me_); }
  ConsumerLock(const ConsumerLock&) = delete;
  ConsumerLock& operator=(const ConsumerLock&) = delete;

 private:
  QueueState& state_;
  HostId me_;
};

// What a dead owner may have left behind at its end; the lock is held.
void RepairProducerEnd(Segment& segment, QueueState& state);
void RepairConsumerEnd(QueueState& state);

// Parses the frame at `at` and moves `at` behind it, following links and skips.  Somewhere at or behind `at` there
// is a published frame.
absl::StatusOr<FrameView> ReadFrame(const Segment& segment, QueuePosition& at);

class ProducerEnd {
 public:
  ProducerEnd(Segment& segment, HostId me, Handle queue, QueueState& state);

  // How many more messages the bound allows; a lot for an unbounded queue.
  uint64_t Room();
  // Memory for a frame, directly behind the frames reserved before.
  absl::StatusOr<std::byte*> Reserve(size_t frame_bytes);
  // Publishes the `messages` frames reserved.
  void Commit(uint64_t messages);

 private:
  absl::Status Chain(size_t frame_bytes);
  void LookWhatIsFreed();

  Segment& segment_;
  const HostId me_;
  const Handle queue_;
  QueueState& state_;
  QueueCount tail_;
  QueuePosition at_;
  Chunk chunk_;
  uint64_t freed_;
};

class ConsumerEnd {
 public:
  // `seen_tail`: what the caller saw before, to spare another look at the producers' line.
  ConsumerEnd(Segment& segment, HostId me, Handle queue, QueueState& state, QueueCount seen_tail);

  bool HasNext();
  // The number of the message that Next() returns.
  uint64_t position() const { return head_.messages() + taken_; }
  // Parses the next frame and moves behind it.  HasNext() was true.
  absl::StatusOr<FrameView> Next();
  // Takes out what Next() returned.
  void Commit();

 private:
  void GiveBack(uint64_t first_chunk);

  Segment& segment_;
  const HostId me_;
  const Handle queue_;
  QueueState& state_;
  QueueCount head_;
  QueuePosition at_;
  uint64_t taken_ = 0;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_QUEUE_ENDS_H_
