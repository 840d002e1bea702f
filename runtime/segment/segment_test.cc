#include "runtime/segment/segment.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/os/memory_file.h"
#include "runtime/segment/layout.h"
#include "runtime/segment/segment_map.h"
#include "runtime/testing/temp_segment.h"

namespace pyhost {
namespace {

using testing::Exited;
using testing::RunInChild;
using testing::TempSegment;
using ::testing::HasSubstr;

constexpr SegmentOptions kSmall = {.limit = 1 << 20, .max_hosts = 64, .max_objects = 64};

TEST(SegmentTest, AttachSeesTheSameSession) {
  auto created = Segment::Create(kSmall);
  ASSERT_TRUE(created.ok()) << created.status();
  auto attached = Segment::Attach((*created)->fd());
  ASSERT_TRUE(attached.ok()) << attached.status();
  EXPECT_EQ((*created)->session_id(), (*attached)->session_id());
  EXPECT_NE((*created)->session_id(), 0u);
  EXPECT_TRUE((*created)->FirstTime(5));
  EXPECT_FALSE((*attached)->FirstTime(5));
  EXPECT_TRUE((*attached)->FirstTime(6));
  EXPECT_FALSE((*attached)->FirstTime(64));
}

TEST(SegmentTest, SessionsDiffer) {
  EXPECT_NE((*Segment::Create(kSmall))->session_id(), (*Segment::Create(kSmall))->session_id());
}

TEST(SegmentTest, AddressesOutsideAreNull) {
  auto segment = *Segment::Create(kSmall);
  const uint64_t size = segment->map().total_bytes();
  EXPECT_NE(segment->At(0, size), nullptr);
  EXPECT_EQ(segment->At(1, size), nullptr);
  EXPECT_EQ(segment->At(size, 1), nullptr);
  EXPECT_EQ(segment->At(~uint64_t{0}, 2), nullptr);
  EXPECT_EQ(segment->At(8, ~uint64_t{0}), nullptr);
}

TEST(SegmentTest, ImpossibleOptionsAreRefused) {
  EXPECT_THAT(std::string(Segment::Create({.limit = 1 << 20, .max_hosts = 5000}).status().message()),
              HasSubstr("max_hosts"));
  EXPECT_FALSE(Segment::Create({.limit = 1 << 20, .max_hosts = 0}).ok());
  EXPECT_FALSE(Segment::Create({.limit = 1 << 20, .max_objects = 0}).ok());
  EXPECT_FALSE(Segment::Create({.limit = uint64_t{1} << 60}).ok());
}

TEST(SegmentTest, ManyHostsAreAllowed) {
  auto segment = Segment::Create({.limit = 1 << 20, .max_hosts = 4096, .max_objects = 1024});
  ASSERT_TRUE(segment.ok()) << segment.status();
  EXPECT_EQ((*segment)->map().max_hosts(), 4096u);
}

// ---- Attach refuses what is no segment ----

TEST(SegmentAttachTest, ClosedDescriptorIsNamed) {
  const absl::Status status = Segment::Attach(987).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("987"));
}

TEST(SegmentAttachTest, OtherFilesAreNoSegments) {
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  const int null = open("/dev/null", O_RDWR);
  const int unsealed = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  ASSERT_EQ(ftruncate(unsealed, 1 << 20), 0);
  for (const int fd : {pipes[0], null, unsealed}) {
    EXPECT_EQ(Segment::Attach(fd).status().code(), absl::StatusCode::kFailedPrecondition) << fd;
    close(fd);
  }
  close(pipes[1]);
}

TEST(SegmentAttachTest, SealedForeignFilesAreNoSegments) {
  for (const uint64_t size : {uint64_t{100}, uint64_t{4096}, uint64_t{1} << 20}) {
    auto file = *MemoryFile::Create("foreign", size);
    memset(file->data(), 0x41, std::min<uint64_t>(size, 4096));
    EXPECT_EQ(Segment::Attach(file->fd()).status().code(), absl::StatusCode::kFailedPrecondition) << size;
  }
}

TEST(SegmentAttachTest, AnotherLayoutVersionNamesBoth) {
  auto segment = *Segment::Create(kSmall);
  segment->map().header().layout_version = 77;
  const absl::Status status = Segment::Attach(segment->fd()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("77"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(kLayoutVersion)));
}

TEST(SegmentAttachTest, EveryDamagedConstantOfTheHeaderIsNoticed) {
  auto segment = *Segment::Create(kSmall);
  auto* bytes = reinterpret_cast<unsigned char*>(&segment->map().header());
  constexpr size_t kConstants = offsetof(SegmentHeader, block_pages) + sizeof(uint64_t);
  constexpr size_t kId = offsetof(SegmentHeader, session_id);  // any value but 0 is good
  for (size_t i = 0; i < kConstants; ++i) {
    if (i >= kId && i < kId + 8) continue;
    for (const unsigned char flip : {0x01, 0x80, 0xff}) {
      bytes[i] ^= flip;
      EXPECT_FALSE(Segment::Attach(segment->fd()).ok()) << "byte " << i;
      bytes[i] ^= flip;
    }
  }
  EXPECT_TRUE(Segment::Attach(segment->fd()).ok());
}

TEST(SegmentAttachTest, LaterDamageOfTheHeaderChangesNothingForTheAttached) {
  TempSegment segment;
  SegmentHeader& header = segment->map().header();
  header.blocks_offset = header.objects_offset = ~uint64_t{0};
  header.max_objects = header.max_hosts = ~0u;
  EXPECT_TRUE(segment.objects().Create(ObjectKind::kMemory, 1000, segment.me()).ok());
  EXPECT_FALSE(segment.objects().State(Handle(ObjectKind::kMemory, 1, 1u << 30)).ok());
}

// ---- Limits ----

void ExpectWorks(const SegmentOptions& options) {
  auto segment = Segment::Create(options);
  ASSERT_TRUE(segment.ok()) << segment.status();
  const HostId me = *(*segment)->hosts().CreateEmbryo({.name = "test"});
  auto handle = (*segment)->objects().Create(ObjectKind::kMemory, 30'000, me);
  ASSERT_TRUE(handle.ok()) << handle.status();
  memset((*segment)->objects().Block(*handle)->data(), 1, 30'000);
  // Exhaustion is an error here, not a signal.
  EXPECT_EQ((*segment)->objects().Create(ObjectKind::kMemory, uint64_t{1} << 40, me).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(SegmentLimitTest, WorksUnderFileSizeLimit) {
  EXPECT_EQ(RunInChild([] {
    const rlimit limit = {8 << 20, 8 << 20};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ExpectWorks({});
  }),
            Exited(0));
}

TEST(SegmentLimitTest, TablesBecomeSmallWhereThereIsLittleRoom) {
  EXPECT_EQ(RunInChild([] {
    const rlimit limit = {256 << 10, 256 << 10};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ExpectWorks({});
    EXPECT_GE((*Segment::Create({}))->hosts().capacity(), 64u);
  }),
            Exited(0));
}

TEST(SegmentLimitTest, WorksUnderAddressSpaceLimit) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers need all address space";
#endif
  EXPECT_EQ(RunInChild([] {
    const rlimit limit = {256 << 20, 256 << 20};
    ASSERT_EQ(setrlimit(RLIMIT_AS, &limit), 0);
    ExpectWorks({});
  }),
            Exited(0));
}

TEST(SegmentLimitTest, TooSmallALimitIsAnErrorThatNamesIt) {
  EXPECT_EQ(RunInChild([] {
    const rlimit limit = {100 << 10, 100 << 10};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    EXPECT_THAT(std::string(Segment::Create({}).status().message()), HasSubstr("RLIMIT_FSIZE"));
  }),
            Exited(0));
}

TEST(SegmentLimitTest, ExhaustedMemoryNamesTheVariableThatSetsTheLimit) {
  EXPECT_EQ(RunInChild([] {
    setenv("PYHOST_MEMORY_LIMIT", "3M", 1);
    const auto segment = *Segment::Create({});
    const HostId me = *segment->hosts().CreateEmbryo({.name = "test"});
    const absl::Status status = segment->objects().Create(ObjectKind::kMemory, 100 << 20, me).status();
    EXPECT_THAT(std::string(status.message()), HasSubstr("set by the environment variable PYHOST_MEMORY_LIMIT"));
  }),
            Exited(0));
}

TEST(SegmentLimitTest, EnvironmentSetsTheLimit) {
  EXPECT_EQ(RunInChild([] {
    setenv("PYHOST_MEMORY_LIMIT", "3M", 1);
    EXPECT_EQ((*Segment::Create({}))->Usage().limit_bytes, 3u << 20);
    ExpectWorks({});
    setenv("PYHOST_MEMORY_LIMIT", "64", 1);  // rounded up to what can work at all
    ExpectWorks({});
    setenv("PYHOST_MEMORY_LIMIT", "plenty", 1);
    const absl::Status status = Segment::Create({}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("PYHOST_MEMORY_LIMIT"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("plenty"));
  }),
            Exited(0));
}

}  // namespace
}  // namespace pyhost
