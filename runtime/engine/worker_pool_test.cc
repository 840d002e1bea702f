// Whole pools: this program is an engine, its workers are pyhost.  What a call is, how it ends, how a pool lives.

#include "pyhost/worker_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/engine/pool_test_util.h"

namespace pyhost {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using CallTest = PoolTest;

TEST_F(CallTest, GivesWhatTheFunctionReturns) {
  Script("sums", "def add(a, b): return a + b\n");
  Start({.workers = 1});
  EXPECT_EQ(pool().Call<int>("sums:add", 1, 2).Get().value(), 3);
  EXPECT_EQ(pool().Call<double>("sums:add", 0.5, 2).Get().value(), 2.5);
  EXPECT_EQ(pool().Call<std::string>("sums:add", "a", "b").Get().value(), "ab");
}

TEST_F(CallTest, FindsMethodsAndModulesInPackages) {
  Start({.workers = 1});
  EXPECT_EQ(pool().Call<std::string>("os.path:join", "a", "b").Get().value(), "a/b");
  EXPECT_EQ(pool().Call<std::string>("builtins:str.upper", "loud").Get().value(), "LOUD");
}

TEST_F(CallTest, ValuesOfManyTypesComeBackAsTheyWere) {
  Script("same", "def same(*args): return args\n");
  Start({.workers = 1});
  using Everything = std::tuple<bool, int64_t, double, std::string, std::vector<int>, std::map<std::string, double>,
                                std::optional<int>>;
  const Everything all = {true, -7, 0.25, "żółw", {1, 2, 3}, {{"hp", 1.5}}, std::nullopt};
  auto back = std::apply([&](const auto&... parts) { return pool().Call<Everything>("same:same", parts...); }, all);
  EXPECT_EQ(back.Get().value(), all);
}

TEST_F(CallTest, LargeValuesComeBack) {
  Script("same", "def same(text): return text\n");
  Start({.workers = 1});
  const std::string large(5'000'000, 'x');
  EXPECT_EQ(pool().Call<std::string>("same:same", large).Get().value(), large);
}

TEST_F(CallTest, ExceptionIsAnErrorWithItsTracebackAndTheWorkerGoesOn) {
  Script("bad", "def fail(): raise ValueError('no good')\n");
  Start({.workers = 1});
  const absl::Status status = Error("bad:fail");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnknown);
  EXPECT_THAT(Text(status), HasSubstr("bad:fail: ValueError: no good\nTraceback"));
  EXPECT_THAT(Text(status), HasSubstr("bad.py\", line 1, in fail"));
  ExpectAlive();
}

TEST_F(CallTest, WhatIsNotThereIsNotFoundAndSaysWhereItWasSearched) {
  Script("empty", "x = 1\n");
  Start({.workers = 1});
  absl::Status status = Error("nowhere:f");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Text(status), HasSubstr("no module named 'nowhere', wanted for 'nowhere:f'; searched: " + scripts()));
  status = Error("empty:f");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Text(status), HasSubstr("module 'empty' (" + scripts() + "/empty.py) has no function 'f'; searched: "));
  EXPECT_EQ(Error("empty:x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Error("empty").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Error(".empty:x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Error("").code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(CallTest, ModuleThatImportsAMissingOneIsAnErrorOfTheScript) {
  Script("needs", "import nothing_of_that_name\ndef f(): pass\n");
  Start({.workers = 1});
  const absl::Status status = Error("needs:f");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnknown);
  EXPECT_THAT(Text(status), HasSubstr("ModuleNotFoundError: No module named 'nothing_of_that_name'"));
}

TEST_F(CallTest, WrongArgumentCountHasPythonsOwnMessage) {
  Script("sums", "def add(a, b): return a + b\n");
  Start({.workers = 1});
  const absl::Status status = Error("sums:add");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Text(status), HasSubstr("add() missing 2 required positional arguments: 'a' and 'b'"));
}

