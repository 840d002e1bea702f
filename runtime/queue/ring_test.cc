#include "runtime/queue/ring.h"

#include "gtest/gtest.h"

namespace pyhost::ring {
namespace {

constexpr uint64_t kCapacity = 256;
constexpr uint64_t At(uint64_t lap, uint64_t index) { return lap << 32 | index; }

TEST(RingTest, AdvanceStaysInTheLapUntilTheEnd) {
  EXPECT_EQ(Advance(At(0, 0), 64, kCapacity), At(0, 64));
  EXPECT_EQ(Advance(At(3, 128), 120, kCapacity), At(3, 248));
  EXPECT_EQ(Advance(At(3, 192), 64, kCapacity), At(4, 0));
}

TEST(RingTest, UsedCountsAcrossTheEnd) {
  EXPECT_EQ(Used(At(0, 0), At(0, 0), kCapacity), 0u);
  EXPECT_EQ(Used(At(0, 64), At(0, 128), kCapacity), 64u);
  EXPECT_EQ(Used(At(0, 192), At(1, 64), kCapacity), 128u);
  EXPECT_EQ(Used(At(0, 64), At(1, 64), kCapacity), kCapacity);
}

TEST(RingTest, ContradictingPositionsAreMoreThanFull) {
  EXPECT_GT(Used(At(0, 64), At(0, 0), kCapacity), kCapacity);
  EXPECT_GT(Used(At(0, 64), At(1, 128), kCapacity), kCapacity);
  EXPECT_GT(Used(At(0, 0), At(2, 0), kCapacity), kCapacity);
  EXPECT_GT(Used(At(1, 0), At(0, 0), kCapacity), kCapacity);
  EXPECT_FALSE(Find(At(1, 0), At(0, 0), 8, kCapacity).fits);
}

TEST(RingTest, FrameGoesWhereTheWriterIs) {
  const Place place = Find(At(0, 0), At(0, 64), 64, kCapacity);
  EXPECT_TRUE(place.fits);
  EXPECT_FALSE(place.skip);
  EXPECT_EQ(place.start, At(0, 64));
}

TEST(RingTest, FrameThatWouldWrapSkipsToTheNextLap) {
  const Place place = Find(At(0, 128), At(0, 224), 64, kCapacity);
  EXPECT_TRUE(place.fits);
  EXPECT_TRUE(place.skip);
  EXPECT_EQ(place.start, At(1, 0));
}

TEST(RingTest, FrameNeverOverwritesWhatIsNotRead) {
  EXPECT_FALSE(Find(At(0, 32), At(0, 224), 64, kCapacity).fits);
  EXPECT_FALSE(Find(At(0, 128), At(1, 96), 64, kCapacity).fits);
  EXPECT_TRUE(Find(At(0, 128), At(1, 64), 64, kCapacity).fits);
  EXPECT_FALSE(Find(At(0, 0), At(1, 0), 8, kCapacity).fits);
}

TEST(RingTest, WholeRingCanBeFilled) {
  uint64_t writer = At(0, 0);
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(Find(At(0, 0), writer, 64, kCapacity).fits);
    writer = Advance(writer, 64, kCapacity);
  }
  EXPECT_FALSE(Find(At(0, 0), writer, 8, kCapacity).fits);
}

}  // namespace
}  // namespace pyhost::ring
