// Functions of the engine, called from scripts.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "runtime/engine/pool_test_util.h"

namespace pyhost {
namespace {

using ::testing::HasSubstr;

using ExposedTest = PoolTest;

TEST_F(ExposedTest, ScriptCallsTheEngineThatWaitsForIt) {
  Script("walk", "from pyhost.engine import call, functions\n"
                 "def one(x): return call('terrain.height_at', x, 2.0)\n"
                 "def two(x): return functions.terrain.height_at(x, 3)\n");
  Start({.workers = 1});
  ASSERT_TRUE(pool().Expose("terrain.height_at", [](double x, double y) { return x * y; }).ok());
  EXPECT_EQ(pool().Call<double>("walk:one", 5.0).Get().value(), 10);
  EXPECT_EQ(pool().Call<double>("walk:two", 5.0).Get().value(), 15);
}

TEST_F(ExposedTest, RunsOnTheThreadThatPolls) {
  Script("walk", "from pyhost.engine import call\ndef f(): return call('where')\n");
  Start({.workers = 1});
  std::thread::id where;
  ASSERT_TRUE(pool().Expose("where", [&] { where = std::this_thread::get_id(); }).ok());
  pool().Poll();
  bool got = false;
  std::atomic<bool> over{false};
  std::thread waiter([&] {
    got = pool().Call<void>("walk:f").Get().ok();
    over = true;
  });
  PollUntil([&] { return over.load(); });
  waiter.join();
  EXPECT_TRUE(got);
  EXPECT_EQ(where, std::this_thread::get_id());
}

TEST_F(ExposedTest, ErrorOfTheEngineIsAnExceptionInTheScriptAndComesBackWithItsCode) {
  Script("walk", "from pyhost.engine import call, EngineError\n"
                 "def caught():\n  try: call('fails')\n  except EngineError as error: return f'{error.code}: {error}'\n"
                 "def uncaught(): call('fails')\n"
                 "def own(): raise EngineError('no such town', code='NOT_FOUND')\n");
  Start({.workers = 1});
  ASSERT_TRUE(pool().Expose("fails", []() -> absl::Status { return absl::OutOfRangeError("off the map"); }).ok());
  EXPECT_EQ(pool().Call<std::string>("walk:caught").Get().value(), "OUT_OF_RANGE: fails: off the map");
  EXPECT_EQ(Error("walk:uncaught").code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(Error("walk:own").code(), absl::StatusCode::kNotFound);
}

TEST_F(ExposedTest, TextOfAnErrorMayBeInAnyEncoding) {
  Script("walk", "from pyhost.engine import call, EngineError\n"
                 "def f():\n  try: call('fails')\n  except EngineError as error: return f'{error.code}: {error}'\n");
  Start({.workers = 1});
  ASSERT_TRUE(pool().Expose("fails", []() -> absl::Status { return absl::InternalError("caf\xe9"); }).ok());
  EXPECT_EQ(pool().Call<std::string>("walk:f").Get().value(), "INTERNAL: fails: caf\\xe9");
}

TEST_F(ExposedTest, WrongArgumentsAndUnknownNamesAreErrorsOfTheScript) {
  Script("walk", "from pyhost.engine import call\ndef f(name, *args): return call(name, *args)\n");
  Start({.workers = 1});
  ASSERT_TRUE(pool().Expose("square", [](int x) -> absl::StatusOr<int> { return x * x; }).ok());
  EXPECT_EQ(pool().Call<int>("walk:f", "square", 7).Get().value(), 49);
  EXPECT_EQ(pool().Call<int>("walk:f", "square", "seven").Get().status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pool().Call<int>("walk:f", "square").Get().status().code(), absl::StatusCode::kInvalidArgument);
  const absl::Status unknown = pool().Call<int>("walk:f", "cube", 7).Get().status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Text(unknown), HasSubstr("the engine has exposed no function 'cube'"));
}

TEST_F(ExposedTest, ExposedFunctionMayCallThePoolAndWait) {
  Script("deep", "from pyhost.engine import call\ndef down(n): return call('next', n)\ndef last(): return 0\n");
  Start({.workers = 3});
  ASSERT_TRUE(pool().Expose("next", [&](int n) -> absl::StatusOr<int> {
    return n == 0 ? pool().Call<int>("deep:last").Get() : pool().Call<int>("deep:down", n - 1).Get();
  }).ok());
  EXPECT_EQ(pool().Call<int>("deep:down", 1).Get().value(), 0);
}

TEST_F(ExposedTest, WaitThatCouldNeverEndIsAnErrorInstead) {
  Script("deep", "from pyhost.engine import call\ndef down(): return call('next')\ndef last(): return 0\n");
  Start({.workers = 1});
  ASSERT_TRUE(pool().Expose("next", [&]() -> absl::StatusOr<int> { return pool().Call<int>("deep:last").Get(); }).ok());
  const absl::Status status = Error("deep:down");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Text(status), HasSubstr("every worker waits for an exposed function"));
  ExpectAlive();
}

TEST_F(ExposedTest, ThreadsOfAScriptMayCallAtTheSameTime) {
  Script("many", "import threading\nfrom pyhost.engine import call\n"
                 "def f():\n  got = []\n  def one(i): got.append(call('twice', i))\n"
                 "  threads = [threading.Thread(target=one, args=(i,)) for i in range(8)]\n"
                 "  for t in threads: t.start()\n  for t in threads: t.join()\n  return sum(got)\n");
  Start({.workers = 1});
  ASSERT_TRUE(pool().Expose("twice", [](int x) { return 2 * x; }).ok());
  EXPECT_EQ(pool().Call<int>("many:f").Get().value(), 56);
}

TEST_F(ExposedTest, WorkerThatDiesInAnExposedFunctionHarmsNobody) {
  Script("bad", "import os, threading, time\nfrom pyhost.engine import call\n"
                "def f():\n  threading.Timer(0.05, os._exit, (1,)).start()\n  call('slow')\n");
  Start({.workers = 1});
  ASSERT_TRUE(pool().Expose("slow", [] { absl::SleepFor(absl::Milliseconds(200)); }).ok());
  EXPECT_EQ(Error("bad:f").code(), absl::StatusCode::kAborted);
  ExpectAlive();
}

TEST_F(ExposedTest, OrderlyShutdownServesScriptsThatAreStillRunning) {
  Script("late", "import time\nfrom pyhost.engine import call\ndef f():\n  time.sleep(0.1)\n  return call('one')\n");
  Start({.workers = 1});
  ASSERT_TRUE(pool().Expose("one", [] { return 1; }).ok());
  auto late = pool().Call<int>("late:f");
  EXPECT_TRUE(pool().Shutdown(absl::Seconds(30)).ok());
  EXPECT_EQ(late.Get().value(), 1);
}

TEST_F(ExposedTest, OrderlyShutdownInsideOfAnExposedFunctionIsAnErrorInstead) {
  Script("walk", "from pyhost.engine import call\ndef f(): return call('end')\n");
  Start({.workers = 2});
  ASSERT_TRUE(pool().Expose("end", [&] { return pool().Shutdown(absl::InfiniteDuration()); }).ok());
  const absl::Status status = Error("walk:f");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Text(status), HasSubstr("an exposed function cannot wait for the pool's calls to be done"));
  ExpectAlive();
}