TEST_F(CallTest, ResultOfAnotherShapeSaysExpectedAndGot) {
  Script("bad", "def text(): return 'seven'\n");
  Start({.workers = 1});
  const absl::Status status = pool().Call<int>("bad:text").Get().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Text(status), "bad:text: expected an integer, got str \"seven\"");
}

TEST_F(CallTest, ArgumentThatCannotBeSentIsAnErrorOfThatCall) {
  Start({.workers = 1});
  const absl::Status status = pool().Call<void>("builtins:len", std::string("\xff\xff")).Get();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  ExpectAlive();
}

TEST_F(CallTest, ResultThatCannotBePickledIsAnErrorOfThatCall) {
  Script("bad", "def f(): return lambda: 1\n");
  Start({.workers = 1});
  const absl::Status status = pool().Call<void>("bad:f").Get();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Text(status), HasSubstr("bad:f: the result, of type function, cannot be passed to the engine: "));
  ExpectAlive();
}

TEST_F(CallTest, OutcomeIsGotOnce) {
  Start({.workers = 1});
  auto future = pool().Call<int>("builtins:abs", -1);
  EXPECT_TRUE(future.Get().ok());
  EXPECT_EQ(future.Get().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(CallTest, GetThatIsNotInTimeCanBeAskedAgain) {
  Script("slow", "import time\ndef nap(): time.sleep(0.1); return 5\n");
  Start({.workers = 1});
  auto future = pool().Call<int>("slow:nap");
  EXPECT_EQ(future.Get(absl::Milliseconds(1)).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(future.Get().value(), 5);
}

TEST_F(CallTest, ArrayIsTheSameMemoryOnBothSides) {
  Script("arrays", "def double(a):\n  for i in range(len(a)): a[i] *= 2\n  return len(a)\n");
  Start({.workers = 1});
  auto array = pool().Allocate<float>({1000});
  ASSERT_TRUE(array.ok()) << array.status();
  for (size_t i = 0; i < 1000; ++i) (*array)[i] = static_cast<float>(i);
  EXPECT_EQ(pool().Call<int>("arrays:double", *array).Get().value(), 1000);
  EXPECT_EQ((*array)[999], 1998.0f);
}

// ---- Many calls -----------------------------------------------------------------------------------------------

TEST_F(CallTest, MapGivesResultsInOrderAndEachItsOwnError) {
  Script("roots", "import math\ndef root(x): return math.sqrt(x)\ndef ratio(a, b): return a / b\n");
  Start({.workers = 2});
  auto roots = pool().Map<double>("roots:root", std::vector<double>{4, -1, 9}).Get();
  ASSERT_TRUE(roots.ok()) << roots.status();
  EXPECT_EQ((*roots)[0].value(), 2);
  EXPECT_THAT(Text((*roots)[1].status()), HasSubstr("roots:root: ValueError: "));
  EXPECT_EQ((*roots)[2].value(), 3);
  using Pair = std::tuple<int, int>;
  auto ratios = pool().Map<double>("roots:ratio", std::vector<Pair>{{1, 2}, {3, 4}}).Get();
  EXPECT_EQ((*ratios)[1].value(), 0.75);
  const auto none = pool().Map<double>("roots:root", std::vector<double>{}).Get();
  EXPECT_TRUE(none.value().empty());
}

// A range that finds out what is in it when it is gone through, as std::views::filter does.
class Negatives {
 public:
  explicit Negatives(std::vector<int> numbers) : numbers_(std::move(numbers)) {}
  auto begin() {
    std::erase_if(numbers_, [](int number) { return number >= 0; });
    return numbers_.begin();
  }
  auto end() { return numbers_.end(); }

 private:
  std::vector<int> numbers_;
};

TEST_F(CallTest, MapTakesRangesThatAreNoConstants) {
  Start({.workers = 1});
  EXPECT_THAT(AllValues(pool().Map<int>("builtins:abs", Negatives({1, -2, -3})).Get()), ElementsAre(2, 3));
  Negatives negative({1, -2, -3});
  EXPECT_THAT(AllValues(pool().Map<int>("builtins:abs", negative).Get()), ElementsAre(2, 3));
  std::vector<bool> bits = {true, false};
  EXPECT_THAT(AllValues(pool().Map<int>("builtins:int", bits).Get()), ElementsAre(1, 0));
  const int array[] = {-4};
  EXPECT_THAT(AllValues(pool().Map<int>("builtins:abs", array).Get()), ElementsAre(4));
}

TEST_F(CallTest, ThousandsOfCallsFromManyThreads) {
  Start({.workers = 2});
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i) {
        if (pool().Call<int>("builtins:abs", -(t * 1000 + i)).Get().value() == t * 1000 + i) ++right;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 2000);
}

TEST_F(CallTest, BroadcastRunsOnceOnEveryWorker) {
  Script("who", "import os\ndef pid(): return os.getpid()\n");
  Start({.workers = 3});
  auto pids = pool().Broadcast<int>("who:pid").Get();
  ASSERT_TRUE(pids.ok()) << pids.status();
  std::vector<int> expected, got;
  for (const WorkerStats& worker : pool().Stats().workers) expected.push_back(worker.pid);
  for (const auto& pid : *pids) got.push_back(pid.value());
  EXPECT_EQ(got, expected);
}

TEST_F(CallTest, BroadcastWaitsForAWorkerThatIsJustReplaced) {
  Script("who", "import os, time\ndef leave(): os._exit(1)\ndef pid(): return os.getpid()\n");
  Start({.workers = 3, .startup_code = "import time; time.sleep(0.1)"});
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(Error("who:leave").code(), absl::StatusCode::kAborted);
    const auto pids = pool().Broadcast<int>("who:pid").Get();
    ASSERT_TRUE(pids.ok()) << pids.status();
    std::vector<int> expected;
    for (const WorkerStats& worker : pool().Stats().workers) expected.push_back(worker.pid);
    EXPECT_EQ(AllValues(pids), expected);
  }
}

TEST_F(CallTest, ReloadReachesAWorkerThatIsJustReplaced) {
  Script("mode", "import os\ndef f(): return 1\ndef leave(): os._exit(1)\n");
  const std::string marker = scripts() + "/imported";
  Start({.workers = 1, .startup_code = absl::StrCat("import mode, time\nopen('", marker, "', 'a').write('x')\ntime.sleep(0.2)")});
  ASSERT_EQ(Error("mode:leave").code(), absl::StatusCode::kAborted);
  while (std::filesystem::file_size(marker) < 2) std::this_thread::yield();  // The replacement has the old module by now.
  Script("mode", "def f(): return 2\n");
  EXPECT_THAT(pool().Reload("mode").Get().value(), ElementsAre(absl::OkStatus()));
  EXPECT_EQ(pool().Call<int>("mode:f").Get().value(), 2);
}

TEST_F(CallTest, ReloadBringsTheNewSourceToEveryWorker) {
  Script("mode", "def f(): return 1\n");
  Start({.workers = 2});
  EXPECT_THAT(AllValues(pool().Broadcast<int>("mode:f").Get()), ElementsAre(1, 1));
  Script("mode", "def f(): return 2\n");
  EXPECT_THAT(AllValues(pool().Broadcast<int>("mode:f").Get()), ElementsAre(1, 1));
  const auto reloaded = pool().Reload("mode").Get();
  ASSERT_TRUE(reloaded.ok()) << reloaded.status();
  EXPECT_THAT(*reloaded, ElementsAre(absl::OkStatus(), absl::OkStatus()));
  EXPECT_THAT(AllValues(pool().Broadcast<int>("mode:f").Get()), ElementsAre(2, 2));
}

TEST_F(CallTest, ReloadOfBrokenSourceIsAnErrorAndTheOldStays) {
  Script("mode", "def f(): return 1\n");
  Start({.workers = 1});
  EXPECT_EQ(pool().Call<int>("mode:f").Get().value(), 1);
  Script("mode", "def f(: return 2\n");
  const auto reloaded = pool().Reload("mode").Get();
  EXPECT_THAT(Text(reloaded.value()[0]), HasSubstr("SyntaxError"));
  EXPECT_EQ(pool().Call<int>("mode:f").Get().value(), 1);
}

TEST_F(CallTest, ReloadOfSourceThatFailsHalfwayLeavesNothingOfIt) {
  Script("mode", "value = 1\ndef f(): return value\ndef g(): return 'old'\n");
  Start({.workers = 1});
  EXPECT_EQ(pool().Call<int>("mode:f").Get().value(), 1);
  Script("mode", "value = 3\ndef g(): return 'new'\ndef h(): pass\nraise RuntimeError('half-way')\n");
  const auto reloaded = pool().Reload("mode").Get();
  EXPECT_THAT(Text(reloaded.value()[0]), HasSubstr("RuntimeError: half-way"));
  EXPECT_EQ(pool().Call<int>("mode:f").Get().value(), 1);
  EXPECT_EQ(pool().Call<std::string>("mode:g").Get().value(), "old");
  EXPECT_EQ(Error("mode:h").code(), absl::StatusCode::kNotFound);
}

TEST_F(CallTest, NameThatIsNoTextIsNotFound) {
  Start({.workers = 1});
  const absl::Status status = Error("builtins:caf\xe9");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Text(status), HasSubstr("has no function 'caf\\\\xe9'"));
}

