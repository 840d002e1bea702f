// What the tests of queues share: a segment with one host, and verbs.

#ifndef PYHOST_RUNTIME_QUEUE_QUEUE_TEST_UTIL_H_
#define PYHOST_RUNTIME_QUEUE_QUEUE_TEST_UTIL_H_

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "runtime/queue/queue.h"
#include "runtime/queue/queue_layout.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/testing/temp_segment.h"

#define EXPECT_OK(expr) EXPECT_EQ((expr), ::absl::OkStatus())
#define ASSERT_OK(expr) ASSERT_EQ((expr), ::absl::OkStatus())

namespace pyhost {

inline std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}
inline std::string_view Text(const Message& message) {
  return {reinterpret_cast<const char*>(message.payload().data()), message.payload().size()};
}
// Text of a given size that differs from place to place.
inline std::string Pattern(size_t size, uint64_t seed = 1) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>('a' + (i * 7 + i / 251 + seed) % 26);
  return text;
}

inline absl::Status Push(Queue& queue, std::string_view text, Wait wait = Wait::Try()) {
  const std::array parts = {Bytes(text)};
  return queue.Push({.parts = parts, .handles = {}}, wait);
}
inline std::string PopText(Queue& queue, Wait wait = Wait::Try()) {
  absl::StatusOr<Message> message = queue.Pop(wait);
  if (!message.ok()) return "error: " + message.status().ToString();
  return std::string(Text(*message));
}
inline size_t PushAll(Queue& queue, const std::vector<std::string>& texts, Wait wait,
                      absl::Status* status = nullptr) {
  std::vector<std::span<const std::byte>> parts;
  for (const std::string& text : texts) parts.push_back(Bytes(text));
  std::vector<MessageView> messages;
  for (const auto& part : parts) messages.push_back({.parts = {&part, 1}, .handles = {}});
  absl::Status ignored;
  return queue.PushBatch(messages, wait, status == nullptr ? &ignored : status);
}

// SIGUSR1 interrupts system calls and does nothing else.
class IgnoringSignals {
 public:
  IgnoringSignals() {
    struct sigaction action = {};
    action.sa_handler = [](int) {};
    sigaction(SIGUSR1, &action, &before_);
  }
  ~IgnoringSignals() { sigaction(SIGUSR1, &before_, nullptr); }

 private:
  struct sigaction before_;
};

class CountingInterruptible : public Interruptible {
 public:
  explicit CountingInterruptible(absl::Status answer = absl::OkStatus()) : answer_(answer) {}
  absl::Status OnSignal() override {
    ++signals;
    seen.fetch_add(1);
    return answer_;
  }
  void BeginBlocking() override { ++begun; }
  void EndBlocking() override { ++ended; }

  int signals = 0, begun = 0, ended = 0;
  static inline std::atomic<int> seen{0};

 private:
  absl::Status answer_;
};

inline void InterruptUntilSeen(std::thread& thread) {
  const int before = CountingInterruptible::seen.load();
  while (CountingInterruptible::seen.load() == before) {
    pthread_kill(thread.native_handle(), SIGUSR1);
    absl::SleepFor(absl::Milliseconds(1));
  }
}

class QueueFixture : public ::testing::Test {
 protected:
  QueueFixture() { RegisterQueueKind(); }

  Segment& segment() { return *temp_; }
  HostId me() const { return temp_.me(); }

  Queue NewQueue(uint64_t max_items = 0) {
    Queue queue = *Queue::Create(segment(), me(), max_items);
    segment().refs().Adopt(queue.handle(), me());
    return queue;
  }
  Handle NewMemory(uint64_t size = 64) {
    const Handle handle = *segment().objects().Create(ObjectKind::kMemory, size, me());
    segment().refs().Adopt(handle, me());
    return handle;
  }
  uint32_t Objects() { return segment().Usage().objects; }
  QueueState* StateOf(const Queue& queue) {
    return *segment().objects().StateAs<QueueState>(queue.handle());
  }
  uint32_t Sleepers(const Queue& queue) {
    return StateOf(queue)->readable.sleepers() + StateOf(queue)->writable.sleepers();
  }

  testing::TempSegment temp_;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_QUEUE_QUEUE_TEST_UTIL_H_
