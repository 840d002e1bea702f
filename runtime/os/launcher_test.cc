#include "runtime/os/launcher.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "runtime/base/status_util.h"
#include "runtime/os/pidfd.h"
#include "runtime/os/unix_socket.h"

namespace pyhost {
namespace {

#ifdef __SANITIZE_THREAD__
constexpr bool kVforkIsFork = true;
#else
constexpr bool kVforkIsFork = false;
#endif

std::string ReadAll(int fd) {
  std::string text;
  char buffer[256];
  for (ssize_t count; (count = read(fd, buffer, sizeof(buffer))) > 0;) text.append(buffer, static_cast<size_t>(count));
  return text;
}

class LauncherTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    read_end_.reset(ends[0]);
    write_end_.reset(ends[1]);
  }

  LaunchOptions Shell(const std::string& script) {
    LaunchOptions options;
    options.program = "/bin/sh";
    options.arguments = {"sh", "-c", script};
    options.environment = {"PATH=/usr/bin:/bin", "GREETING=hello"};
    options.descriptors = {{write_end_.get(), 1}};
    return options;
  }

  std::string OutputOf(const LaunchOptions& options) {
    absl::StatusOr<pid_t> pid = launcher_->Launch(options);
    EXPECT_TRUE(pid.ok()) << pid.status();
    write_end_.reset();
    std::string text = ReadAll(read_end_.get());
    EXPECT_EQ(waitpid(*pid, nullptr, 0), *pid);
    return text;
  }

  std::unique_ptr<Launcher> launcher_ = NewProcessLauncher();
  UniqueFd read_end_;
  UniqueFd write_end_;
};

TEST_F(LauncherTest, ProgramGetsArgumentsAndEnvironment) { EXPECT_EQ(OutputOf(Shell("echo $GREETING")), "hello\n"); }

TEST_F(LauncherTest, OnlyListedDescriptorsAreInherited) {
  UniqueFd kept(open("/dev/null", O_RDONLY)), leaked(dup(kept.get()));
  LaunchOptions options = Shell("for fd in 50 " + std::to_string(leaked.get()) +
                                "; do test -e /proc/self/fd/$fd && echo open || echo closed; done");
  options.descriptors.push_back({kept.get(), 50});
  EXPECT_EQ(OutputOf(options), "open\nclosed\n");
}

TEST_F(LauncherTest, SwappedNumbersReachTheirPlaces) {
  UniqueFd null(open("/dev/null", O_RDONLY)), zero(open("/dev/zero", O_RDONLY));
  LaunchOptions options = Shell("readlink /proc/self/fd/" + std::to_string(null.get()));
  options.descriptors.push_back({null.get(), zero.get()});
  options.descriptors.push_back({zero.get(), null.get()});
  EXPECT_EQ(OutputOf(options), "/dev/zero\n");
}

TEST_F(LauncherTest, MissingProgramIsNamedAndLeavesNoChild) {
  if (kVforkIsFork) GTEST_SKIP() << "ThreadSanitizer makes a fork of vfork: the child's error stays in its own memory";
  LaunchOptions options = Shell("");
  options.program = "/no/such/program";
  absl::Status status = launcher_->Launch(options).status();
  EXPECT_EQ(ErrnoOf(status), ENOENT);
  EXPECT_NE(status.message().find("/no/such/program"), std::string::npos) << status;
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
}

