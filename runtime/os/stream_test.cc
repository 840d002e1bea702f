#include "runtime/os/stream.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <string>
#include <string_view>
#include <thread>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "runtime/base/status_util.h"
#include "runtime/os/unique_fd.h"

namespace pyhost {
namespace {

std::span<const std::byte> Bytes(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }

// One direction of a pipe or of a pair of sockets.
class StreamTest : public ::testing::TestWithParam<bool> {
 protected:
  StreamTest() {
    int ends[2];
    const int made = GetParam() ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends) : pipe(ends);
    EXPECT_EQ(made, 0);
    in_ = UniqueFd(ends[0]);
    out_ = UniqueFd(ends[1]);
  }

  absl::Status Write(std::string_view head, std::string_view body = "", Wait wait = Wait::Forever()) {
    sent_ = 0;
    return WriteAll(out_.get(), Bytes(head), Bytes(body), wait, &sent_);
  }
  std::string Read(size_t size, Wait wait = Wait::Forever()) {
    std::string text(size, '?');
    StreamReader reader(in_.get(), wait);
    const absl::Status filled = reader.Fill(std::as_writable_bytes(std::span(text.data(), size)));
    received_ = reader.received();
    return filled.ok() ? text : "error: " + filled.ToString();
  }
  static void MakeNonBlocking(const UniqueFd& fd) { fcntl(fd.get(), F_SETFL, fcntl(fd.get(), F_GETFL) | O_NONBLOCK); }

  UniqueFd in_, out_;
  size_t sent_ = 0, received_ = 0;
};

class Interrupts : public Interruptible {
 public:
  explicit Interrupts(absl::Status answer) : answer_(answer) {}
  absl::Status OnSignal() override {
    asked.fetch_add(1);
    return answer_;
  }
  void BeginBlocking() override { ++begun; }
  void EndBlocking() override { ++ended; }
  std::atomic<int> asked{0};
  int begun = 0, ended = 0;

 private:
  absl::Status answer_;
};

TEST_P(StreamTest, HeadAndBodyComeOneAfterTheOther) {
  ASSERT_TRUE(Write("head", " and body").ok());
  EXPECT_EQ(sent_, 13u);
  EXPECT_EQ(Read(6), "head a");
  EXPECT_EQ(Read(7), "nd body") << "nothing was read ahead";
}

TEST_P(StreamTest, LargeTransfersTakeManyPieces) {
  const std::string body(3 << 20, 'x');
  std::thread writer([&] { EXPECT_TRUE(Write("head", body).ok()); });
  EXPECT_EQ(Read(4), "head");
  EXPECT_EQ(Read(body.size()), body);
  writer.join();
  EXPECT_EQ(sent_, body.size() + 4);
}

TEST_P(StreamTest, NonBlockingEndsAreWaitedForInTheMiddleOnly) {
  MakeNonBlocking(in_);
  MakeNonBlocking(out_);
  EXPECT_NE(Read(1).find("read descriptor"), std::string::npos);
  const std::string body(1 << 20, 'x');
  std::thread writer([&] { EXPECT_TRUE(Write("", body).ok()); });
  ASSERT_TRUE(WaitForInput(in_.get(), Wait::Forever()).ok());
  EXPECT_EQ(Read(body.size()), body);
  writer.join();
}

TEST_P(StreamTest, EndOfFileTellsHowMuchCame) {
  ASSERT_TRUE(Write("abc").ok());
  out_ = UniqueFd();
  EXPECT_EQ(Read(5), "error: OUT_OF_RANGE: end of file");
  EXPECT_EQ(received_, 3u);
  EXPECT_EQ(Read(5), "error: OUT_OF_RANGE: end of file");
  EXPECT_EQ(received_, 0u);
  EXPECT_TRUE(WaitForInput(in_.get(), Wait::Try()).ok()) << "an end of file is input";
}

TEST_P(StreamTest, WaitsForInputWithADeadline) {
  EXPECT_TRUE(absl::IsDeadlineExceeded(WaitForInput(in_.get(), Wait::Try())));
  const absl::Time start = absl::Now();
  EXPECT_TRUE(absl::IsDeadlineExceeded(WaitForInput(in_.get(), {Deadline::After(absl::Milliseconds(80)), nullptr})));
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(80));
  std::thread writer([&] {
    absl::SleepFor(absl::Milliseconds(20));
    EXPECT_TRUE(Write("x").ok());
  });
  EXPECT_TRUE(WaitForInput(in_.get(), Wait::Forever()).ok());
  EXPECT_EQ(Read(1), "x");
  writer.join();
}