TEST_F(ExposedTest, ImmediateShutdownInsideOfAnExposedFunctionEndsItsCallToo) {
  Script("walk", "from pyhost.engine import call\ndef f(): return call('end')\n");
  Start({.workers = 2});
  ASSERT_TRUE(pool().Expose("end", [&] { return pool().Shutdown(absl::ZeroDuration()); }).ok());
  EXPECT_EQ(Error("walk:f").code(), absl::StatusCode::kCancelled);
}

TEST_F(ExposedTest, AnyThreadServesWhenTheOneThatPolledHasEnded) {
  Script("walk", "from pyhost.engine import call\ndef f(): return call('one')\n");
  Start({.workers = 1});
  ASSERT_TRUE(pool().Expose("one", [] { return 1; }).ok());
  std::thread([&] { pool().Poll(); }).join();
  EXPECT_EQ(pool().Call<int>("walk:f").Get(absl::Seconds(30)).value(), 1);
}

TEST_F(ExposedTest, ThreadThatWaitsServesWhenTheOneThatPolledEndsMeanwhile) {
  Script("walk", "from pyhost.engine import call\ndef f(): return call('one')\n");
  Start({.workers = 1});
  ASSERT_TRUE(pool().Expose("one", [] { return 1; }).ok());
  auto call = pool().Call<int>("walk:f");
  absl::Notification has_polled;
  std::thread polled([&] {
    pool().Poll();
    has_polled.Notify();
    absl::SleepFor(absl::Milliseconds(200));  // So that the wait begins while this thread lives.
  });
  has_polled.WaitForNotification();
  EXPECT_EQ(call.Get(absl::Seconds(30)).value(), 1);
  polled.join();
}

TEST_F(ExposedTest, ExceptionOfTheEnginesIsTheScriptsErrorAndTheEngineGoesOn) {
  Script("ask", "from pyhost.engine import call, EngineError\n"
                "def ask(name):\n  try: call(name)\n  except EngineError as error: return f'{error.code} {error}'\n");
  Start({.workers = 1});
  ASSERT_TRUE(pool().Expose("throws", []() -> int { throw std::runtime_error("no such town"); }).ok());
  ASSERT_TRUE(pool().Expose("throws_int", []() -> int { throw 5; }).ok());
  EXPECT_EQ(pool().Call<std::string>("ask:ask", "throws").Get().value(), "INTERNAL throws: it threw an exception: no such town");
  EXPECT_EQ(pool().Call<std::string>("ask:ask", "throws_int").Get().value(),
            "INTERNAL throws_int: it threw an exception that is no std::exception");
}

}  // namespace
}  // namespace pyhost
