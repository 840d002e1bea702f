#include "host/interpreter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace pyhost::host {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

struct Outcome {
  int exit_code = -1;
  std::string output;  // what went to stdout and stderr
};

// Runs `body` in a child process, whose exit code is what it returns.
Outcome InChild(const std::function<int()>& body) {
  int ends[2];
  if (pipe(ends) != 0) return {};
  std::fflush(nullptr);
  pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    int code = body();
    std::fflush(nullptr);
    _exit(code);
  }
  close(ends[1]);
  Outcome outcome;
  char buffer[4096];
  for (ssize_t size; (size = read(ends[0], buffer, sizeof(buffer))) > 0;) outcome.output.append(buffer, size);
  close(ends[0]);
  int status;
  if (waitpid(child, &status, 0) == child && WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  return outcome;
}

class InterpreterTest : public testing::Test {
 protected:
  InterpreterTest() {
    char path[] = "/tmp/pyhost-interpreter-test-XXXXXX";
    folder_ = mkdtemp(path);
    setenv("PYTHONPATH", folder_.c_str(), 1);
    setenv("PYTHONDONTWRITEBYTECODE", "1", 1);
    unsetenv("VIRTUAL_ENV");
  }

  ~InterpreterTest() override {
    std::remove((folder_ + "/entry.py").c_str());
    rmdir(folder_.c_str());
  }

  // Calls the function `run` with this body, then finalizes.
  Outcome CallRun(const std::string& body, const std::vector<std::string>& options = {}) {
    std::ofstream(folder_ + "/entry.py") << "import sys, atexit\ndef run():\n    " << body << "\n";
    return InChild([&options] {
      std::vector<std::string> argv = {"/usr/bin/python3"};
      argv.insert(argv.end(), options.begin(), options.end());
      if (std::optional<int> code = StartInterpreter(argv)) return *code;
      return FinalizeInterpreter(CallEntry("entry", "run"));
    });
  }

  std::string folder_;
};

TEST_F(InterpreterTest, ReturnIsExitCodeZero) {
  Outcome outcome = CallRun("print('done')");
  EXPECT_EQ(0, outcome.exit_code);
  EXPECT_EQ("done\n", outcome.output);
}

TEST_F(InterpreterTest, ExceptionIsTracebackAndOne) {
  Outcome outcome = CallRun("1 / 0");
  EXPECT_EQ(1, outcome.exit_code);
  EXPECT_THAT(outcome.output, HasSubstr("Traceback (most recent call last):"));
  EXPECT_THAT(outcome.output, EndsWith("ZeroDivisionError: division by zero\n"));
}

TEST_F(InterpreterTest, SystemExitGivesItsCode) {
  EXPECT_EQ(0, CallRun("sys.exit()").exit_code);
  EXPECT_EQ(3, CallRun("sys.exit(3)").exit_code);
  EXPECT_EQ(255, CallRun("sys.exit(-1)").exit_code);
  EXPECT_EQ(255, CallRun("sys.exit(2**70)").exit_code);
  EXPECT_EQ("", CallRun("sys.exit(3)").output);
}

TEST_F(InterpreterTest, SystemExitWithTextPrintsItAndIsOne) {
  Outcome outcome = CallRun("sys.exit('no such luck')");
  EXPECT_EQ(1, outcome.exit_code);
  EXPECT_EQ("no such luck\n", outcome.output);
}

TEST_F(InterpreterTest, SystemExitWithoutStandardErrorStillPrints) {
  Outcome outcome = CallRun("sys.stderr = None; sys.exit('no such luck')");
  EXPECT_EQ(1, outcome.exit_code);
  EXPECT_EQ("no such luck\n", outcome.output);
}

TEST_F(InterpreterTest, MissingEntryIsTracebackAndOne) {
  Outcome outcome = InChild([] {
    if (std::optional<int> code = StartInterpreter({"/usr/bin/python3"})) return *code;
    int code = CallEntry("no_such_entry", "run");
    return FinalizeInterpreter(code);
  });
  EXPECT_EQ(1, outcome.exit_code);
  EXPECT_THAT(outcome.output, HasSubstr("No module named 'no_such_entry'"));
}

TEST_F(InterpreterTest, EntriesCanBeCalledAgain) {
  std::ofstream(folder_ + "/entry.py") << "def run(calls=[]):\n    calls.append(1)\n    raise SystemExit(len(calls))\n";
  Outcome outcome = InChild([] {
    if (std::optional<int> code = StartInterpreter({"/usr/bin/python3"})) return *code;
    int first = CallEntry("entry", "run");
    return FinalizeInterpreter(first * 10 + CallEntry("entry", "run"));
  });
  EXPECT_EQ(12, outcome.exit_code);
}

TEST_F(InterpreterTest, FinalizingRunsAtexitFunctions) {
  EXPECT_EQ("body\natexit\n", CallRun("atexit.register(print, 'atexit'); print('body')").output);
}

TEST_F(InterpreterTest, OutputThatCannotBeFlushedIs120) {
  EXPECT_EQ(120, CallRun("sys.stdout = open('/dev/full', 'w'); print('lost')").exit_code);
}

TEST_F(InterpreterTest, OptionsAreThoseOfPython) {
  Outcome outcome = CallRun("print(sys.flags.optimize, sys.flags.dev_mode, sys._xoptions, sys.warnoptions, sys.argv)",
                            {"-OO", "-X", "dev", "-W", "error"});
  EXPECT_EQ("2 True {'dev': True} ['default', 'error'] ['']\n", outcome.output);
}

TEST_F(InterpreterTest, UnknownOptionIsNoStart) {
  Outcome outcome = CallRun("pass", {"-Z"});
  EXPECT_EQ(2, outcome.exit_code);
  EXPECT_THAT(outcome.output, HasSubstr("Unknown option: -Z"));
}

TEST_F(InterpreterTest, MainJobIsRunAndFinalized) {
  Outcome outcome = InChild([] {
    std::vector<std::string> argv = {"/usr/bin/python3", "-c", "import sys; print(sys.argv); sys.exit(4)", "a"};
    if (std::optional<int> code = StartInterpreter(argv)) return *code;
    return RunMainJob();
  });
  EXPECT_EQ(4, outcome.exit_code);
  EXPECT_EQ("['-c', 'a']\n", outcome.output);
}

}  // namespace
}  // namespace pyhost::host
