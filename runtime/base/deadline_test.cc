#include "runtime/base/deadline.h"

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace pyhost {
namespace {

TEST(DeadlineTest, NowIsExpiredAndNeverNever) {
  EXPECT_TRUE(Deadline::Now().Expired());
  EXPECT_TRUE(Deadline::Now().is_immediate());
  EXPECT_FALSE(Deadline::Never().Expired());
  EXPECT_EQ(Deadline::Never().Remaining(), absl::InfiniteDuration());
}

TEST(DeadlineTest, NegativeAndZeroTimeoutsAreImmediate) {
  EXPECT_EQ(Deadline::After(absl::Seconds(-3)), Deadline::Now());
  EXPECT_EQ(Deadline::After(absl::ZeroDuration()), Deadline::Now());
  EXPECT_EQ(Deadline::After(-absl::InfiniteDuration()), Deadline::Now());
}

TEST(DeadlineTest, HugeTimeoutsAreNever) {
  EXPECT_EQ(Deadline::After(absl::InfiniteDuration()), Deadline::Never());
  EXPECT_EQ(Deadline::After(absl::Hours(24.0 * 365 * 1000)), Deadline::Never());
}

TEST(DeadlineTest, ExpiresWhenItsTimeHasCome) {
  const Deadline deadline = Deadline::After(absl::Milliseconds(30));
  EXPECT_FALSE(deadline.Expired());
  EXPECT_LE(deadline.Remaining(), absl::Milliseconds(30));
  absl::SleepFor(absl::Milliseconds(31));
  EXPECT_TRUE(deadline.Expired());
  EXPECT_EQ(deadline.Remaining(), absl::ZeroDuration());
}

TEST(DeadlineTest, AtMostTakesTheEarlier) {
  EXPECT_FALSE(Deadline::Never().AtMost(absl::Seconds(1)).is_never());
  EXPECT_EQ(Deadline::Now().AtMost(absl::Seconds(1)), Deadline::Now());
  const Deadline soon = Deadline::After(absl::Seconds(1));
  EXPECT_EQ(soon.AtMost(absl::Hours(1)), soon);
  EXPECT_LE(Deadline::After(absl::Hours(1)).AtMost(absl::Seconds(1)).Remaining(), absl::Seconds(1));
}

TEST(DeadlineTest, TimespecIsTheSameTime) {
  const timespec time = Deadline::After(absl::Seconds(10)).ToMonotonicTimespec();
  const int64_t nanos = time.tv_sec * 1'000'000'000 + time.tv_nsec - Deadline::MonotonicNanos();
  EXPECT_GT(nanos, 9'000'000'000);
  EXPECT_LE(nanos, 10'000'000'000);
}

}  // namespace
}  // namespace pyhost
