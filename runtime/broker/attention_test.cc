#include "runtime/broker/attention.h"

#include <gtest/gtest.h>

namespace pyhost {
namespace {

constexpr int64_t kNow = 1'000'000'000;

class AttentionTest : public ::testing::Test {
 protected:
  void OneWorksAndOneDozes() {
    attention_.Took(kNow);
    ASSERT_TRUE(attention_.BeginNap(kNow, kNow + Attention::kFirstNap));
  }

  Attention attention_{};
};

TEST_F(AttentionTest, NobodyIsAttentiveAtFirst) { EXPECT_FALSE(attention_.Covers(kNow)); }

TEST_F(AttentionTest, CoversWhileOneWorksAndAnotherDozes) {
  OneWorksAndOneDozes();
  EXPECT_TRUE(attention_.Covers(kNow + 1));
}

TEST_F(AttentionTest, AloneNeitherWorkingNorDozingCovers) {
  attention_.Took(kNow);
  EXPECT_FALSE(attention_.Covers(kNow + 1));
  attention_.GivesUp(kNow);
  attention_.BeginNap(kNow, kNow + Attention::kFirstNap);
  EXPECT_FALSE(attention_.Covers(kNow + 1));
}

TEST_F(AttentionTest, ACallThatTakesLongIsNotCountedOn) {
  OneWorksAndOneDozes();
  EXPECT_FALSE(attention_.Covers(kNow + Attention::kAttentive));
}

TEST_F(AttentionTest, ANapEndsByItselfOrWhenItsTimeIsOver) {
  OneWorksAndOneDozes();
  attention_.EndNap(kNow + Attention::kFirstNap);
  EXPECT_FALSE(attention_.Covers(kNow + 1));

  attention_.BeginNap(kNow, kNow + Attention::kFirstNap);
  EXPECT_TRUE(attention_.Covers(kNow + 1));
  const int64_t later = kNow + Attention::kFirstNap;
  attention_.Took(later);
  EXPECT_FALSE(attention_.Covers(later + 1));
}

TEST_F(AttentionTest, OneDozesAtATimeUntilItsPromiseExpires) {
  OneWorksAndOneDozes();
  EXPECT_FALSE(attention_.BeginNap(kNow + 1, kNow + 2));
  const int64_t later = kNow + Attention::kFirstNap + 1;
  EXPECT_TRUE(attention_.BeginNap(later, later + Attention::kFirstNap));
}

TEST_F(AttentionTest, OnlyWhoSaidItLastTakesItBack) {
  OneWorksAndOneDozes();
  const int64_t later = kNow + Attention::kAttentive / 2;
  EXPECT_TRUE(attention_.Took(later));  // another
  attention_.GivesUp(kNow);
  EXPECT_TRUE(attention_.Covers(later + 1));
  attention_.GivesUp(later);
  EXPECT_FALSE(attention_.Covers(later + 1));
}

TEST_F(AttentionTest, IsSaidSeldom) {
  EXPECT_TRUE(attention_.Took(kNow));
  EXPECT_FALSE(attention_.Took(kNow + 1));
}

TEST_F(AttentionTest, NonsenseCoversNothingAndIsReplaced) {
  attention_.Took(kNow + (int64_t{1} << 60));
  attention_.BeginNap(kNow, kNow + (int64_t{1} << 60));
  EXPECT_FALSE(attention_.Covers(kNow));
  OneWorksAndOneDozes();
  EXPECT_TRUE(attention_.Covers(kNow + 1));
}

}  // namespace
}  // namespace pyhost