TEST_F(CallTest, CompletionRunsOnThePollingThread) {
  Start({.workers = 1});
  std::thread::id where;
  int value = 0;
  pool().CallAsync<int>("builtins:abs", [&](absl::StatusOr<int> result) {
    where = std::this_thread::get_id();
    value = result.value();
  }, -9);
  PollUntil([&] { return value != 0; });
  EXPECT_EQ(value, 9);
  EXPECT_EQ(where, std::this_thread::get_id());
}

TEST_F(CallTest, PollStopsWhenItsBudgetIsOver) {
  Start({.workers = 1});
  int done = 0;
  for (int i = 0; i < 10; ++i) {
    pool().CallAsync<int>("builtins:abs", [&](absl::StatusOr<int>) {
      ++done;
      absl::SleepFor(absl::Milliseconds(2));
    }, i);
  }
  ASSERT_TRUE(pool().Call<int>("builtins:abs", 0).Get().ok());  // The others are done: there is one worker.
  EXPECT_EQ(pool().Poll(absl::Milliseconds(1)), 1u);
  EXPECT_EQ(pool().Poll(absl::ZeroDuration()), 1u);
  EXPECT_EQ(pool().Poll(), 8u);
  EXPECT_EQ(done, 10);
}

TEST_F(CallTest, PollOfManyRepliesStopsWhenItsBudgetIsOver) {
  Start({.workers = 1});
  constexpr int kCalls = 100'000;
  int done = 0;
  for (int i = 0; i < kCalls; ++i) pool().CallAsync<int>("builtins:abs", [&](const absl::StatusOr<int>&) { ++done; }, i);
  pool().Flush();
  while (pool().Stats().workers[0].calls < kCalls) absl::SleepFor(absl::Milliseconds(10));  // All replies wait.
  const absl::Time before = absl::Now();
  EXPECT_GE(pool().Poll(absl::Microseconds(100)), 1u);
  const absl::Time between = absl::Now();
  EXPECT_LT(done, kCalls / 2);
  PollUntil([&] { return done == kCalls; });
  EXPECT_LT(between - before, absl::Now() - between);
}

