#include "runtime/base/status_util.h"

#include <errno.h>

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pyhost {
namespace {

using ::testing::HasSubstr;

TEST(StatusUtilTest, ErrnoStatusNamesTheCallAndKeepsTheNumber) {
  const absl::Status status = ErrnoStatus(ENOENT, "open /no/such/file");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("open /no/such/file"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("No such file"));
  EXPECT_EQ(ErrnoOf(status), ENOENT);
}

TEST(StatusUtilTest, OtherStatusesHaveNoErrno) {
  EXPECT_EQ(ErrnoOf(absl::OkStatus()), 0);
  EXPECT_EQ(ErrnoOf(absl::NotFoundError("x")), 0);
}

TEST(StatusUtilTest, AnnotateKeepsCodeAndErrno) {
  const absl::Status status = Annotate(ErrnoStatus(EMFILE, "open a"), "start of host 3");
  EXPECT_THAT(std::string(status.message()), HasSubstr("start of host 3: open a"));
  EXPECT_EQ(ErrnoOf(status), EMFILE);
  EXPECT_TRUE(Annotate(absl::OkStatus(), "x").ok());
}

absl::StatusOr<int> Half(int number) {
  if (number % 2 != 0) return absl::InvalidArgumentError("odd");
  return number / 2;
}
absl::StatusOr<int> Quarter(int number) {
  PYHOST_ASSIGN_OR_RETURN(const int half, Half(number));
  PYHOST_ASSIGN_OR_RETURN(const int quarter, Half(half));
  PYHOST_RETURN_IF_ERROR(quarter < 0 ? absl::OutOfRangeError("negative") : absl::OkStatus());
  return quarter;
}

TEST(StatusUtilTest, MacrosReturnTheFirstError) {
  EXPECT_EQ(*Quarter(12), 3);
  EXPECT_EQ(Quarter(6).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Quarter(-8).status().code(), absl::StatusCode::kOutOfRange);
}

}  // namespace
}  // namespace pyhost
