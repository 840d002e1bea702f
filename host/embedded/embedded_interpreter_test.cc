// An engine with an interpreter of its own.  Its main() counts how often it is launched: what scripts start must be `pyhost`.
//
// There is one interpreter life a process, so each case runs in a fork of the test.

#include "pyhost/embedded_interpreter.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace pyhost {
namespace {

using ::testing::HasSubstr;

// A file to which each launch of this program adds a byte; its path is in the environment.
constexpr char kLaunchFile[] = "PYHOST_TEST_LAUNCHES";

void CountLaunch() {
  const char* path = std::getenv(kLaunchFile);
  if (path == nullptr) return;
  std::ofstream(path, std::ios::app) << '.';
}

class EmbeddedTest : public ::testing::Test {
 protected:
  EmbeddedTest() {
    char name[] = "/tmp/pyhost-embedded-XXXXXX";
    folder_ = mkdtemp(name);
    std::ofstream(folder_ / "brain.py") << R"(
import os, sys

def urgency(npc, place):
    return npc * 1.5 + len(place)

def fail(text):
    raise ValueError(text)

def double(x):
    return 2 * x

def report(queue):
    queue.put((os.getpid(), sys.executable))

def give_up():
    sys.exit(3)
)";
  }
  ~EmbeddedTest() override { std::filesystem::remove_all(folder_); }

  // Runs the body with an interpreter in a process of its own; failures inside are failures of the test.
  void WithInterpreter(const std::function<void(EmbeddedInterpreter&)>& body) {
    InChild([&] {
      auto python = EmbeddedInterpreter::Start({.python_path = {folder_.string()}});
      ASSERT_TRUE(python.ok()) << python.status();
      body(**python);
    });
  }
  void InChild(const std::function<void()>& body) {
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      body();
      _exit(HasFailure() ? 1 : 0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0) << "see the failures above";
  }

  std::filesystem::path folder_;
};

TEST_F(EmbeddedTest, CallsFunctionsWithTypedValues) {
  WithInterpreter([](EmbeddedInterpreter& python) {
    EXPECT_EQ(*python.Call<double>("brain:urgency", 2, "forest"), 9.0);
    EXPECT_EQ(*python.Call<std::vector<int>>("builtins:sorted", std::vector<int>{3, 1, 2}), (std::vector<int>{1, 2, 3}));
  });
}

TEST_F(EmbeddedTest, AnyThreadMayCall) {
  WithInterpreter([](EmbeddedInterpreter& python) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&python, i] {
        for (int call = 0; call < 100; ++call) EXPECT_EQ(*python.Call<int>("brain:double", i), 2 * i);
      });
    }
    for (std::thread& thread : threads) thread.join();
  });
}

TEST_F(EmbeddedTest, ErrorsCarryTypeTextAndTraceback) {
  WithInterpreter([](EmbeddedInterpreter& python) {
    const absl::Status failed = python.Call<int>("brain:fail", "no path").status();
    EXPECT_EQ(failed.code(), absl::StatusCode::kUnknown);
    EXPECT_THAT(failed.ToString(), HasSubstr("ValueError: no path"));
    EXPECT_THAT(failed.ToString(), HasSubstr("brain.py"));
    EXPECT_EQ(python.Call<int>("brain:none").status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(python.Call<int>("no_such_module:f").status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(python.Call<int>("brain:double").status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(python.Call<int>("brain:urgency", 1, "").status().ToString(), HasSubstr("expected an integer"));
    EXPECT_EQ(python.Call<int>("brain:give_up").status().code(), absl::StatusCode::kAborted);
    EXPECT_THAT(python.Run("1 +").ToString(), HasSubstr("SyntaxError"));
    EXPECT_EQ(*python.Call<int>("brain:double", 4), 8) << "all of that is past";
  });
}

TEST_F(EmbeddedTest, MultiprocessingIsOursAndItsChildrenArePyhostNeverTheEngine) {
  const std::string launches = (folder_ / "launches").string();
  setenv(kLaunchFile, launches.c_str(), 1);
  WithInterpreter([](EmbeddedInterpreter& python) {
    const absl::Status status = python.Run(R"(
import brain, concurrent.futures, multiprocessing, os
assert 'pyhost' in multiprocessing.__doc__.lower() or '/modules/' in multiprocessing.__file__, multiprocessing.__file__
for method in ('spawn', 'forkserver', 'fork'):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=brain.report, args=(queue,))
    process.start()
    pid, executable = queue.get(timeout=30)
    process.join(30)
    assert process.exitcode == 0 and pid == process.pid != os.getpid()
    assert os.path.basename(executable) == 'pyhost', executable
with multiprocessing.Pool(2) as pool:
    assert pool.map(brain.double, range(100)) == [2 * x for x in range(100)]
with concurrent.futures.ProcessPoolExecutor(2) as executor:
    assert list(executor.map(brain.double, range(10))) == [2 * x for x in range(10)]
)");
    EXPECT_TRUE(status.ok()) << status;
  });
  unsetenv(kLaunchFile);
  EXPECT_FALSE(std::filesystem::exists(launches)) << "the engine was launched again";
}

TEST_F(EmbeddedTest, EndRunsExitFunctionsAndWaitsForThreads) {
  const std::string witness = (folder_ / "witness").string();
  InChild([&] {
    auto python = EmbeddedInterpreter::Start();
    ASSERT_TRUE(python.ok()) << python.status();
    ASSERT_TRUE((*python)->Run("import atexit, threading\n"
                               "lines = []\n"
                               "go = threading.Event()\n"
                               "threading.Thread(target=lambda: (go.wait(), lines.append('thread'))).start()\n"
                               "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
                               "atexit.register(lambda: open('" + witness + "', 'w').write(' '.join(lines + ['atexit'])))\n"
                               "go.set()\n").ok());
    python->reset();
  });
  std::ifstream file(witness);
  std::string text;
  std::getline(file, text);
  EXPECT_EQ(text, "thread atexit");
}

TEST_F(EmbeddedTest, EnvironmentOfTheEngineDoesNotReachItUnlessWanted) {
  setenv("PYTHONPATH", folder_.c_str(), 1);
  InChild([] {
    auto python = EmbeddedInterpreter::Start();
    ASSERT_TRUE(python.ok()) << python.status();
    EXPECT_EQ((*python)->Run("import brain").code(), absl::StatusCode::kUnknown);
  });
  InChild([] {
    auto python = EmbeddedInterpreter::Start({.use_environment = true});
    ASSERT_TRUE(python.ok()) << python.status();
    EXPECT_TRUE((*python)->Run("import brain").ok());
  });
  unsetenv("PYTHONPATH");
}

TEST_F(EmbeddedTest, SecondInterpreterIsRefused) {
  WithInterpreter([](EmbeddedInterpreter&) {
    EXPECT_EQ(EmbeddedInterpreter::Start().status().code(), absl::StatusCode::kFailedPrecondition);
  });
}

TEST_F(EmbeddedTest, MissingPartsAreNamed) {
  InChild([] {
    EXPECT_THAT(EmbeddedInterpreter::Start({.program = "/no/such/pyhost"}).status().ToString(), HasSubstr("/no/such/pyhost"));
    const absl::Status status = EmbeddedInterpreter::Start({.virtual_env = "/no/such/venv"}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(status.ToString(), HasSubstr("/no/such/venv"));
    EXPECT_TRUE(EmbeddedInterpreter::Start().ok()) << "what was refused has used nothing up";
  });
}

}  // namespace
}  // namespace pyhost

int main(int argc, char** argv) {
  pyhost::CountLaunch();
  ::testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
