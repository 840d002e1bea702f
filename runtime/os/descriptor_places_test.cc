#include "runtime/os/descriptor_places.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <span>
#include <utility>
#include <vector>

#include "runtime/base/status_util.h"
#include "runtime/testing/child.h"

namespace pyhost {
namespace {

using testing::Exited;
using testing::RunInChild;

// From one number to another.
struct Way {
  int from;
  int to;
};

// A file that nobody else has, at that number.
ino_t MakeFileAt(int number) {
  UniqueFd file(memfd_create("place", 0));
  EXPECT_EQ(dup3(file.get(), number, O_CLOEXEC), number);
  struct stat status = {};
  EXPECT_EQ(fstat(number, &status), 0);
  return status.st_ino;
}

ino_t FileAt(int number) {
  struct stat status = {};
  return fstat(number, &status) == 0 ? status.st_ino : 0;
}

void LimitDescriptors(rlim_t count) {
  const rlimit limit = {count, count};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

std::vector<DescriptorPlace> PlacesOf(std::span<const Way> ways) {
  std::vector<DescriptorPlace> places;
  for (const Way& way : ways) places.push_back({UniqueFd(way.from), way.to});
  return places;
}

// In a process with few numbers, as under `ulimit -n 48`.
void ExpectPlaced(const std::vector<Way>& ways) {
  EXPECT_EQ(RunInChild([&] {
              LimitDescriptors(48);
              std::vector<ino_t> files;
              for (const Way& way : ways) files.push_back(MakeFileAt(way.from));
              absl::Status placed = PlaceDescriptors(PlacesOf(ways));
              ASSERT_TRUE(placed.ok()) << placed;
              for (size_t i = 0; i < ways.size(); ++i) {
                EXPECT_EQ(FileAt(ways[i].to), files[i]) << ways[i].to;
                EXPECT_EQ(fcntl(ways[i].to, F_GETFD), 0) << "not inherited by programs";
              }
            }),
            Exited(0));
}

TEST(DescriptorPlacesTest, FreeNumbersAreTaken) { ExpectPlaced({{20, 30}, {21, 31}}); }

TEST(DescriptorPlacesTest, OneThatIsInItsPlaceStaysThere) { ExpectPlaced({{20, 20}, {21, 30}}); }

TEST(DescriptorPlacesTest, NumberThatAnotherLeavesIsTakenAfterwards) {
  ExpectPlaced({{20, 21}, {21, 22}, {22, 23}});
  ExpectPlaced({{22, 21}, {21, 20}, {23, 22}});
}

TEST(DescriptorPlacesTest, TwoChangePlaces) { ExpectPlaced({{20, 21}, {21, 20}}); }

TEST(DescriptorPlacesTest, CirclesAndWhatHangsOnThem) {
  ExpectPlaced({{20, 21}, {21, 22}, {22, 20}, {23, 24}, {24, 23}, {25, 25}, {26, 27}});
}

TEST(DescriptorPlacesTest, StandardStreamsCanBeAmongThem) { ExpectPlaced({{0, 5}, {5, 0}, {6, 1}}); }

TEST(DescriptorPlacesTest, OriginalIsClosed) {
  EXPECT_EQ(RunInChild([] {
              const Way way = {20, 30};
              MakeFileAt(way.from);
              ASSERT_TRUE(PlaceDescriptors(PlacesOf(std::span(&way, 1))).ok());
              EXPECT_EQ(FileAt(way.from), 0u);
            }),
            Exited(0));
}

TEST(DescriptorPlacesTest, CircleWithoutAFreeNumberIsAnErrorThatNamesTheLimit) {
  EXPECT_EQ(RunInChild([] {
              LimitDescriptors(22);
              const Way ways[] = {{20, 21}, {21, 20}};
              for (const Way& way : ways) MakeFileAt(way.from);
              while (dup(0) >= 0) {
              }
              absl::Status placed = PlaceDescriptors(PlacesOf(ways));
              EXPECT_EQ(ErrnoOf(placed), EMFILE);
              EXPECT_NE(placed.message().find("RLIMIT_NOFILE is 22"), std::string::npos) << placed;
            }),
            Exited(0));
}

TEST(DescriptorPlacesTest, NumberBeyondTheLimitIsAnError) {
  EXPECT_EQ(RunInChild([] {
              LimitDescriptors(48);
              const Way way = {20, 48};
              MakeFileAt(way.from);
              EXPECT_EQ(ErrnoOf(PlaceDescriptors(PlacesOf(std::span(&way, 1)))), EBADF);
            }),
            Exited(0));
}

}  // namespace
}  // namespace pyhost
