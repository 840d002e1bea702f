// What one fork used is there in the next before it touches it.

#include "runtime/os/warm_pages.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstddef>
#include <memory>

#include "gtest/gtest.h"
#include "runtime/testing/child.h"

namespace pyhost {
namespace {

using testing::Exited;
using testing::RunInChild;

constexpr size_t kPages = 256;

size_t PageSize() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

// Pages that this process alone has written, small ones only.
std::byte* WrittenPages() {
  void* memory = mmap(nullptr, kPages * PageSize(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_NE(memory, MAP_FAILED);
  madvise(memory, kPages * PageSize(), MADV_NOHUGEPAGE);
  auto* pages = static_cast<std::byte*>(memory);
  for (size_t page = 0; page < kPages; ++page) pages[page * PageSize()] = std::byte{1};
  return pages;
}

// Faults that writing to the pages [from, to) costs.
long FaultsOfWriting(std::byte* pages, size_t from, size_t to) {
  rusage before = {}, after = {};
  getrusage(RUSAGE_SELF, &before);
  for (size_t page = from; page < to; ++page) pages[page * PageSize()] = std::byte{2};
  getrusage(RUSAGE_SELF, &after);
  return after.ru_minflt - before.ru_minflt;
}

bool ToTheEnd() { return true; }

class WarmPagesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto created = WarmPages::Create();
    ASSERT_TRUE(created.ok()) << created.status();
    warm_ = *std::move(created);
  }

  std::byte* const pages_ = WrittenPages();
  std::unique_ptr<WarmPages> warm_;
};

TEST_F(WarmPagesTest, PagesThatAForkWroteAreCopiedAheadInTheNext) {
  EXPECT_EQ(RunInChild([&] {
    EXPECT_GE(FaultsOfWriting(pages_, 10, 60), 50);
    warm_->Note();
  }), Exited(0));
  EXPECT_EQ(RunInChild([&] {
    warm_->Warm(ToTheEnd);
    EXPECT_LE(FaultsOfWriting(pages_, 10, 60), 2);
    EXPECT_GE(FaultsOfWriting(pages_, 100, 150), 50);
  }), Exited(0));
  EXPECT_EQ(pages_[10 * PageSize()], std::byte{1});
}

TEST_F(WarmPagesTest, WarmingEndsWhenItIsTo) {
  const auto write_every_second = [&] {
    long faults = 0;
    for (size_t page = 0; page < 100; page += 2) faults += FaultsOfWriting(pages_, page, page + 1);
    return faults;
  };
  EXPECT_EQ(RunInChild([&] {
    EXPECT_GE(write_every_second(), 50);
    warm_->Note();
  }), Exited(0));
  EXPECT_EQ(RunInChild([&] {
    int asked = 0;
    warm_->Warm([&] { return ++asked < 3; });
    EXPECT_EQ(asked, 3);
    EXPECT_GE(write_every_second(), 20);
  }), Exited(0));
}

TEST_F(WarmPagesTest, WarmingChangesNoByte) {
  EXPECT_EQ(RunInChild([&] {
    FaultsOfWriting(pages_, 0, kPages);
    warm_->Note();
  }), Exited(0));
  EXPECT_EQ(RunInChild([&] {
    warm_->Warm(ToTheEnd);
    for (size_t page = 0; page < kPages; ++page) ASSERT_EQ(pages_[page * PageSize()], std::byte{1});
  }), Exited(0));
}

TEST_F(WarmPagesTest, TheShortestNoteCounts) {
  for (size_t used : {size_t{200}, size_t{20}, size_t{120}}) {
    EXPECT_EQ(RunInChild([&] {
      FaultsOfWriting(pages_, 0, used);
      warm_->Note();
    }), Exited(0));
  }
  EXPECT_EQ(RunInChild([&] {
    warm_->Warm(ToTheEnd);
    EXPECT_LE(FaultsOfWriting(pages_, 0, 20), 2);
    EXPECT_GE(FaultsOfWriting(pages_, 20, 120), 100);
  }), Exited(0));
}

TEST_F(WarmPagesTest, NothingNotedAndMemoryThatIsGoneAreHarmless) {
  warm_->Warm(ToTheEnd);
  EXPECT_EQ(RunInChild([&] {
    FaultsOfWriting(pages_, 0, kPages);
    warm_->Note();
  }), Exited(0));
  EXPECT_EQ(RunInChild([&] {
    munmap(pages_, kPages * PageSize());
    warm_->Warm(ToTheEnd);
    warm_->Note();
  }), Exited(0));
}

}  // namespace
}  // namespace pyhost
