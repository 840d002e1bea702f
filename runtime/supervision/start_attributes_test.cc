#include "runtime/supervision/start_attributes.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <utility>

#include "runtime/os/unix_socket.h"
#include "runtime/supervision/process_status.h"
#include "runtime/supervision/protocol.h"
#include "runtime/supervision/server_profile.h"
#include "runtime/supervision/wire.h"
#include "runtime/testing/child.h"

namespace pyhost {
namespace {

using testing::Exited;
using testing::RunInChild;

StartAttributes CaptureNow() {
  absl::StatusOr<ProcessStatus> status = ProcessStatus::Read();
  EXPECT_TRUE(status.ok()) << status.status();
  absl::StatusOr<StartAttributes> attributes = StartAttributes::Capture(*status);
  EXPECT_TRUE(attributes.ok()) << attributes.status();
  return *attributes;
}

std::vector<UniqueFd> Duplicates(const StartDescriptors& descriptors) {
  std::vector<UniqueFd> copies;
  for (int fd : descriptors.fds()) copies.push_back(*DuplicateHigh(fd));
  return copies;
}

TEST(StartAttributesTest, SurviveEncoding) {
  StartAttributes attributes = CaptureNow();
  attributes.descriptors = {StartAttributes::kWorkingDirectory, 0, 7};
  absl::StatusOr<StartAttributes> decoded = StartAttributes::Decode(attributes.Encode());
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->Encode(), attributes.Encode());
}

TEST(StartAttributesTest, CutOffBytesAreDataLoss) {
  const std::string bytes = CaptureNow().Encode();
  for (size_t size = 0; size < bytes.size(); size += 1 + size / 10) {
    EXPECT_TRUE(absl::IsDataLoss(StartAttributes::Decode(bytes.substr(0, size)).status())) << size;
  }
}

TEST(StartAttributesTest, AppliedInAnotherProcessGiveWhatWasCaptured) {
  StartAttributes wanted;
  EXPECT_EQ(RunInChild([&] {
              umask(027);
              signal(SIGUSR1, SIG_IGN);
              setenv("START_ATTRIBUTES_TEST", "a=b", 1);
              std::filesystem::current_path("/");
              wanted = CaptureNow();
              absl::StatusOr<StartDescriptors> descriptors = StartDescriptors::Open({});
              ASSERT_TRUE(descriptors.ok());
              wanted.descriptors = descriptors->numbers();
              std::vector<UniqueFd> received = Duplicates(*descriptors);
              // Somebody else by now.
              umask(0);
              signal(SIGUSR1, SIG_DFL);
              clearenv();
              std::filesystem::current_path("/tmp");
              absl::Status applied = wanted.Apply(std::move(received), CaptureNow());
              EXPECT_TRUE(applied.ok()) << applied;
              StartAttributes now = CaptureNow();
              now.descriptors = wanted.descriptors;
              EXPECT_EQ(now.Encode(), wanted.Encode());
              EXPECT_EQ(std::filesystem::current_path(), "/");
            }),
            Exited(0));
}

TEST(StartAttributesTest, DescriptorsGetTheirNumbersWhateverLiesThere) {
  EXPECT_EQ(RunInChild([] {
              UniqueFd zero(open("/dev/zero", O_RDONLY));
              struct stat device = {};
              ASSERT_EQ(fstat(zero.get(), &device), 0);
              StartAttributes attributes = CaptureNow();
              attributes.descriptors = {0, 1, 2, 200, 201, 300};
              std::vector<UniqueFd> received;
              for (size_t i = 0; i < attributes.descriptors.size(); ++i) received.push_back(*DuplicateHigh(zero.get()));
              ASSERT_TRUE(attributes.Apply(std::move(received), CaptureNow()).ok());
              for (int number : attributes.descriptors) {
                struct stat file = {};
                EXPECT_EQ(fstat(number, &file), 0) << number;
                EXPECT_EQ(file.st_rdev, device.st_rdev) << number;
              }
            }),
            Exited(0));
}

TEST(StartAttributesTest, StandardDescriptorsThatTheStarterHadClosedAreClosed) {
  EXPECT_EQ(RunInChild([] {
              StartAttributes attributes = CaptureNow();
              attributes.descriptors = {1, 2};
              std::vector<UniqueFd> received;
              for (int number : {1, 2}) received.push_back(*DuplicateHigh(number));
              ASSERT_TRUE(attributes.Apply(std::move(received), CaptureNow()).ok());
              EXPECT_LT(fcntl(0, F_GETFD), 0);
            }),
            Exited(0));
}

TEST(StartAttributesTest, WrongNumberOfDescriptorsIsAnError) {
  StartAttributes attributes = CaptureNow();
  attributes.descriptors = {1, 2};
  EXPECT_EQ(RunInChild([&] { EXPECT_TRUE(absl::IsDataLoss(attributes.Apply({}, attributes))); }), Exited(0));
}

TEST(StartDescriptorsTest, ClosedDescriptorCannotBePassed) {
  const int fd = 900;
  close(fd);
  EXPECT_FALSE(StartDescriptors::Open(std::span(&fd, 1)).ok());
}

TEST(ServerProfileTest, ServesItsEqualAndTheNicerAndMoreLimited) {
  ServerProfile server = *ServerProfile::Capture(*ProcessStatus::Read());
  ServerProfile starter = server;
  EXPECT_TRUE(server.CanServe(starter));
  starter.nice = server.nice + 1;
  starter.hard_limits[RLIMIT_CORE] = 0;
  EXPECT_TRUE(server.CanServe(starter));
  EXPECT_FALSE(starter.CanServe(server));
}

TEST(ServerProfileTest, AnIdleOneServesTheIdleAlone) {
  ServerProfile server = *ServerProfile::Capture(*ProcessStatus::Read());
  ServerProfile starter = server;
  starter.policy = SCHED_BATCH;
  EXPECT_TRUE(server.CanServe(starter));
  server.policy = SCHED_IDLE;
  EXPECT_FALSE(server.CanServe(starter));
  starter.policy = SCHED_IDLE;
  EXPECT_TRUE(server.CanServe(starter));
}

TEST(ServerProfileTest, DoesNotServeAnotherSessionOrUser) {
  ServerProfile server = *ServerProfile::Capture(*ProcessStatus::Read());
  EXPECT_EQ(RunInChild([&] {
              setsid();
              EXPECT_FALSE(server.CanServe(*ServerProfile::Capture(*ProcessStatus::Read())));
            }),
            Exited(0));
}

TEST(ServerProfileTest, SurvivesTheCommandLine) {
  ServerProfile profile = *ServerProfile::Capture(*ProcessStatus::Read());
  absl::StatusOr<ServerProfile> parsed = ServerProfile::FromArgument(profile.ToArgument());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->ToArgument(), profile.ToArgument());
  EXPECT_FALSE(ServerProfile::FromArgument("1,2,three").ok());
}

