// Memory files and limits.

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/status_util.h"
#include "runtime/os/memory_file.h"
#include "runtime/os/memory_limit.h"
#include "runtime/os/unix_socket.h"
#include "runtime/testing/child.h"

namespace pyhost {
namespace {

using testing::Exited;
using testing::RunInChild;
using ::testing::HasSubstr;

uint64_t BackedBytes(const MemoryFile& file) {
  struct stat info;
  fstat(file.fd(), &info);
  return static_cast<uint64_t>(info.st_blocks) * 512;
}

TEST(MemoryFileTest, IsSparseUntilCommittedAndAgainAfterDiscard) {
  auto file = MemoryFile::Create("test", uint64_t{1} << 32);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(BackedBytes(**file), 0u);
  ASSERT_TRUE((*file)->Commit(1 << 20, 1 << 20).ok());
  EXPECT_EQ(BackedBytes(**file), 1u << 20);
  memset((*file)->data() + (1 << 20), 1, 1 << 20);
  ASSERT_TRUE((*file)->Discard(1 << 20, 1 << 20).ok());
  EXPECT_EQ(BackedBytes(**file), 0u);
  EXPECT_EQ((*file)->data()[1 << 20], std::byte{0});
}

TEST(MemoryFileTest, NobodyCanTakeGroundAway) {
  auto file = *MemoryFile::Create("test", 1 << 20);
  EXPECT_NE(ftruncate(file->fd(), 4096), 0);
  EXPECT_NE(ftruncate(file->fd(), 2 << 20), 0);
  EXPECT_NE(fcntl(file->fd(), F_ADD_SEALS, F_SEAL_WRITE), 0);
  EXPECT_EQ(fcntl(file->fd(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

TEST(MemoryFileTest, AttachedMappingIsTheSameMemory) {
  auto file = *MemoryFile::Create("test", 1 << 20);
  auto attached = MemoryFile::Attach(file->fd());
  ASSERT_TRUE(attached.ok()) << attached.status();
  EXPECT_NE((*attached)->fd(), file->fd());
  file->data()[77] = std::byte{7};
  EXPECT_EQ((*attached)->data()[77], std::byte{7});
}

class LostDescriptorTest : public ::testing::Test {
 protected:
  std::unique_ptr<MemoryFile> file_ = *MemoryFile::Create("test", 1 << 20);
  UniqueFd copy_{fcntl(file_->fd(), F_DUPFD_CLOEXEC, 3)};
};

TEST_F(LostDescriptorTest, IsTakenBackFromWhereRecoverySays) {
  file_->set_recovery([this] { return DuplicateHigh(copy_.get()); });
  close(file_->fd());
  EXPECT_TRUE(file_->Commit(0, 1 << 20).ok());
  EXPECT_EQ(BackedBytes(*file_), 1u << 20);
}

TEST_F(LostDescriptorTest, NumberThatBecameAnotherFileIsLeftAlone) {
  file_->set_recovery([this] { return DuplicateHigh(copy_.get()); });
  const int number = file_->fd();
  UniqueFd other(memfd_create("other", MFD_CLOEXEC));
  ASSERT_EQ(dup2(other.get(), number), number);
  EXPECT_TRUE(file_->Commit(0, 1 << 20).ok());
  EXPECT_NE(file_->fd(), number);
  file_.reset();
  struct stat info = {};
  ASSERT_EQ(fstat(number, &info), 0);
  EXPECT_EQ(info.st_blocks, 0);
  close(number);
}

TEST_F(LostDescriptorTest, AnotherFileInItsPlaceIsDataLoss) {
  file_->set_recovery([]() -> absl::StatusOr<UniqueFd> { return UniqueFd(memfd_create("other", MFD_CLOEXEC)); });
  close(file_->fd());
  EXPECT_EQ(file_->Commit(0, 1 << 20).code(), absl::StatusCode::kDataLoss);
}

TEST_F(LostDescriptorTest, IsAnErrorThatNamesItWhereNobodyHasIt) {
  const int number = file_->fd();
  close(number);
  EXPECT_THAT(std::string(file_->Commit(0, 1 << 20).message()), HasSubstr(std::to_string(number)));
}

TEST_F(LostDescriptorTest, ThreadsThatMissItTogetherShareOne) {
  file_->set_recovery([this] { return DuplicateHigh(copy_.get()); });
  close(file_->fd());
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this, i] { EXPECT_TRUE(file_->Commit(static_cast<uint64_t>(i) << 18, 1 << 18).ok()); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(BackedBytes(*file_), 1u << 20);
}

TEST(MemoryFileTest, LimitsAreErrorsThatNameThem) {
  EXPECT_EQ(RunInChild([] {
    const rlimit limit = {1 << 20, 1 << 20};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    const absl::Status status = MemoryFile::Create("test", 2 << 20).status();
    EXPECT_EQ(ErrnoOf(status), EFBIG);
    EXPECT_THAT(std::string(status.message()), HasSubstr("RLIMIT_FSIZE is 1 MiB"));
    EXPECT_TRUE(MemoryFile::Create("test", 1 << 20).ok());
  }),
            Exited(0));
}

// ---- Sizes ----

TEST(MemoryLimitTest, ParsesWhatPeopleWrite) {
  EXPECT_EQ(*ParseMemorySize("65536"), 65536u);
  EXPECT_EQ(*ParseMemorySize("512M"), 512u << 20);
  EXPECT_EQ(*ParseMemorySize(" 2G "), uint64_t{2} << 30);
  EXPECT_EQ(*ParseMemorySize("1.5g"), uint64_t{3} << 29);
  EXPECT_EQ(*ParseMemorySize("64MiB"), 64u << 20);
  EXPECT_EQ(*ParseMemorySize("64 kb"), 64u << 10);
  EXPECT_EQ(*ParseMemorySize("1T"), uint64_t{1} << 40);
  EXPECT_EQ(*ParseMemorySize("100B"), 100u);
}

TEST(MemoryLimitTest, QuotesWhatItDoesNotUnderstand) {
  for (const char* text : {"", "M", "-1", "0", "12X", "1e9", "0x10", "inf", "nan", "1.2.3", "99999999999999T", "5 5"}) {
    const absl::Status status = ParseMemorySize(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string("\"") + text + "\""));
  }
}

TEST(MemoryLimitTest, FormatsForMessages) {
  EXPECT_EQ(FormatMemorySize(100), "100 bytes");
  EXPECT_EQ(FormatMemorySize(64 << 20), "64 MiB");
  EXPECT_EQ(FormatMemorySize(uint64_t{3} << 29), "1.5 GiB");
}

TEST(MemoryLimitTest, DefaultIsTheLeastOfAllLimits) {
  EXPECT_EQ(RunInChild([] {
    unsetenv(kMemoryLimitVariable);
    EXPECT_LE(*DefaultMemoryLimit(), PhysicalMemory() / 2);
    const rlimit limit = {5 << 20, 5 << 20};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    EXPECT_EQ(*DefaultMemoryLimit(), 5u << 20);
    setenv(kMemoryLimitVariable, "3M", 1);
    EXPECT_EQ(*DefaultMemoryLimit(), 3u << 20);
  }),
            Exited(0));
}

}  // namespace
}  // namespace pyhost
