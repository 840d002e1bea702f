// What a script can do wrong costs its call an error, and the engine nothing.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "runtime/engine/pool_test_util.h"

namespace pyhost {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

class IsolationTest : public PoolTest {
 protected:
  // The call ends as Aborted, its error says `how` and what it ran, and the pool goes on.
  void ExpectLost(const std::string& function, const std::string& how) {
    const absl::Status status = Error(function);
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
    EXPECT_THAT(Text(status), HasSubstr(function));
    EXPECT_THAT(Text(status), HasSubstr(how));
    ExpectAlive();
  }
};

TEST_F(IsolationTest, SegmentationFaultSaysWhereInTheScriptItWas) {
  Script("crash", "import ctypes\ndef fault():\n  ctypes.string_at(0)\n");
  Start({.workers = 1});
  ExpectLost("crash:fault", "killed by SIGSEGV");
  EXPECT_THAT(Text(Error("crash:fault")), HasSubstr("crash.py\", line 3 in fault"));
}

TEST_F(IsolationTest, ExitsEndTheCallOnly) {
  Script("leave", "import os, sys\ndef hard(): os._exit(3)\ndef soft(): sys.exit('bye')\ndef stop(): raise KeyboardInterrupt\n");
  Start({.workers = 1});
  ExpectLost("leave:hard", "exited with code 3");
  ExpectLost("leave:soft", "the script called sys.exit('bye')");
  EXPECT_FALSE(Error("leave:stop").ok());
  ExpectAlive();
  EXPECT_EQ(pool().Stats().replaced, 1u);
}

TEST_F(IsolationTest, ExceptionThatCannotBeDescribedIsAnErrorAllTheSame) {
  Script("vague", "import os\nfrom pyhost.engine import EngineError\n"
                  "class NoCode(EngineError):\n  code = property(lambda self: 1 / 0, lambda self, code: None)\n"
                  "class NoText(Exception):\n  def __str__(self): raise SystemExit(4)\n"
                  "class NoBytes(str):\n  def encode(self, *rest): raise ValueError\n"
                  "class Worse(Exception):\n  def __str__(self): return NoBytes()\n"
                  "def no_code(): raise NoCode('no good')\ndef no_text(): raise NoText\ndef worse(): raise Worse\n");
  Start({.workers = 1});
  EXPECT_THAT(Text(Error("vague:no_code")), HasSubstr("vague.NoCode: no good"));
  EXPECT_THAT(Text(Error("vague:no_text")), HasSubstr("vague.NoText: <cannot be had: SystemExit>"));
  EXPECT_EQ(pool().Stats().replaced, 0u);
  ExpectLost("vague:worse", "exited with code 1");
}

TEST_F(IsolationTest, KillOfTheProcessGroupReachesTheWorkerAlone) {
  Script("group", "import os, signal\ndef kill(): os.killpg(0, signal.SIGKILL)\ndef kill0(): os.kill(0, signal.SIGTERM)\n");
  Start({.workers = 2});
  ExpectLost("group:kill", "killed by SIGKILL");
  ExpectLost("group:kill0", "killed by SIGTERM");
  PollUntil([&] { return pool().Stats().workers.size() == 2; });
}

TEST_F(IsolationTest, DeadlineEndsWhatTheWorkerStartedToo) {
  Script("family", "import subprocess\ndef hang(path):\n  child = subprocess.Popen(['sleep', '1000'])\n"
                   "  with open(path, 'w') as file: file.write(str(child.pid))\n  child.wait()\n");
  Start({.workers = 1});
  const std::string path = scripts() + "/pid";
  const absl::Status status = pool().With({.deadline = absl::Seconds(2)}).Call<void>("family:hang", path).Get();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  pid_t child = 0;
  std::ifstream(path) >> child;
  ASSERT_GT(child, 0);
  PollUntil([&] { return kill(child, 0) != 0; });
  ExpectAlive();
}

TEST_F(IsolationTest, ProcessThatAScriptForkedServesNoCalls) {
  Script("double", "import os\npids = []\ndef fork():\n  pids.append(os.fork())\n"
                   "def fail():\n  pids.append(os.fork())\n  raise ValueError('no good')\n"
                   "def leave():\n  pids.append(os.fork())\n  raise SystemExit(3)\n"
                   "def ends(): return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]\n"
                   "def pid(): return os.getpid()\n");
  Start({.workers = 1});
  const int worker = pool().Call<int>("double:pid").Get().value();
  EXPECT_TRUE(Error("double:fork").ok());
  EXPECT_THAT(Text(Error("double:fail")), HasSubstr("ValueError: no good"));
  EXPECT_THAT(Text(Error("double:leave")), HasSubstr("sys.exit(3)"));
  EXPECT_EQ(pool().Call<std::vector<int>>("double:ends").Get().value(), (std::vector<int>{0, 0, 0}));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(pool().Call<int>("double:pid").Get().value(), worker);
}

TEST_F(IsolationTest, MemoryBeyondTheLimitIsAMemoryErrorOfTheCall) {
  Script("greedy", "def eat():\n  hoard = []\n  while True: hoard.append(bytearray(1 << 20))\n");
  Start({.workers = 1, .worker_memory_limit = 256 << 20});
  EXPECT_EQ(Error("greedy:eat").code(), absl::StatusCode::kResourceExhausted);
  ExpectAlive();
  EXPECT_EQ(pool().Stats().replaced, 0u);
}

TEST_F(IsolationTest, FloodOfOutputStopsNobodyAndTheNewestIsKept) {
  Script("flood", "def flood():\n  for i in range(100000): print('a line of some length, so that it soon is much', i)\n");
  std::string output;
  Start({.workers = 1,
         .output = {.to = Output::To::kCallback,
                    .on_output = [&](int worker, std::string_view text) { output.append(worker == 0 ? text : "?"); }}});
  ASSERT_TRUE(Error("flood:flood").ok());  // Nobody polls meanwhile.
  PollUntil([&] { return output.ends_with(" 99999\n"); });
  EXPECT_THAT(output, HasSubstr(" bytes of output dropped]\n"));
  EXPECT_LE(output.size(), size_t{2} << 20);
}

TEST_F(IsolationTest, OutputOfAWorkerThatCrashesIsDelivered) {
  Script("last", "import os\ndef words():\n  print('last words')\n  os._exit(1)\n");
  std::string output;
  Start({.workers = 1, .output = {.to = Output::To::kCallback, .on_output = [&](int, std::string_view text) {
    output.append(text);
  }}});
  EXPECT_FALSE(Error("last:words").ok());
  PollUntil([&] { return output == "last words\n"; });
}

TEST_F(IsolationTest, OutputGoesToAFile) {
  Script("say", "import sys\ndef hello():\n  print('hello')\n  print('oops', file=sys.stderr)\n");
  const std::string path = scripts() + "/log.txt";
  Start({.workers = 1, .output = {.to = Output::To::kFile, .path = path}});
  ASSERT_TRUE(Error("say:hello").ok());
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_EQ(text.str(), "hello\noops\n");
}

TEST_F(IsolationTest, WorkersReadNoInputOfTheEngines) {
  Script("ask", "def ask(): return input()\n");
  Start({.workers = 1});
  EXPECT_THAT(Text(Error("ask:ask")), HasSubstr("EOFError"));
}

TEST_F(IsolationTest, PoolGivesUpWhenWorkersDieWithoutAnAnswer) {
  Script("crash", "import os\ndef leave(): os._exit(9)\n");
  Start({.workers = 1, .restarts = {.deaths = 3, .period = absl::Seconds(60)}});
  // A call that took its worker along is answered by that.
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Error("crash:leave").code(), absl::StatusCode::kAborted);
  ExpectAlive();
}

