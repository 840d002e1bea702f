// A program that makes and drops queues and locks for ever: nothing of it may add up.

#include <filesystem>
#include <iterator>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/queue/queue_test_util.h"
#include "runtime/sync/mutex.h"

namespace pyhost {
namespace {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int kRounds = 20;  // many times slower
#else
constexpr int kRounds = 1000;
#endif
constexpr int kOfEach = 1000;

class CreateDropTest : public QueueFixture {
 protected:
  CreateDropTest() { RegisterMutexKind(); }

  static auto Descriptors() {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
  }
};

TEST_F(CreateDropTest, ThousandQueuesAndLocksAThousandTimesLeaveNothing) {
  const SegmentUsage baseline = segment().Usage();
  const auto descriptors = Descriptors();
  std::vector<Handle> handles;
  uint64_t committed_after_first = 0;
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kOfEach; ++i) {
      handles.push_back(NewQueue().handle());
      absl::StatusOr<Mutex> mutex = Mutex::Create(segment(), me(), Mutex::Type::kPlain);
      ASSERT_OK(mutex.status());
      segment().refs().Adopt(mutex->handle(), me());
      handles.push_back(mutex->handle());
    }
    ASSERT_EQ(Objects(), baseline.objects + 3 * kOfEach) << "a queue comes with its first chunk";
    for (Handle handle : handles) segment().refs().Release(handle, me());
    handles.clear();
    ASSERT_EQ(Objects(), baseline.objects) << "round " << round;
    ASSERT_EQ(segment().Usage().used_bytes, baseline.used_bytes) << "round " << round;
    if (round == 0) committed_after_first = segment().Usage().committed_bytes;
  }
  EXPECT_EQ(segment().Usage().committed_bytes, committed_after_first) << "recycled, not taken anew";
  EXPECT_EQ(segment().refs().size(), 0u);
  EXPECT_EQ(Descriptors(), descriptors);
}

}  // namespace
}  // namespace pyhost
