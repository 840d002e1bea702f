// Whole pools: this program is an engine, its workers are pyhost.

#include "runtime/engine/pool_core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace pyhost {
namespace {

using ::testing::HasSubstr;
using namespace std::string_literals;

constexpr absl::Duration kLong = absl::Seconds(30);

// Pickles, protocol 5, as pickle.dumps() writes them but for the frames.
const std::string kNoArguments = "\x80\x05)."s;
const std::string kOneTwo = "\x80\x05K\x01K\x02\x86."s;  // (1, 2)

// A folder with the scripts of one test.
class ScriptFolder {
 public:
  ScriptFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "pyhost-engine-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~ScriptFolder() { std::filesystem::remove_all(path_); }
  ScriptFolder(const ScriptFolder&) = delete;
  ScriptFolder& operator=(const ScriptFolder&) = delete;

  const std::string& path() const { return path_; }
  void Write(const std::string& name, const std::string& source) const {
    std::ofstream(absl::StrCat(path_, "/", name)) << source;
  }

 private:
  std::string path_;
};

class PoolCoreTest : public ::testing::Test {
 protected:
  void Start(Options options) {
    options.python_path = {scripts_.path()};
    absl::StatusOr<std::shared_ptr<PoolCore>> pool = PoolCore::Start(options);
    ASSERT_TRUE(pool.ok()) << pool.status();
    pool_ = *std::move(pool);
  }
  // The pickle of what the call gives, or its error.
  absl::StatusOr<std::string> Call(std::string_view function, std::string_view arguments) {
    auto reply = pool_->Submit(function, arguments, {}, {})->Await(Deadline::After(kLong));
    if (!reply.ok()) return reply.status();
    return std::string((*reply)->pickle());
  }
  absl::Status ErrorOf(std::string_view function, std::string_view arguments = kNoArguments) {
    return Call(function, arguments).status();
  }

  ScriptFolder scripts_;
  std::shared_ptr<PoolCore> pool_;
};

TEST_F(PoolCoreTest, CallGivesWhatTheFunctionReturns) {
  scripts_.Write("sums.py", "def add(a, b): return a + b\n");
  Start({.workers = 1});
  EXPECT_THAT(Call("sums:add", kOneTwo), "\x80\x05K\x03."s);
}

TEST_F(PoolCoreTest, ExceptionIsAnErrorWithItsTracebackAndTheWorkerGoesOn) {
  scripts_.Write("bad.py", "def fail(): raise ValueError('no good')\ndef fine(): return None\n");
  Start({.workers = 1});
  const absl::Status status = ErrorOf("bad:fail");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnknown);
  EXPECT_THAT(std::string(status.message()), HasSubstr("bad:fail: ValueError: no good\nTraceback"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("bad.py\", line 1, in fail"));
  EXPECT_THAT(Call("bad:fine", kNoArguments), "\x80\x05N."s);
}

TEST_F(PoolCoreTest, WhatIsNotThereIsNotFoundAndSaysWhereItWasSearched) {
  scripts_.Write("empty.py", "x = 1\n");
  Start({.workers = 1});
  absl::Status status = ErrorOf("nowhere:f");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no module named 'nowhere', wanted for 'nowhere:f'; searched: " +
                                                       scripts_.path()));
  status = ErrorOf("empty:f");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("has no function 'f'"));
  EXPECT_EQ(ErrorOf("empty:x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorOf("empty").code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(PoolCoreTest, WrongArgumentCountHasPythonsOwnMessage) {
  scripts_.Write("sums.py", "def add(a, b): return a + b\n");
  Start({.workers = 1});
  const absl::Status status = ErrorOf("sums:add");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("add() missing 2 required positional arguments: 'a' and 'b'"));
}

TEST_F(PoolCoreTest, WorkerThatDiesCostsItsCallAnErrorAndIsReplaced) {
  scripts_.Write("crash.py",
                 "import ctypes, os, signal\n"
                 "def fault(): ctypes.string_at(0)\n"
                 "def leave(): os._exit(3)\n"
                 "def group(): os.killpg(0, signal.SIGKILL)\n"
                 "def fine(): return None\n");
  Start({.workers = 1});
  const std::pair<std::string, std::string> ends[] = {
      {"crash:fault", "killed by SIGSEGV"}, {"crash:leave", "exited with code 3"}, {"crash:group", "killed by SIGKILL"}};
  for (const auto& [function, how] : ends) {
    const absl::Status status = ErrorOf(function);
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
    EXPECT_THAT(std::string(status.message()), HasSubstr(how));
    EXPECT_THAT(std::string(status.message()), HasSubstr("running " + function));
    EXPECT_THAT(Call("crash:fine", kNoArguments), "\x80\x05N."s);
  }
}

TEST_F(PoolCoreTest, OrderlyShutdownFinishesWhatWasSubmitted) {
  scripts_.Write("slow.py", "import time\ndef nap(): time.sleep(0.2)\n");
  Start({.workers = 1});
  auto first = pool_->Submit("slow:nap", kNoArguments, {}, {});
  auto second = pool_->Submit("slow:nap", kNoArguments, {}, {});
  EXPECT_TRUE(pool_->Shutdown(Deadline::After(kLong)).ok());
  EXPECT_TRUE(first->Await(Deadline::Now()).ok());
  EXPECT_TRUE(second->Await(Deadline::Now()).ok());
  EXPECT_EQ(ErrorOf("slow:nap").code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(PoolCoreTest, ImmediateShutdownCancelsWhatIsRunning) {
  scripts_.Write("slow.py", "import time\ndef hang(): time.sleep(1000)\n");
  Start({.workers = 2});
  auto call = pool_->Submit("slow:hang", kNoArguments, {}, {});
  EXPECT_TRUE(pool_->Shutdown(Deadline::Now()).ok());
  EXPECT_EQ(call->Await(Deadline::After(kLong)).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(PoolCoreTest, StartFailsWithWhatTheStartUpCodeRaised) {
  const auto pool = PoolCore::Start({.workers = 2, .startup_code = "import nothing_of_that_name"});
  EXPECT_THAT(std::string(pool.status().message()), HasSubstr("No module named 'nothing_of_that_name'"));
  EXPECT_THAT(std::string(pool.status().message()), HasSubstr("<start-up code>"));
}

TEST_F(PoolCoreTest, MissingProgramIsNamed) {
  const auto pool = PoolCore::Start({.program = "/nowhere/pyhost"});
  EXPECT_EQ(pool.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(pool.status().message()), HasSubstr("'/nowhere/pyhost'"));
}

}  // namespace
}  // namespace pyhost