TEST_F(IsolationTest, PoolWhoseReplacementsCannotBeginGivesUpAndSaysWhy) {
  Script("crash", "import os\ndef leave(): os._exit(9)\n");
  Script("first", "import os\nmarker = __file__ + '.began'\n"
                  "if os.path.exists(marker): os._exit(7)\nopen(marker, 'w').close()\n");
  Start({.workers = 1, .preload = {"first"}, .restarts = {.deaths = 3, .period = absl::Seconds(60)}});
  EXPECT_EQ(Error("crash:leave").code(), absl::StatusCode::kAborted);
  const absl::Status status = Error("crash:leave");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Text(status), HasSubstr("the pool gave up: 3 workers ended, or could not be started, within 1m and no call was "
                                      "answered meanwhile; the last: "));
  EXPECT_THAT(Text(status), HasSubstr("exited with code 7"));
}

// While it lives, RLIMIT_NOFILE is that.
class LimitedDescriptors {
 public:
  explicit LimitedDescriptors(rlim_t most) {
    getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit limit = {most, before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  ~LimitedDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }
  LimitedDescriptors(const LimitedDescriptors&) = delete;
  LimitedDescriptors& operator=(const LimitedDescriptors&) = delete;

 private:
  rlimit before_ = {};
};

// While it lives, the process can open no descriptor.
class NoDescriptors {
 public:
  NoDescriptors() {
    for (int fd = dup(0); fd >= 0; fd = dup(0)) taken_.push_back(fd);
  }
  ~NoDescriptors() {
    for (int fd : taken_) close(fd);
  }

