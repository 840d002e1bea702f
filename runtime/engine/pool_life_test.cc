// How pools begin and end, and what workers begin with.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include "runtime/engine/engine_session.h"
#include "runtime/engine/fault_file.h"
#include "runtime/engine/lanes.h"
#include "runtime/engine/pool_test_util.h"
#include "runtime/engine/program.h"
#include "runtime/engine/reply_error.h"
#include "runtime/engine/worker_start.h"
#include "runtime/testing/child.h"

namespace pyhost {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

class PoolLifeTest : public PoolTest {
 protected:
  // Returns when another thread has begun to shut the pool down.
  void AwaitShutdown() {
    while (!absl::IsFailedPrecondition(pool().Call<int>("builtins:int").Get(absl::ZeroDuration()).status())) {
    }
  }
};

TEST_F(PoolLifeTest, OrderlyShutdownFinishesWhatWasSubmitted) {
  Script("slow", "import time\ndef nap(): time.sleep(0.1); return 1\n");
  Start({.workers = 1});
  auto first = pool().Call<int>("slow:nap"), second = pool().Call<int>("slow:nap");
  EXPECT_TRUE(pool().Shutdown(absl::Seconds(30)).ok());
  EXPECT_EQ(first.Get().value(), 1);
  EXPECT_EQ(second.Get().value(), 1);
}

TEST_F(PoolLifeTest, CallsAfterShutdownAreRefused) {
  Start({.workers = 1});
  ASSERT_TRUE(pool().Shutdown(absl::Seconds(30)).ok());
  const absl::Status status = Error("builtins:abs");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Text(status), HasSubstr("builtins:abs: the pool was shut down"));
  EXPECT_FALSE(pool().Broadcast<int>("builtins:abs", 1).Get().ok());
  EXPECT_TRUE(pool().Shutdown(absl::Seconds(30)).ok());
  absl::Status seen;
  pool().CallAsync<int>("builtins:abs", [&](absl::StatusOr<int> result) { seen = result.status(); }, 1);
  pool().Poll();
  EXPECT_EQ(seen.code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(PoolLifeTest, OrderlyShutdownReplacesAWorkerThatDiesWhileCallsWait) {
  Script("crash", "import os, time\ndef leave():\n  time.sleep(0.1)\n  os._exit(1)\n");
  Start({.workers = 1});
  auto lost = pool().Call<void>("crash:leave");
  auto waiting = pool().Call<int>("builtins:abs", -5);
  EXPECT_TRUE(pool().Shutdown(absl::Seconds(30)).ok());
  EXPECT_EQ(lost.Get().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(waiting.Get().value(), 5);
}

TEST_F(PoolLifeTest, PoolThatEndsDropsItsCompletions) {
  Script("slow", "import time\ndef hang(): time.sleep(1000)\n");
  auto kept = std::make_shared<int>(1);
  Start({.workers = 1});
  pool().CallAsync<void>("slow:hang", [kept](const absl::Status&) { FAIL(); });
  EndPool();
  EXPECT_EQ(kept.use_count(), 1);
}

TEST_F(PoolLifeTest, PoolMayEndInsideOfACompletion) {
  Start({.workers = 1});
  int ran = 0;
  for (int i = 0; i < 3; ++i) {
    pool().CallAsync<int>("builtins:abs", [&](const absl::StatusOr<int>&) {
      ++ran;
      EndPool();
    }, i);
  }
  ASSERT_TRUE(pool().Call<int>("builtins:abs", 0).Get().ok());  // The others are done: there is one worker.
  EXPECT_EQ(pool().Poll(), 1u);
  EXPECT_EQ(ran, 1);
}

TEST_F(PoolLifeTest, PoolMayBeReplacedInsideOfAnExposedFunction) {
  Script("walk", "from pyhost.engine import call\ndef f(): call('travel')\n");
  Start({.workers = 2});
  bool replaced = false;
  ASSERT_TRUE(pool().Expose("travel", [&] {
    Start({.workers = 1});
    replaced = true;
  }).ok());
  auto first = pool().Call<void>("walk:f"), second = pool().Call<void>("walk:f");
  PollUntil([&] { return replaced; });
  EXPECT_EQ(first.Get().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(second.Get().code(), absl::StatusCode::kCancelled);
  ExpectAlive();
}

TEST_F(PoolLifeTest, PoolMayEndInsideOfAWaitThatServesAnExposedFunction) {
  Script("walk", "from pyhost.engine import call\ndef f(): call('leave')\n");
  Start({.workers = 1});
  ASSERT_TRUE(pool().Expose("leave", [&] { EndPool(); }).ok());
  EXPECT_EQ(pool().Call<void>("walk:f").Get().code(), absl::StatusCode::kCancelled);
}

TEST_F(PoolLifeTest, PoolMayEndWhileItsOutputIsDelivered) {
  Script("say", "def hello(): print('hello')\n");
  bool ended = false;
  Start({.workers = 2, .output = {.to = Output::To::kCallback, .on_output = [&](int, std::string_view) {
    ended = true;
    EndPool();
  }}});
  ASSERT_TRUE(pool().Broadcast<void>("say:hello").Get().ok());
  while (!ended) pool().Poll();
}

TEST_F(PoolLifeTest, CompletionOfACallThatComesAfterThePoolsEndIsDropped) {
  Start({.workers = 1});
  auto kept = std::make_shared<int>(1);
  const Caller late = pool().With({});
  EndPool();
  late.CallAsync<int>("builtins:abs", [kept](const absl::StatusOr<int>&) { FAIL(); }, 1);
  EXPECT_EQ(kept.use_count(), 1);
}

TEST_F(PoolLifeTest, CallsOfAPoolThatWasMovedAwayAreErrors) {
  Start({.workers = 1});
  const WorkerPool taken = std::move(pool());
  EXPECT_EQ(taken.Call<int>("builtins:abs", -1).Get().value(), 1);
  constexpr auto kExpected = absl::StatusCode::kFailedPrecondition;
  EXPECT_EQ(Error("builtins:abs").code(), kExpected);
  EXPECT_EQ(pool().Map<int>("builtins:abs", std::vector<int>{1}).Get().status().code(), kExpected);
  EXPECT_EQ(pool().Broadcast<int>("builtins:abs", 1).Get().status().code(), kExpected);
  EXPECT_EQ(pool().With({}).Call<int>("builtins:abs", 1).Get().status().code(), kExpected);
  EXPECT_EQ(pool().Expose("f", [] {}).code(), kExpected);
  EXPECT_EQ(pool().Allocate<float>({1}).status().code(), kExpected);
  EXPECT_EQ(pool().Shutdown(absl::ZeroDuration()).code(), kExpected);
  absl::Status seen;
  pool().CallAsync<int>("builtins:abs", [&](const absl::StatusOr<int>& result) { seen = result.status(); }, 1);
  EXPECT_EQ(seen.code(), kExpected);
  EXPECT_EQ(pool().Poll(), 0u);
  EXPECT_TRUE(pool().Stats().workers.empty());
}

TEST_F(PoolLifeTest, ForkOfTheEngineLeavesItsWorkersAlone) {
  Start({.workers = 1});
  auto future = pool().Call<int>("builtins:abs", -4);
  EXPECT_EQ(testing::RunInChild([&] {
    EXPECT_EQ(Error("builtins:abs").code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(future.Get().status().code(), absl::StatusCode::kFailedPrecondition);
    EndPool();
  }), testing::Exited(0));
  EXPECT_EQ(future.Get().value(), 4);
  ExpectAlive();
  EXPECT_EQ(pool().Stats().replaced, 0u);
}

TEST_F(PoolLifeTest, ForkOfTheEngineTakesNoReplies) {
  Start({.workers = 1});
  int value = 0;
  auto future = pool().Call<int>("builtins:abs", -4);
  pool().CallAsync<int>("builtins:abs", [&](absl::StatusOr<int> result) { value = result.value(); }, -5);
  while (pool().Stats().workers[0].calls < 2) pool().Flush();  // Both replies are there, and nobody took them in.
  EXPECT_EQ(testing::RunInChild([&] {
    EXPECT_EQ(pool().Poll(), 0u);
    EXPECT_TRUE(future.Ready());  // Get() fails at once.
    EXPECT_FALSE(future.Cancel());
    EXPECT_EQ(pool().Allocate<float>({1}).status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(pool().Expose("f", [] {}).code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(pool().Stats().workers.empty());
    EndPool();
  }), testing::Exited(0));
  PollUntil([&] { return value == 5; });
  EXPECT_EQ(future.Get().value(), 4);
}

TEST_F(PoolLifeTest, ScriptsMayUseMultiprocessing) {
  Script("many", "import multiprocessing\ndef square(x): return x * x\n"
                 "def squares():\n  with multiprocessing.Pool(2) as pool: return pool.map(square, range(5))\n");
  Start({.workers = 1});
  EXPECT_EQ(pool().Call<std::vector<int>>("many:squares").Get().value(), (std::vector<int>{0, 1, 4, 9, 16}));
}

TEST_F(PoolLifeTest, ShutdownWhosePatienceEndsKillsAndSaysSo) {
  Script("slow", "import time\ndef hang(): time.sleep(1000)\n");
  Start({.workers = 2});
  auto call = pool().Call<void>("slow:hang");
  EXPECT_EQ(pool().Shutdown(absl::Milliseconds(50)).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(call.Get().code(), absl::StatusCode::kCancelled);
}

TEST_F(PoolLifeTest, ImmediateShutdownCancelsWhatIsRunning) {
  Script("slow", "import time\ndef hang(): time.sleep(1000)\n");
  Start({.workers = 2});
  auto call = pool().Call<void>("slow:hang");
  EXPECT_TRUE(pool().Shutdown(absl::ZeroDuration()).ok());
  EXPECT_EQ(call.Get().code(), absl::StatusCode::kCancelled);
}

TEST_F(PoolLifeTest, ThreadsMayShutDownTogether) {
  Script("slow", "import time\ndef nap(): time.sleep(0.1); return 1\n");
  for (absl::Duration patience : {absl::Seconds(30), absl::ZeroDuration()}) {
    Start({.workers = 2});
    auto call = pool().Call<int>("slow:nap");
    std::array<absl::Status, 4> said;
    std::latch begin(said.size());
    std::vector<std::thread> threads;
    for (absl::Status& status : said) {
      threads.emplace_back([&] {
        begin.arrive_and_wait();
        status = pool().Shutdown(patience);
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_THAT(said, Each(absl::OkStatus()));
    EXPECT_EQ(call.Get().ok(), patience > absl::ZeroDuration());
  }
}

TEST_F(PoolLifeTest, ShutdownThatWaitsIsToldWhenAnotherEndsThePool) {
  Script("slow", "import time\ndef hang(): time.sleep(1000)\n");
  Start({.workers = 1});
  auto call = pool().Call<void>("slow:hang");
  absl::Status waited;
  std::thread waits([&] { waited = pool().Shutdown(absl::InfiniteDuration()); });
  AwaitShutdown();
  EXPECT_TRUE(pool().Shutdown(absl::ZeroDuration()).ok());
  waits.join();
  EXPECT_EQ(waited.code(), absl::StatusCode::kCancelled) << waited;
  EXPECT_EQ(call.Get().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(pool().Shutdown(absl::InfiniteDuration()).ok());  // There is nothing to wait for.
}

TEST_F(PoolLifeTest, PoolMayEndInsideOfACompletionWhileAnotherThreadShutsItDown) {
  Script("slow", "import time\ndef hang(): time.sleep(1000)\n");
  Start({.workers = 2});
  auto call = pool().Call<void>("slow:hang");
  bool ended = false;
  pool().CallAsync<int>("builtins:abs", [&](const absl::StatusOr<int>&) {
    AwaitShutdown();
    EndPool();
    ended = true;
  }, 1);
  absl::Status waited;
  std::thread waits([&] { waited = pool().Shutdown(absl::InfiniteDuration()); });
  while (!ended) pool().Poll();
  waits.join();
  EXPECT_EQ(waited.code(), absl::StatusCode::kCancelled) << waited;
  EXPECT_EQ(call.Get().code(), absl::StatusCode::kCancelled);
}

TEST_F(PoolLifeTest, FutureOutlivesItsPool) {
  Script("slow", "import time\ndef hang(): time.sleep(1000)\n");
  Start({.workers = 1});
  auto call = pool().Call<void>("slow:hang");
  EndPool();
  EXPECT_EQ(call.Get().code(), absl::StatusCode::kCancelled);
}

TEST_F(PoolLifeTest, SeveralPoolsLiveSideBySide) {
  Start({.workers = 1});
  auto other = WorkerPool::Start({.workers = 1, .startup_code = "import builtins; builtins.mark = lambda: 7"});
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(other->Call<int>("builtins:mark").Get().value(), 7);
  EXPECT_EQ(Error("builtins:mark").code(), absl::StatusCode::kNotFound);
}

// ---- What workers begin with --------------------------------------------------------------------------------------

TEST_F(PoolLifeTest, StartUpCodeAndPreloadsRunInEveryWorkerBeforeItsFirstCall) {
  Script("state", "import sys\nvalue = 1\ndef get(): return value\n");
  Start({.workers = 2, .preload = {"state"}, .startup_code = "import state\nstate.value += 41\n"});
  EXPECT_THAT(AllValues(pool().Broadcast<int>("state:get").Get()), ::testing::ElementsAre(42, 42));
}

TEST_F(PoolLifeTest, EnvironmentAndWorkingDirectoryAreTheWorkers) {
  Script("where", "import os\ndef env(name): return os.environ.get(name)\ndef cwd(): return os.getcwd()\n");
  setenv("PYHOST_TEST_ENGINE", "mine", 1);
  setenv("PYHOST_TEST_REMOVED", "x", 1);
  Start({.workers = 1,
         .environment = {{"PYHOST_TEST_ADDED", "żółw"}, {"PYHOST_TEST_REMOVED", ""}},
         .working_directory = scripts()});
  using Text = std::optional<std::string>;
  EXPECT_EQ(pool().Call<Text>("where:env", "PYHOST_TEST_ENGINE").Get().value(), "mine");
  EXPECT_EQ(pool().Call<Text>("where:env", "PYHOST_TEST_ADDED").Get().value(), "żółw");
  EXPECT_EQ(pool().Call<Text>("where:env", "PYHOST_TEST_REMOVED").Get().value(), std::nullopt);
  EXPECT_EQ(pool().Call<std::string>("where:cwd").Get().value(), scripts());
}

TEST_F(PoolLifeTest, VirtualEnvironmentsPackagesAreSeen) {
  const std::string environment = scripts() + "/venv";
  const auto program = FindProgram("");
  ASSERT_TRUE(program.ok());
  ASSERT_EQ(std::system((*program + " -m venv --without-pip " + environment).c_str()), 0);
  Script("prefix", "import sys\ndef prefix(): return sys.prefix\n");
  Start({.workers = 1, .virtual_env = environment});
  EXPECT_EQ(pool().Call<std::string>("prefix:prefix").Get().value(), environment);
}

// ---- What keeps a pool from beginning -------------------------------------------------------------------------------

TEST_F(PoolLifeTest, StartFailsWithWhatTheStartUpCodeRaised) {
  const auto pool = WorkerPool::Start({.workers = 2, .startup_code = "import nothing_of_that_name"});
  EXPECT_THAT(Text(pool.status()), HasSubstr("a worker could not begin: ModuleNotFoundError: No module named "
                                             "'nothing_of_that_name'"));
  EXPECT_THAT(Text(pool.status()), HasSubstr("<start-up code>"));
}

TEST_F(PoolLifeTest, StartUpCodeThatCrashesMakesThePoolGiveUp) {
  const auto pool = WorkerPool::Start({.workers = 1, .startup_code = "import os; os._exit(5)"});
  EXPECT_EQ(pool.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Text(pool.status()), HasSubstr("exited with code 5"));
}

TEST_F(PoolLifeTest, StartUpCodeThatHangsIsATimeOut) {
  const auto pool = WorkerPool::Start(
      {.workers = 1, .startup_code = "import time; time.sleep(1000)", .start_timeout = absl::Milliseconds(300)});
  EXPECT_EQ(pool.status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(PoolLifeTest, OptionsThatMakeNoSenseAreNamed) {
  EXPECT_EQ(WorkerPool::Start({.workers = -1}).status().code(), absl::StatusCode::kInvalidArgument);
  const auto nowhere = WorkerPool::Start({.workers = 1, .working_directory = "/nowhere/at/all"});
  EXPECT_THAT(Text(nowhere.status()), HasSubstr("working directory '/nowhere/at/all': No such file or directory"));
  const auto no_environment = WorkerPool::Start({.workers = 1, .virtual_env = "/nowhere"});
  EXPECT_EQ(no_environment.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Text(no_environment.status()), HasSubstr("Options::virtual_env '/nowhere' is no virtual environment"));
  const auto no_name = WorkerPool::Start({.workers = 1, .environment = {{"A=B", "x"}}});
  EXPECT_THAT(Text(no_name.status()), HasSubstr("Options::environment: 'A=B' is no name of a variable"));
  const auto silent = WorkerPool::Start({.workers = 1, .output = {.to = Output::To::kCallback}});
  EXPECT_EQ(silent.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(PoolLifeTest, MissingProgramIsNamed) {
  Options options;
  options.program = "/nowhere/pyhost";
  const auto pool = WorkerPool::Start(options);
  EXPECT_EQ(pool.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Text(pool.status()), HasSubstr("Options::program names '/nowhere/pyhost'"));
  const char* before = getenv("PYHOST_PROGRAM");
  const std::optional<std::string> kept = before == nullptr ? std::nullopt : std::optional<std::string>(before);
  setenv("PYHOST_PROGRAM", "/nowhere/else", 1);
  EXPECT_THAT(Text(WorkerPool::Start().status()), HasSubstr("PYHOST_PROGRAM names '/nowhere/else'"));
  unsetenv("PYHOST_PROGRAM");
  if (kept) setenv("PYHOST_PROGRAM", kept->c_str(), 1);
}

TEST_F(PoolLifeTest, ProgramThatIsNotPyhostIsNamed) {
  Options options;
  options.workers = 1;
  options.program = "/bin/true";
  const auto pool = WorkerPool::Start(options);
  EXPECT_EQ(pool.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Text(pool.status()), HasSubstr("'/bin/true' did not come up as pyhost " + EngineVersion()));
  // Of a process's first pool it was to be the supervisor too.
  EXPECT_THAT(Text(pool.status()), ::testing::AnyOf(HasSubstr("the program '/bin/true' is not pyhost"),
                                                    HasSubstr("exited with code 0 before it could start anything")));
}

TEST_F(PoolLifeTest, ErrorsOfTheOptionsDoNotBlameTheProgram) {
  const std::string path = "/nowhere/at/all";
  for (const Options& options : {Options{.workers = 1, .working_directory = path},
                                 Options{.workers = 1, .output = {.to = Output::To::kFile, .path = path}},
                                 Options{.workers = 1, .output = {.to = Output::To::kCallback}},
                                 Options{.workers = 1'000'000}}) {
    const absl::Status status = WorkerPool::Start(options).status();
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(Text(status), ::testing::Not(HasSubstr("did not come up"))) << status;
  }
}

// Notes what workers report.
class Reports final : public NoticeSink {
 public:
  void OnNotice(Message notice) override {
    const absl::StatusOr<ReplyView> view = ParseReply(notice.payload());
    if (view.ok() && view->kind == ReplyKind::kReport) status = ExceptionStatus("worker", view->outcome);
  }
  absl::Status status;
};

TEST_F(PoolLifeTest, LibraryOfAnotherVersionIsRefusedByTheProgram) {
  Options options;
  options.program = FindProgram("").value();
  Session* session = EnsureEngineSession(options.program, 0).value();
  auto client = CallClient::Create(session->segment(), session->me()).value();
  Reports reports;
  client->SetNoticeSink(&reports);
  auto lanes = Lanes::Create(session->segment(), *client, 1).value();
  auto faults = FaultFile::Create().value();
  auto starter = WorkerStarter::Create(session, options, "0.0.1").value();
  const WorkerSeat seat{.lanes = lanes->HandlesFor(0), .wait_at = Lanes::kWaitAt, .faults = faults->fd()};
  auto worker = starter->Start(seat, {Deadline::After(absl::Seconds(30)), nullptr}).value();
  EXPECT_TRUE(worker->Wait(Wait::Forever()).ok());
  client->Drain(Wait::Try()).IgnoreError();
  EXPECT_EQ(reports.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Text(reports.status), HasSubstr("the library that the engine is linked with is pyhost 0.0.1, and the program " +
                                              options.program + " is pyhost " + EngineVersion()));
}

}  // namespace
}  // namespace pyhost