// ---- Order and time -------------------------------------------------------------------------------------------

TEST_F(CallTest, HigherPriorityIsTakenFirst) {
  Script("order", "import time\nseen = []\ndef note(x): seen.append(x)\ndef nap(): time.sleep(0.1)\n"
                  "def all(): return seen\n");
  Start({.workers = 1});
  auto nap = pool().Call<void>("order:nap");
  pool().Flush();
  auto low = pool().With({.priority = Priority::kLow}).Call<void>("order:note", "low");
  auto normal = pool().Call<void>("order:note", "normal");
  auto high = pool().With({.priority = Priority::kHigh}).Call<void>("order:note", "high");
  EXPECT_TRUE(low.Get().ok());
  using Texts = std::vector<std::string>;
  EXPECT_EQ(pool().Call<Texts>("order:all").Get().value(), (Texts{"high", "normal", "low"}));
}

TEST_F(CallTest, CancelledCallIsNotRun) {
  Script("order", "import time\nseen = []\ndef note(x): seen.append(x)\ndef nap(): time.sleep(0.1)\n"
                  "def count(): return len(seen)\n");
  Start({.workers = 1});
  auto nap = pool().Call<void>("order:nap");
  pool().Flush();
  auto unwanted = pool().Call<void>("order:note", 1);
  EXPECT_TRUE(unwanted.Cancel());
  EXPECT_FALSE(unwanted.Cancel());
  EXPECT_EQ(unwanted.Get().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(pool().Call<int>("order:count").Get().value(), 0);
  EXPECT_FALSE(nap.Cancel());
  EXPECT_TRUE(nap.Get().ok());
}

TEST_F(CallTest, StuckCallEndsByItsDeadlineWithItsStackAndTheWorkerIsReplaced) {
  Script("stuck", "def spin():\n  while True: pass\n");
  Start({.workers = 1});
  const absl::Time before = absl::Now();
  const absl::Status status = pool().With({.deadline = absl::Milliseconds(100)}).Call<void>("stuck:spin").Get();
  EXPECT_LT(absl::Now() - before, absl::Seconds(5));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(Text(status), HasSubstr("stuck:spin: not done within its deadline"));
  EXPECT_THAT(Text(status), HasSubstr("stuck.py\", line 2 in spin"));
  ExpectAlive();
  EXPECT_EQ(pool().Stats().replaced, 1u);
}

TEST_F(CallTest, StuckCallEndsWhateverItsScriptDidToItsProcess) {
  Script("wreck", R"(
import builtins, faulthandler, gc, os, signal, sys, threading

def spin():
  while True: pass

def builtins_gone(): builtins.__dict__.clear(); spin()
def modules_gone(): sys.modules.clear(); gc.collect(); spin()
def streams_gone(): sys.stderr.close(); sys.stdout.close(); os.closerange(0, 1024); spin()
def handlers_gone(): faulthandler.disable(); faulthandler.unregister(signal.SIGUSR1); spin()
def signals_blocked(): signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); spin()
def signals_ignored():
  for number in {*signal.valid_signals()} - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(number, signal.SIG_IGN)
  spin()
def stopped(): os.kill(os.getpid(), signal.SIGSTOP); spin()
def in_another_thread(): threading.Thread(target=spin).start(); signal.pause()
)");
  Start({.workers = 2});
  for (const char* way : {"builtins_gone", "modules_gone", "streams_gone", "handlers_gone", "signals_blocked", "signals_ignored",
                          "stopped", "in_another_thread"}) {
    const absl::Time before = absl::Now();
    const absl::Status status =
        pool().With({.deadline = absl::Milliseconds(100)}).Call<void>(absl::StrCat("wreck:", way)).Get();
    EXPECT_LT(absl::Now() - before, absl::Seconds(5)) << way;
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << way << ": " << status;
    ExpectAlive();
  }
  PollUntil([&] { return pool().Stats().replaced == 8; });  // The other worker may have answered before the last was.
}

