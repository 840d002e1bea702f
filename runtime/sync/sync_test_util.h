// What the tests of locks share: a segment with one host, and hosts that die at a crash point.

#ifndef PYHOST_RUNTIME_SYNC_SYNC_TEST_UTIL_H_
#define PYHOST_RUNTIME_SYNC_SYNC_TEST_UTIL_H_

#include <signal.h>

#include <string_view>
#include <thread>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/sync/barrier.h"
#include "runtime/sync/condition.h"
#include "runtime/sync/event.h"
#include "runtime/sync/mutex.h"
#include "runtime/sync/semaphore.h"
#include "runtime/sync/sync_layout.h"
#include "runtime/testing/temp_segment.h"

#define EXPECT_OK(expr) EXPECT_EQ((expr), ::absl::OkStatus())
#define ASSERT_OK(expr) ASSERT_EQ((expr), ::absl::OkStatus())

namespace pyhost {

inline Wait For(absl::Duration timeout) { return {Deadline::After(timeout), nullptr}; }

class SyncFixture : public ::testing::Test {
 protected:
  SyncFixture() {
    RegisterMutexKind();
    RegisterSemaphoreKind();
    RegisterConditionKind();
    RegisterEventKind();
    RegisterBarrierKind();
  }
  Segment& segment() { return *temp_; }
  HostId me() const { return temp_.me(); }

  Mutex NewMutex(Mutex::Type type = Mutex::Type::kPlain) {
    return Adopted(*Mutex::Create(segment(), me(), type));
  }
  Condition NewCondition() { return Adopted(*Condition::Create(segment(), me())); }
  Semaphore NewSemaphore(uint32_t initial, uint32_t max = Semaphore::kMaxValue) {
    return Adopted(*Semaphore::Create(segment(), me(), initial, max));
  }
  Event NewEvent() { return Adopted(*Event::Create(segment(), me())); }
  Barrier NewBarrier(uint32_t parties) { return Adopted(*Barrier::Create(segment(), me(), parties)); }

  // The object as another host sees it.
  template <typename T>
  T As(const T& object, HostId host) {
    return *T::Open(segment(), host, object.handle());
  }
  template <typename State, typename T>
  State* StateOf(const T& object) {
    return *segment().objects().StateAs<State>(object.handle());
  }
  // Runs `body` in a host that is killed when it comes to `point`, and recovers it.
  template <typename Body>
  void DieAt(std::string_view point, Body body, int nth = 1) {
    const auto end = temp_.RunHost([&](HostId self) {
      testing::KillAtCrashPoint(point, nth);
      body(self);
    });
    ASSERT_EQ(end, testing::Killed(SIGKILL)) << "never came to " << point;
  }
  template <typename Predicate>
  static void Until(Predicate predicate) {
    while (!predicate()) absl::SleepFor(absl::Microseconds(200));
  }

  testing::TempSegment temp_;

 private:
  template <typename T>
  T Adopted(T object) {
    segment().refs().Adopt(object.handle(), me());
    return object;
  }
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_SYNC_SYNC_TEST_UTIL_H_