TEST_F(LauncherTest, LaunchesWhereNoDescriptorIsFree) {
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  UniqueFd lowest_free(dup(0));
  rlimit none = {static_cast<rlim_t>(lowest_free.get()), before.rlim_max};
  lowest_free.reset();
  LaunchOptions options = Shell("exit 7");
  options.descriptors.clear();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  absl::StatusOr<pid_t> pid = launcher_->Launch(options);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_TRUE(pid.ok()) << pid.status();
  int status = 0;
  ASSERT_EQ(waitpid(*pid, &status, 0), *pid);
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

TEST_F(LauncherTest, DetachedProgramIsNoChildAndSendsNoSignal) {
  sigset_t set, pending;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  ASSERT_TRUE(LaunchDetached(*launcher_, Shell("echo done")).ok());
  write_end_.reset();
  EXPECT_EQ(ReadAll(read_end_.get()), "done\n");
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  sigpending(&pending);
  EXPECT_FALSE(sigismember(&pending, SIGCHLD));
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

TEST_F(LauncherTest, DetachedLaunchReportsItsError) {
  if (kVforkIsFork) GTEST_SKIP() << "ThreadSanitizer makes a fork of vfork: the child's error stays in its own memory";
  LaunchOptions options = Shell("");
  options.program = "/no/such/program";
  EXPECT_EQ(ErrnoOf(LaunchDetached(*launcher_, options)), ENOENT);
}

TEST(PidfdTest, ZombieTellsHowItEnded) {
  pid_t pid = fork();
  if (pid == 0) _exit(42);
  absl::StatusOr<UniqueFd> pidfd = OpenPidfd(pid);
  ASSERT_TRUE(pidfd.ok()) << pidfd.status();
  siginfo_t info;
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
  EXPECT_TRUE(PidfdIsReadable(pidfd->get()));
  std::optional<int> status = ZombieWaitStatus(pid);
  ASSERT_TRUE(status.has_value());
  EXPECT_EQ(WEXITSTATUS(*status), 42);
  waitpid(pid, nullptr, 0);
  EXPECT_FALSE(ZombieWaitStatus(pid).has_value());
  EXPECT_EQ(ErrnoOf(OpenPidfd(pid).status()), ESRCH);
  EXPECT_EQ(ErrnoOf(SendSignal(pidfd->get(), 0)), ESRCH);
}

TEST(UnixSocketTest, DatagramsCarryDescriptorsWholeAndInOrder) {
  auto pair = DatagramSocketPair();
  ASSERT_TRUE(pair.ok());
  int numbers[2];
  ASSERT_EQ(pipe(numbers), 0);
  UniqueFd read_end(numbers[0]), write_end(numbers[1]);
  const std::byte bytes[] = {std::byte{1}, std::byte{2}};
  int fd = write_end.get();
  ASSERT_TRUE(SendDatagram(pair->first.get(), bytes, std::span(&fd, 1), Wait::Try()).ok());
  ASSERT_TRUE(SendDatagram(pair->first.get(), std::span(bytes, 1), {}, Wait::Try()).ok());
  std::byte buffer[8];
  auto first = ReceiveDatagram(pair->second.get(), buffer);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(first->size, 2u);
  ASSERT_EQ(first->fds.size(), 1u);
  EXPECT_EQ(write(first->fds[0].get(), "x", 1), 1);
  EXPECT_EQ(ReceiveDatagram(pair->second.get(), buffer)->size, 1u);
  EXPECT_TRUE(ReceiveDatagram(pair->second.get(), buffer)->would_block);
}

TEST(UnixSocketTest, ClosedPeerIsNoticedOnBothSides) {
  auto pair = DatagramSocketPair();
  ASSERT_TRUE(pair.ok());
  EXPECT_FALSE(PeerIsGone(pair->first.get()));
  pair->second.reset();
  EXPECT_TRUE(PeerIsGone(pair->first.get()));
  const std::byte byte[] = {std::byte{1}};
  EXPECT_TRUE(absl::IsUnavailable(SendDatagram(pair->first.get(), byte, {}, Wait::Try())));
  std::byte buffer[8];
  EXPECT_TRUE(ReceiveDatagram(pair->first.get(), buffer)->end_of_file);
}

TEST(UnixSocketTest, FullQueueIsDeadlineExceeded) {
  auto pair = DatagramSocketPair();
  ASSERT_TRUE(pair.ok());
  std::byte bytes[1024] = {};
  absl::Status status;
  for (int i = 0; i < 100'000 && status.ok(); ++i) status = SendDatagram(pair->first.get(), bytes, {}, Wait::Try());
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
}

}  // namespace
}  // namespace pyhost