TEST_P(StreamTest, WhatIsThereNeverGivesUpTheInterpreter) {
  if (!GetParam()) GTEST_SKIP() << "a pipe may have other readers and writers";
  Interrupts counting((absl::OkStatus()));
  ASSERT_TRUE(Write("abc", "", {Deadline::Never(), &counting}).ok());
  EXPECT_EQ(Read(3, {Deadline::Never(), &counting}), "abc");
  EXPECT_EQ(counting.begun, 0);
}

TEST_P(StreamTest, ASignalBeforeTheSleepIsSoonAskedFor) {
  Interrupts raising(absl::CancelledError("raised"));
  // As if it had come just before poll(2): nobody wakes the sleeper.
  const absl::Time start = absl::Now();
  EXPECT_NE(Read(1, {Deadline::Never(), &raising}).find("raised"), std::string::npos);
  EXPECT_LT(absl::Now() - start, absl::Seconds(1));
  EXPECT_EQ(raising.begun, raising.ended);
}

TEST_P(StreamTest, ASignalInASleepIsAskedForAtOnceAndTheReadGoesOn) {
  struct sigaction action = {}, before = {};
  action.sa_handler = [](int) {};
  sigaction(SIGUSR1, &action, &before);
  Interrupts patient((absl::OkStatus()));
  std::string read;
  std::thread reader([&] { read = Read(2, {Deadline::Never(), &patient}); });
  absl::SleepFor(absl::Milliseconds(200));
  const int asked = patient.asked.load();
  const absl::Time start = absl::Now();
  while (patient.asked.load() == asked) {
    pthread_kill(reader.native_handle(), SIGUSR1);
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_LT(absl::Now() - start, absl::Milliseconds(80));
  ASSERT_TRUE(Write("ok").ok());
  reader.join();
  EXPECT_EQ(read, "ok");
  sigaction(SIGUSR1, &before, nullptr);
}

TEST_P(StreamTest, ASignalInTheMiddleOfAMessageIsAskedForAndTheWriteGoesOn) {
  struct sigaction action = {}, before = {};
  action.sa_handler = [](int) {};
  sigaction(SIGUSR1, &action, &before);
  const std::string body(4 << 20, 'x');
  Interrupts patient((absl::OkStatus()));
  std::thread writer([&] { EXPECT_TRUE(Write("", body, {Deadline::Never(), &patient}).ok()); });
  while (patient.asked.load() < 2) {  // What fits is written by then, and the rest waits.
    pthread_kill(writer.native_handle(), SIGUSR1);
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_EQ(Read(body.size()), body);
  writer.join();
  sigaction(SIGUSR1, &before, nullptr);
}

TEST_P(StreamTest, BadDescriptorsAreErrors) {
  size_t sent = 0;
  EXPECT_EQ(ErrnoOf(WriteAll(-1, Bytes("a"), {}, Wait::Forever(), &sent)), EBADF);
  std::array<std::byte, 1> one;
  EXPECT_EQ(ErrnoOf(StreamReader(-1, Wait::Forever()).Fill(one)), EBADF);
  EXPECT_EQ(ErrnoOf(WaitForInput(9999, Wait::Forever())), EBADF);
}

INSTANTIATE_TEST_SUITE_P(Kinds, StreamTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Socket" : "Pipe"; });

}  // namespace
}  // namespace pyhost