 private:
  LimitedDescriptors few_{32};
  std::vector<int> taken_;
};

// Of all threads of this process.
double ProcessorSeconds() {
  constexpr double kClocksPerSecond = CLOCKS_PER_SEC;
  return static_cast<double>(std::clock()) / kClocksPerSecond;
}

TEST_F(IsolationTest, WorkerThatCannotBeReplacedForAMomentIsReplacedThen) {
  Script("crash", "import os\ndef leave(): os._exit(9)\n");
  Start({.workers = 1, .restarts = {.deaths = 1000, .period = absl::Seconds(60)}});
  auto no_descriptors = std::make_unique<NoDescriptors>();
  auto lost = pool().Call<void>("crash:leave");
  auto waiting = pool().Call<int>("builtins:abs", -5);
  EXPECT_EQ(lost.Get().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(waiting.Get(absl::Milliseconds(200)).status().code(), absl::StatusCode::kDeadlineExceeded);
  no_descriptors.reset();
  EXPECT_EQ(waiting.Get().value(), 5);
}

TEST_F(IsolationTest, PoolWhoseWorkersCannotBeReplacedGivesUpAndNamesTheCause) {
  Script("crash", "import os\ndef leave(): os._exit(9)\n");
  Start({.workers = 1, .restarts = {.deaths = 4, .period = absl::Seconds(60)}});
  const NoDescriptors no_descriptors;
  auto lost = pool().Call<void>("crash:leave");
  auto waiting = pool().Call<int>("builtins:abs", -5);
  EXPECT_EQ(lost.Get().code(), absl::StatusCode::kAborted);
  const absl::Status status = waiting.Get().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Text(status), HasSubstr("worker 0 could not be started: "));
  EXPECT_THAT(Text(status), HasSubstr("Too many open files"));
}

TEST_F(IsolationTest, BroadcastToAWorkerThatCannotBeReplacedFailsWithThePool) {
  Script("crash", "import os\ndef leave(): os._exit(9)\n");
  Script("first", "import os\nmarker = __file__ + '.began'\n"
                  "if os.path.exists(marker): os._exit(7)\nopen(marker, 'w').close()\n");
  Start({.workers = 1, .preload = {"first"}, .restarts = {.deaths = 3, .period = absl::Seconds(60)}});
  EXPECT_EQ(Error("crash:leave").code(), absl::StatusCode::kAborted);
  const auto results = pool().Broadcast<int>("builtins:int").Get();
  ASSERT_TRUE(results.ok()) << results.status();
  ASSERT_EQ(results->size(), 1u);
  EXPECT_EQ(results->front().status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(IsolationTest, ForkServerThatHangsDoesNotKeepThePoolFromEnding) {
  Script("leave", "import os\ndef server(): return os.getppid()\ndef now(): os._exit(9)\n");
  Start({.workers = 1, .restarts = {.deaths = 1000, .period = absl::Seconds(60)}});
  const pid_t server = pool().Call<int>("leave:server").Get().value();
  ASSERT_EQ(kill(server, SIGSTOP), 0);
  EXPECT_THAT(Text(Error("leave:now")), HasSubstr("exited with code 9"));
  const absl::Time begin = absl::Now();
  EXPECT_TRUE(pool().Shutdown(absl::ZeroDuration()).ok());
  EXPECT_LT(absl::Now() - begin, absl::Seconds(20));  // A start may take 30.
  EXPECT_EQ(kill(server, SIGCONT), 0);
}

TEST_F(IsolationTest, LowDescriptorsAreTheEngines) {
  const int lowest = dup(0);
  close(lowest);
  Start({.workers = 2});
  ExpectAlive();
  const int still_lowest = dup(0);
  close(still_lowest);
  EXPECT_EQ(still_lowest, lowest);
}

// poll() refuses more descriptors than the limit allows.
TEST_F(IsolationTest, LimitOfDescriptorsThatTheEngineLowersLeavesThePoolAsItIs) {
  Script("late", "import os, time\ndef hang(): time.sleep(1000)\ndef say(): print('hello')\ndef leave(): os._exit(9)\n");
  std::string output;
  Start({.workers = 3,
         .restarts = {.deaths = 1000},
         .output = {.to = Output::To::kCallback, .on_output = [&](int, std::string_view text) { output.append(text); }}});
  const LimitedDescriptors few(2);
  const absl::Time begin = absl::Now();
  const double used = ProcessorSeconds();
  EXPECT_EQ(pool().With({.deadline = absl::Milliseconds(300)}).Call<void>("late:hang").Get().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_LT(ProcessorSeconds() - used, 0.5 * absl::ToDoubleSeconds(absl::Now() - begin));
  ASSERT_TRUE(Error("late:say").ok());
  PollUntil([&] { return output == "hello\n"; });
  EXPECT_THAT(Text(Error("late:leave")), HasSubstr("exited with code 9"));
  EXPECT_TRUE(pool().Shutdown(absl::Seconds(30)).ok());
}

// ---- The engine's own process ---------------------------------------------------------------------------------

volatile sig_atomic_t child_signals = 0;

TEST_F(IsolationTest, EngineHasNoChildrenAndGetsNoSigchld) {
  child_signals = 0;
  struct sigaction action = {}, before = {};
  action.sa_handler = [](int) { child_signals = child_signals + 1; };
  sigaction(SIGCHLD, &action, &before);
  Script("crash", "import os\ndef leave(): os._exit(9)\n");
  Start({.workers = 2});
  EXPECT_FALSE(Error("crash:leave").ok());
  ExpectAlive();
  int status = 0;
  EXPECT_EQ(waitpid(-1, &status, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
  EXPECT_EQ(waitpid(-1, &status, WNOHANG | __WALL), -1);
  EXPECT_EQ(child_signals, 0);
  sigaction(SIGCHLD, &before, nullptr);
}

TEST_F(IsolationTest, EngineMayIgnoreSigchldAndEverybodyElseCanStillWait) {
  auto before = signal(SIGCHLD, SIG_IGN);
  Script("run", "import os, subprocess\ndef code(): return subprocess.run(['false']).returncode\ndef leave(): os._exit(9)\n");
  Start({.workers = 1});
  EXPECT_EQ(pool().Call<int>("run:code").Get().value(), 1);
  EXPECT_THAT(Text(Error("run:leave")), HasSubstr("exited with code 9"));
  signal(SIGCHLD, before);
}

TEST_F(IsolationTest, DescriptorsOfTheEngineAreNotInherited) {
  Script("fds", "import os\ndef names(): return sorted(os.readlink(f'/proc/self/fd/{f}') for f in os.listdir('/proc/self/fd')\n"
                "  if os.path.exists(f'/proc/self/fd/{f}'))\n");
  const std::string path = scripts() + "/private.txt";
  std::ofstream open_file(path);
  Start({.workers = 1});
  const auto names = pool().Call<std::vector<std::string>>("fds:names").Get();
  ASSERT_TRUE(names.ok()) << names.status();
  EXPECT_THAT(*names, ::testing::Not(::testing::Contains(path)));
}

}  // namespace
}  // namespace pyhost