TEST_F(CallTest, DeadlineIsKeptThoughNobodyPolls) {
  Script("stuck", "import time\ndef spin():\n  while True: pass\n");
  Start({.workers = 1, .hot_workers = true});
  auto far = pool().With({.deadline = absl::Seconds(1000)}).Call<int>("builtins:abs", 1);
  auto stuck = pool().With({.deadline = absl::Milliseconds(50)}).Call<void>("stuck:spin");
  const absl::Time end = absl::Now() + absl::Seconds(30);
  while (pool().Stats().replaced == 0 && absl::Now() < end) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_LT(absl::Now(), end);
  EXPECT_EQ(far.Get().value(), 1);
  EXPECT_EQ(stuck.Get().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(CallTest, DeadlineOfAWaitingCallCostsNoWorker) {
  Script("slow", "import time\ndef nap(): time.sleep(0.3)\n");
  Start({.workers = 1});
  auto nap = pool().Call<void>("slow:nap");
  const absl::Status status = pool().With({.deadline = absl::Milliseconds(20)}).Call<void>("slow:nap").Get();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(Text(status), HasSubstr("no worker was free before the call's deadline"));
  EXPECT_TRUE(nap.Get().ok());
  EXPECT_EQ(pool().Stats().replaced, 0u);
}

TEST_F(CallTest, CallWhoseDeadlineIsOverWhenItIsSubmittedIsNotRun) {
  Script("count", "count = 0\ndef add():\n  global count\n  count += 1\n  return count\n");
  Start({.workers = 1});
  for (absl::Duration over : {absl::ZeroDuration(), absl::Seconds(-1), -absl::InfiniteDuration()}) {
    const absl::Status status = pool().With({.deadline = over}).Call<void>("count:add").Get();
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_THAT(Text(status), HasSubstr("its deadline was over when it was submitted"));
  }
  EXPECT_EQ(pool().Call<int>("count:add").Get().value(), 1);
  EXPECT_EQ(pool().Stats().replaced, 0u);
}

TEST_F(CallTest, EveryWaitingCallHasItsDeadlineKeptAndCanBeCancelled) {
  Script("busy", "import os, time\ndef until(path):\n  while not os.path.exists(path): time.sleep(0.001)\n");
  Start({.workers = 1});
  const std::string free = scripts() + "/free";
  auto busy = pool().Call<void>("busy:until", free);
  pool().Flush();
  while (pool().Stats().waiting != 0) std::this_thread::yield();
  const std::vector<int> items(40'000, 1);
  auto late = pool().With({.deadline = absl::Milliseconds(200)}).Map<int>("builtins:abs", items);
  auto unwanted = pool().Map<int>("builtins:abs", items);
  EXPECT_EQ(pool().Stats().waiting, 2 * items.size());
  EXPECT_TRUE(unwanted.Cancel());
  const auto results = late.Get();
  ASSERT_TRUE(results.ok()) << results.status();
  for (const auto& result : *results) ASSERT_EQ(result.status().code(), absl::StatusCode::kDeadlineExceeded);
  std::ofstream(free).close();
  EXPECT_TRUE(busy.Get().ok());
  EXPECT_EQ(pool().Stats().replaced, 0u);
}

TEST_F(CallTest, CallsWithoutNumberAreAnsweredInTheirOrder) {
  Start({.workers = 2});
  std::vector<int> items(100'000);
  std::iota(items.begin(), items.end(), 0);
  EXPECT_EQ(AllValues(pool().Map<int>("builtins:abs", items).Get()), items);
  auto last = pool().Map<int>("builtins:abs", items);
  EXPECT_TRUE(pool().Shutdown(absl::Seconds(60)).ok());
  EXPECT_EQ(AllValues(last.Get()), items);
}

TEST_F(CallTest, HotWorkersServeWithoutEverBeingWoken) {
  Start({.workers = 1, .hot_workers = true});
  auto future = pool().Call<int>("builtins:abs", -3);
  while (!future.Ready()) {  // Neither Flush nor Get.
  }
  EXPECT_EQ(future.Get().value(), 3);
}

TEST_F(CallTest, StatsCountCallsAndWorkers) {
  Start({.workers = 2});
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(pool().Call<int>("builtins:abs", i).Get().ok());
  const Stats stats = pool().Stats();
  ASSERT_EQ(stats.workers.size(), 2u);
  EXPECT_EQ(stats.workers[0].calls + stats.workers[1].calls, 10u);
  EXPECT_EQ(stats.outstanding, 0u);
  EXPECT_GT(stats.shared_memory_limit, stats.shared_memory_used);
}

}  // namespace
}  // namespace pyhost
