#include "runtime/sync/event.h"

#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/sync/sync_test_util.h"

namespace pyhost {
namespace {

class EventTest : public SyncFixture {
 protected:
  uint32_t Sleepers(const Event& event) { return StateOf<EventState>(event)->raised.sleepers(); }
};

TEST_F(EventTest, SetAndCleared) {
  Event event = NewEvent();
  EXPECT_FALSE(event.is_set());
  EXPECT_TRUE(absl::IsDeadlineExceeded(event.WaitUntilSet(Wait::Try())));
  event.Set();
  event.Set();
  EXPECT_TRUE(event.is_set());
  EXPECT_OK(event.WaitUntilSet(Wait::Try()));
  event.Clear();
  EXPECT_FALSE(event.is_set());
  EXPECT_TRUE(absl::IsDeadlineExceeded(event.WaitUntilSet(For(absl::Milliseconds(20)))));
}

TEST_F(EventTest, SetWakesEverybodyEvenIfClearedAtOnce) {
  Event event = NewEvent();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) threads.emplace_back([&] { EXPECT_OK(event.WaitUntilSet(Wait::Forever())); });
  Until([&] { return Sleepers(event) == 4; });
  event.Set();
  event.Clear();
  for (std::thread& thread : threads) thread.join();
}

TEST_F(EventTest, WakeUpOfADeadSetterIsMadeGood) {
  Event event = NewEvent();
  std::thread waiter([&] { EXPECT_OK(event.WaitUntilSet(Wait::Forever())); });
  Until([&] { return Sleepers(event) == 1; });
  DieAt("event-set", [&](HostId self) { As(event, self).Set(); });
  waiter.join();
  EXPECT_TRUE(event.is_set());
}

}  // namespace
}  // namespace pyhost
