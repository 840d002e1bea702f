#include "runtime/os/guarded_descriptor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <utility>

#include "runtime/os/unix_socket.h"

namespace pyhost {
namespace {

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

class GuardedDescriptorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto pair = DatagramSocketPair();
    ASSERT_TRUE(pair.ok()) << pair.status();
    copy_ = UniqueFd(dup(pair->first.get()));
    guarded_ = GuardedDescriptor(std::move(pair->first));
    other_ = std::move(pair->second);
  }

  UniqueFd copy_;   // of the guarded file
  UniqueFd other_;  // another file
  GuardedDescriptor guarded_;
};

TEST_F(GuardedDescriptorTest, IsIntactUntilClosed) {
  EXPECT_TRUE(guarded_.Intact());
  close(guarded_.fd());
  EXPECT_FALSE(guarded_.Intact());
}

TEST_F(GuardedDescriptorTest, NumberThatBecameAnotherFileIsNotIntactAndNeverClosed) {
  const int number = guarded_.fd();
  ASSERT_EQ(dup2(other_.get(), number), number);
  EXPECT_FALSE(guarded_.Intact());
  guarded_.Close();
  EXPECT_TRUE(IsOpen(number));
  close(number);
}

TEST_F(GuardedDescriptorTest, RestoredFromADuplicateOfTheSameFile) {
  close(guarded_.fd());
  EXPECT_TRUE(guarded_.Restore(std::move(copy_)));
  EXPECT_TRUE(guarded_.Intact());
}

TEST_F(GuardedDescriptorTest, DuplicateMayHaveTheLostNumber) {
  const int number = guarded_.fd();
  close(number);
  ASSERT_EQ(dup2(copy_.get(), number), number);
  EXPECT_TRUE(guarded_.Restore(UniqueFd(number)));
  EXPECT_TRUE(guarded_.Intact());
}

TEST_F(GuardedDescriptorTest, NotRestoredFromAnotherFile) {
  close(guarded_.fd());
  EXPECT_FALSE(guarded_.Restore(std::move(other_)));
  EXPECT_FALSE(guarded_.Intact());
}

}  // namespace
}  // namespace pyhost