TEST(ServerSpecTest, SurvivesBytesAndCommandLine) {
  ServerSpec spec = {"/bin/pyhost", "forkserver", {"-O", "-Xutf8=1"}, {"numpy", "__main__"}, "/a b.py", "", true, {"", "/x=y"},
                     {"/a b.py", "--an=argument", ""}, true, "/script of a program.py"};
  EXPECT_EQ(ServerSpec::Decode(spec.Encode())->Encode(), spec.Encode());
  std::vector<std::string> words = spec.ToArguments();
  std::vector<char*> argv = {const_cast<char*>("pyhost")};
  for (std::string& word : words) argv.push_back(word.data());
  EXPECT_EQ(ServerSpec::FromArguments(static_cast<int>(argv.size()), argv.data()).Encode(), spec.Encode());
}

TEST(ServerSpecTest, KeyFollowsWhatAServerReadsAtItsStart) {
  ServerSpec spec = {"/bin/pyhost", "spawn", {}, {}, "", "", false, {}, {}, false, ""};
  const uint64_t key = spec.Key({"HOME=/", "TZ=UTC", "PYTHONUTF8=1"});
  spec.script = "/it changes no child.py";
  EXPECT_EQ(key, spec.Key({"HOME=/", "TZ=UTC", "PYTHONUTF8=1"}));
  EXPECT_EQ(key, spec.Key({"PYTHONUTF8=1", "TZ=UTC", "HOME=/root"}));
  EXPECT_NE(key, spec.Key({"PYTHONUTF8=0", "TZ=UTC"}));
  spec.shadowed = true;
  EXPECT_NE(key, spec.Key({"HOME=/", "TZ=UTC", "PYTHONUTF8=1"}));
  spec.shadowed = false;
  spec.flags = {"-O"};
  EXPECT_NE(key, spec.Key({"TZ=UTC", "PYTHONUTF8=1"}));
}

TEST(StartPayloadTest, DamagedBytesAreDataLoss) {
  std::string text = StartPayload::EncodeHead("attributes", "server", 4) + "body";
  auto parse = [](std::string_view bytes) { return StartPayload::Parse(std::as_bytes(std::span(bytes))); };
  ASSERT_TRUE(parse(text).ok());
  EXPECT_EQ(parse(text)->body.size(), 4u);
  for (size_t size = 0; size < text.size(); ++size) EXPECT_TRUE(absl::IsDataLoss(parse(text.substr(0, size)).status()));
  text[0] ^= 1;
  EXPECT_TRUE(absl::IsDataLoss(parse(text).status()));
}

}  // namespace
}  // namespace pyhost
